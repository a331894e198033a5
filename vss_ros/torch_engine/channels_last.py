"""The order of axes in memory in which convolutions are fast."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar('Network', bound=nn.Module)


def channels_last(network: Network) -> Network:
    """Lays out the kernels of a network with their channels last, in place, and returns it.

    `network.to(memory_format=torch.channels_last)` would do, if it did not refuse parameters of five axes.
    """
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
