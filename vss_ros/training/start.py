"""Networks that begin with the weights of an existing model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.core.model.folder import load_model
from vss_ros.methods.method import Method
from vss_ros.methods.weights import stored_tensors


def start_from(method: Method, start: Mapping[str, str]) -> None:
    """Initialise networks from models: `{deeplab: camvid-evss-lite/csrnet}`.

    Args:
        start: name of a network, or of a part of one (`twnet.encoder`) -> the folder or name of a model, a
            slash, and the prefix in its weights.
    Raises:
        SettingsError: an entry is not of that form, or the method has no such network.
        ModelError: there is no such model, or its weights do not fit.
    """
    for name, origin in start.items():
        model_name, prefix = model_and_prefix(f'start: {name}', origin)
        try:
            network = method.get_submodule(name)
        except AttributeError:
            have = ', '.join(child for child, _ in method.named_children())
            raise SettingsError(f'start: the method has no network {name}; it has {have}') from None
        state = _part(model_name, prefix)
        wanted = network.state_dict()
        optional = getattr(network, 'optional', ())  # stays as it is where the model has none
        problems = [
            *(f'no {key}' for key in wanted if key not in state and key not in optional),
            *(f'{key} is of no use' for key in state if key not in wanted),
            *(
                f'{key} is {tuple(state[key].shape)}, not {tuple(value.shape)}'
                for key, value in wanted.items()
                if key in state and state[key].shape != value.shape
            ),
        ]
        if problems:
            more = f' and {len(problems) - 3} more' if len(problems) > 3 else ''
            raise ModelError(
                f'start: {origin} does not fit {name}: {"; ".join(problems[:3])}{more}. '
                'Choose options that build the same network, or start from another model'
            )
        with torch.no_grad():
            network.load_state_dict({**wanted, **state})


def model_and_prefix(entry: str, origin: object) -> tuple[str, str]:
    """`camvid-evss-lite/csrnet` as the model's folder or name, and a prefix of its weights.

    Raises:
        SettingsError: it is not of that form; the message names the entry of the recipe.
    """
    model_name, _, prefix = str(origin).rpartition('/')
    if not (model_name and prefix):
        raise SettingsError(f'{entry} is {origin!r}; write MODEL/PREFIX, such as camvid-evss-lite/csrnet')
    return model_name, prefix


def _part(model_name: str, prefix: str) -> dict[str, Tensor]:
    """The weights of a model whose names begin with `prefix.`, without it."""
    model = load_model(model_name, graphs=False)
    state = stored_tensors(model)
    part = {
        key.removeprefix(f'{prefix}.'): value for key, value in state.items() if key.startswith(f'{prefix}.')
    }
    if not part:
        have = ', '.join(sorted({key.split('.')[0] for key in state}))
        raise ModelError(f'start: {model.weights} has no weights {prefix}.*; it has {have}')
    return part
