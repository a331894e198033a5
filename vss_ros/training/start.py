"""Networks that begin with the weights of an existing model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.core.model.folder import ModelFolder, load_model
from vss_ros.methods.method import Method
from vss_ros.methods.weights import stored_tensors


def start_from(method: Method, start: Mapping[str, Any]) -> None:
    """Initialise networks from models: `{deeplab: camvid-evss-lite/csrnet}`.

    Args:
        start: name of a network, or of a part of one (`twnet.encoder`) -> the folder or name of a model, a
            slash, and the prefix in its weights; or {from: that, without: [parts that begin anew]}.
    Raises:
        SettingsError: an entry is not of that form, or the method has no such network, or that no such part.
        ModelError: there is no such model, or its weights do not fit.
    """
    for name, entry in start.items():
        origin, without = origin_and_left_out(f'start: {name}', entry)
        model_name, prefix = model_and_prefix(f'start: {name}', origin)
        try:
            network = method.get_submodule(name)
        except AttributeError:
            have = ', '.join(child for child, _ in method.named_children())
            raise SettingsError(f'start: the method has no network {name}; it has {have}') from None
        model = load_model(model_name, graphs=False)
        state = _kept(_part(model, prefix), without)
        whole = network.state_dict()
        wanted = _kept(whole, without)
        if unknown := [part for part in without if len(_kept(whole, [part])) == len(whole)]:
            have = ', '.join(dict.fromkeys(key.split('.')[0] for key in whole))
            raise SettingsError(
                f'start: {name} has no part {", ".join(unknown)} to be without; it has {have}'
            )
        optional = getattr(network, 'optional', ())  # stays as it is where the model has none
        other_names = [
            *(f'no {key}' for key in wanted if key not in state and key not in optional),
            *(f'{key} is of no use' for key in state if key not in wanted),
        ]
        other_shapes = {
            key: f'{key} is {tuple(state[key].shape)}, not {tuple(value.shape)}'
            for key, value in wanted.items()
            if key in state and state[key].shape != value.shape
        }
        if problems := [*other_names, *other_shapes.values()]:
            more = f' and {len(problems) - 3} more' if len(problems) > 3 else ''
            advice = 'Choose options that build the same network, or start from another model'
            if not other_names and len(model.classes) != method.classes:
                parts = dict.fromkeys([*without, *(key.rpartition('.')[0] or key for key in other_shapes)])
                advice = (
                    f'{model.name} has {len(model.classes)} classes, the recipe {method.classes}: let what '
                    f'depends on them begin anew, {name}: {{from: {origin}, without: [{", ".join(parts)}]}}'
                )
            raise ModelError(
                f'start: {origin} does not fit {name}: {"; ".join(problems[:3])}{more}. {advice}'
            )
        with torch.no_grad():
            network.load_state_dict({**whole, **state})


def origin_and_left_out(where: str, entry: object) -> tuple[str, list[str]]:
    """MODEL/PREFIX, and the parts that do not start from it, of an entry of `start`.

    Raises:
        SettingsError: it is not of one of the two forms; the message begins with `where`.
    """
    if isinstance(entry, str):
        return entry, []
    if isinstance(entry, Mapping) and set(entry) == {'from', 'without'}:
        origin, without = entry['from'], entry['without']
        if isinstance(origin, str) and without and isinstance(without, list):
            return origin, [str(part) for part in without]
    raise SettingsError(
        f'{where} is {entry!r}; write MODEL/PREFIX, such as camvid-evss-lite/csrnet, or '
        '{from: MODEL/PREFIX, without: [scores]} to let parts begin anew'
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


def _part(model: ModelFolder, prefix: str) -> dict[str, Tensor]:
    """The weights of a model whose names begin with `prefix.`, without it."""
    state = stored_tensors(model)
    part = {
        key.removeprefix(f'{prefix}.'): value for key, value in state.items() if key.startswith(f'{prefix}.')
    }
    if not part:
        have = ', '.join(sorted({key.split('.')[0] for key in state}))
        raise ModelError(f'start: {model.weights} has no weights {prefix}.*; it has {have}')
    return part
