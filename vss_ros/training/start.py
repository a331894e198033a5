"""Networks that begin with the weights of an existing model, or of a file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.core.files.paths import user_path
from vss_ros.core.model.folder import load_model
from vss_ros.exporting.import_weights import COUNTER, WRAPPER, read_tensors
from vss_ros.exporting.weights import stored_tensors
from vss_ros.methods.method import Method

log = logging.getLogger(__name__)


class Origin(NamedTuple):
    """Where the weights of a network come from.

    Attributes:
        place: folder or name of a model, or the path of a file of weights.
        prefix: of the weights in it; in a file it may be empty.
        without: parts that begin anew.
    """

    place: str
    prefix: str
    without: list[str]
    is_file: bool = False


def start_from(method: Method, start: Mapping[str, Any]) -> None:
    """Initialise networks: `{deeplab: camvid-evss-lite/csrnet}`.

    Args:
        start: name of a network, or of a part of one (`cnn.encoder`) -> where its weights come from, see
            `origin_of`.
    Raises:
        SettingsError: an entry is not of that form, or the method has no such network, or that no such part.
        ModelError: there is no such model or file, or its weights do not fit.
    """
    for name, entry in start.items():
        origin = origin_of(f'start: {name}', entry)
        without = origin.without
        try:
            network = method.get_submodule(name)
        except AttributeError:
            have = ', '.join(child for child, _ in method.named_children())
            raise SettingsError(f'start: the method has no network {name}; it has {have}') from None
        found = _weights(origin)
        state = _kept(found, without)
        whole = network.state_dict()
        wanted = _kept(whole, without)
        if unknown := [part for part in without if not (_has(whole, part) or _has(found, part))]:
            have = ', '.join(dict.fromkeys(key.split('.')[0] for key in whole))
            raise SettingsError(
                f'start: {name} has no part {", ".join(unknown)} to be without; it has {have}'
            )
        optional = getattr(network, 'optional', ())  # stays as it is where the model has none
        other_names = [
            *(
                f'no {key}'
                for key in wanted
                if key not in state and key not in optional and not key.endswith(COUNTER)
            ),
            *(f'{key} is of no use' for key in state if key not in wanted),
        ]
        other_shapes = {
            key: f'{key} is {tuple(state[key].shape)}, not {tuple(value.shape)}'
            for key, value in wanted.items()
            if key in state and state[key].shape != value.shape
        }
        if problems := [*other_names, *other_shapes.values()]:
            more = f' and {len(problems) - 3} more' if len(problems) > 3 else ''
            parts = dict.fromkeys([*without, *(key.rpartition('.')[0] or key for key in other_shapes)])
            advice = _advice(name, origin, method.classes, list(parts), only_shapes=not other_names)
            raise ModelError(
                f'start: {_text(origin)} does not fit {name}: {"; ".join(problems[:3])}{more}. {advice}'
            )
        if not origin.is_file and hasattr(network, 'mix_norms'):
            there, here = (
                options.get('norms', 'batch')
                for options in (load_model(origin.place, graphs=False).options, method.options)
            )
            if there != here:
                log.warning(
                    'start: %s has norms %s, and learnt with %s: it must learn on', _text(origin), here, there
                )
        with torch.no_grad():
            network.load_state_dict({**whole, **state})


def origin_of(where: str, entry: object) -> Origin:
    """What an entry of `start` names.

    Args:
        entry: the folder or name of a model, a slash, and the prefix in its weights; or
            {from: that, without: [parts that begin anew]}; or {file: path of a PyTorch or safetensors file},
            and if wanted with it `prefix` and `without`.
    Raises:
        SettingsError: it is of none of these forms; the message begins with `where`.
    """
    if isinstance(entry, str):
        return Origin(*model_and_prefix(where, entry), [])
    given = dict(entry) if isinstance(entry, Mapping) else {}
    origin, file, prefix = (given.get(name, '') for name in ('from', 'file', 'prefix'))
    without = given.get('without', [])
    if all(isinstance(text, str) for text in (origin, file, prefix)) and isinstance(without, list):
        parts = [str(part) for part in without]
        if origin and parts and set(given) == {'from', 'without'}:
            return Origin(*model_and_prefix(where, origin), parts)
        if file and set(given) <= {'file', 'prefix', 'without'}:
            return Origin(file, prefix, parts, is_file=True)
    raise SettingsError(
        f'{where} is {entry!r}; write MODEL/PREFIX, such as camvid-evss-lite/csrnet, or '
        '{from: MODEL/PREFIX, without: [scores]} to let parts begin anew, or '
        '{file: resnet18.pth, without: [fc]} for a file of weights'
    )


def model_and_prefix(entry: str, origin: object) -> tuple[str, str]:
    """`camvid-evss-lite/csrnet` as the model's folder or name, and a prefix of its weights.

    Raises:
        SettingsError: it is not of that form; the message names the entry of the recipe.
    """
    model_name, _, prefix = str(origin).rpartition('/')
    if not (model_name and prefix):
        raise SettingsError(f'{entry} is {origin!r}; write MODEL/PREFIX, such as camvid-evss-lite/csrnet')
    return model_name, prefix


def _kept(state: Mapping[str, Tensor], without: Sequence[str]) -> dict[str, Tensor]:
    """Weights that are in none of the parts."""
    left_out = tuple(f'{part}.' for part in without)
    return {key: value for key, value in state.items() if not f'{key}.'.startswith(left_out)}


def _has(state: Mapping[str, Tensor], part: str) -> bool:
    return len(_kept(state, [part])) < len(state)


def _weights(origin: Origin) -> dict[str, Tensor]:
    """Those whose names begin with the prefix, without it."""
    if not origin.is_file:
        model = load_model(origin.place, graphs=False)
        path, state = model.weights, stored_tensors(model)
    else:
        path = user_path(origin.place)
        state = {name.replace(WRAPPER, ''): tensor for name, tensor in read_tensors(path).items()}
    start = f'{origin.prefix}.' if origin.prefix else ''
    part = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
    if not part:
        have = ', '.join(sorted({key.split('.')[0] for key in state}))
        raise ModelError(f'start: {path} has no weights {start}*; it has {have}')
    return part


def _text(origin: Origin) -> str:
    return origin.place if origin.is_file else f'{origin.place}/{origin.prefix}'


def _advice(name: str, origin: Origin, classes: int, parts: list[str], only_shapes: bool) -> str:
    """What to do where weights do not fit.

    Args:
        parts: those left out, and those of which a weight has another shape.
    """
    if origin.is_file:
        return (
            'Choose options that build the same network, or name what the file has around it, '
            f'{name}: {{file: {origin.place}, prefix: features, without: [classifier]}}'
        )
    model = load_model(origin.place, graphs=False)
    if not only_shapes or len(model.classes) == classes:
        return 'Choose options that build the same network, or start from another model'
    return (
        f'{model.name} has {len(model.classes)} classes, the recipe {classes}: let what depends on them '
        f'begin anew, {name}: {{from: {_text(origin)}, without: [{", ".join(parts)}]}}'
    )
