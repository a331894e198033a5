"""The weights of a method on disk: one safetensors file; and the method rebuilt from a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vss_ros.core.described import check_choice
from vss_ros.core.errors import ModelError
from vss_ros.core.model.folder import ModelFolder
from vss_ros.methods import build_method, method_class
from vss_ros.methods.method import Method

WEIGHTS_DTYPES = ('fp32', 'fp16')


def stored_state(method: Method, dtype: str = 'fp32') -> dict[str, Tensor]:
    """The state dict as it is stored.

    Args:
        dtype: `fp16` stores in half precision each tensor that it keeps to 0.1 %; others, such as large
            statistics of a norm, stay as they are.
    Raises:
        SettingsError: `dtype` is not one of WEIGHTS_DTYPES.
    """
    check_choice('weights_dtype', dtype, WEIGHTS_DTYPES)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in method.state_dict().items()}
    if dtype == 'fp32':
        return state
    return {name: tensor.half() if _fits_fp16(tensor) else tensor for name, tensor in state.items()}


def save_weights(state: Mapping[str, Tensor], file: Path) -> None:
    """Writes a state dict; the caller sees to it that nobody reads the file too early."""
    file.write_bytes(save(dict(state)))


def stored_dtype(model: ModelFolder) -> str:
    """How the weights of a model are stored, one of WEIGHTS_DTYPES.

    Raises:
        ModelError: its weights cannot be read.
    """
    halves = any(tensor.dtype == torch.float16 for tensor in stored_tensors(model).values())
    return 'fp16' if halves else 'fp32'


def stored_tensors(model: ModelFolder) -> dict[str, Tensor]:
    """The weights of a model folder by name, as they are stored.

    Raises:
        ModelError: there are none, or they cannot be read.
    """
    data = model.read_weights()
    try:
        return load(data)
    except SafetensorError as error:
        raise ModelError(f'{model.weights} cannot be read: {error}; export the model again') from error


def load_method(
    model: ModelFolder, options: Mapping[str, Any] | None = None, name: str | None = None
) -> Method:
    """Rebuilds the method of a model folder with its weights, in eval mode, on the CPU, in fp32.

    Args:
        options: values that replace those the model was made with. Networks that they make needless
            are left out; a network they need but the model does not have is an error.
        name: of another method that makes do with the networks of the model; of its options it keeps those
            that say how these are built, and the temperature of key frames, which are the same. Those of
            propagated frames were fitted to what corrected them.
    Raises:
        ModelError: the folder has no weights, or they do not fit the method.
        SettingsError: an option has a value that cannot be used.
    """
    state = stored_tensors(model)
    kept = _kept_options(model, name or model.method)
    method = build_method(name or model.method, len(model.classes), {**kept, **(options or {})})
    if options or name is not None:
        networks = {key.split('.')[0] for key in method.state_dict()}
        state = {key: tensor for key, tensor in state.items() if key.split('.')[0] in networks}
        absent = networks - {key.split('.')[0] for key in state}
        if absent:
            raise ModelError(
                f'{name or model.method} with {dict(options or {})} needs {", ".join(sorted(absent))}, for '
                f'which {model.path} has no weights; train it with these options'
            )
    try:
        method.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = ' '.join(str(error).split())[:300]
        raise ModelError(f'{model.weights} does not fit method {name or model.method}: {reason}') from error
    return method.eval()


def _kept_options(model: ModelFolder, name: str) -> dict[str, Any]:
    if name == model.method:
        return dict(model.options)
    before, after = method_class(model.method), method_class(name)
    kept = {key: value for key, value in model.options.items() if key in {*before.shared} & {*after.shared}}
    if before.key_network == after.key_network and 'temperatures' in model.options:
        kept['temperatures'] = model.options['temperatures'][:1]
    return kept


def _fits_fp16(tensor: Tensor) -> bool:
    half = tensor.half().float()
    return tensor.dtype == torch.float32 and torch.allclose(half, tensor, rtol=1e-3, atol=1e-6)
