"""A method whose networks compute in half precision, and nothing else does.

The networks cost nearly all the time and bear it. What lies between them, scores, warping, fusing and
deciding, stays in float32, as does the state; so the graphs take and give the same tensors in every
precision, and a strongly typed runtime finds the precision written into the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vss_ros.methods.blocks.mixed_norm import HalfInstanceNorm
from vss_ros.methods.method import Method


def lower_precision(method: Method, dtype: torch.dtype) -> Method:
    """Makes the networks of a method compute in `dtype` between float32 inputs and outputs, in place.

    A network is a module that is an attribute of the method itself. It is called as a whole, or by those of
    its functions that it names as `entries`.

    Returns:
        the same method.
    """
    for network in method.children():
        network.to(dtype)
        for norm in network.modules():
            if isinstance(norm, HalfInstanceNorm):
                norm.float()  # as which it takes its weights anyway, and would cast them in every frame
        network.register_forward_pre_hook(lambda _, tensors: _cast(tensors, dtype))
        network.register_forward_hook(lambda _, tensors, output: _cast(output, torch.float32))
        for name in getattr(network, 'entries', ()):
            setattr(network, name, _between(getattr(network, name), dtype))
    return method


def _between(call: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
    """A function of a network, which takes and gives float32 from now on."""

    def cast(*tensors: Any) -> Any:
        return _cast(call(*(_cast(tensor, dtype) for tensor in tensors)), torch.float32)

    return cast


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floats, alone or in tuples and lists, as `dtype`."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        entries = [_cast(entry, dtype) for entry in value]
        return type(value)(*entries) if hasattr(value, '_fields') else tuple(entries)  # a named tuple, or not
    return value
