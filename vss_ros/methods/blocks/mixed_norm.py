"""A norm of which one half looks at each image alone, the other at what all images had in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from vss_ros.core.errors import SettingsError

NORMS = ('batch', 'mixed')
Network = TypeVar('Network', bound=nn.Module)


class MixedNorm(nn.Module):
    """Instance norm of the first half of the channels, batch norm of the others (IBN-Net, Pan et al. 2018).

    Light, weather and camera shift and scale maps of a whole image alike. Half of the channels are free of
    that; the other half still tells what the first one cannot, how bright or strong things are. So a network
    knows more of a place it never saw (docs/experiments.md).

    Its weights are named and shaped as those of a batch norm, and statistics are kept for all channels: a
    network can go on with the weights of one that has batch norms, and the other way round.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features, self.momentum, self.eps = num_features, momentum, eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer('running_mean', torch.zeros(num_features))
        self.register_buffer('running_var', torch.ones(num_features))
        self.register_buffer('num_batches_tracked', torch.tensor(0))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, h, w) -> the same shape."""
        if self.training:
            self.num_batches_tracked += 1
        half = self.num_features // 2
        mean, variance, weight, bias = (values[:half].float() for values in self._values())
        # In float32: sums over an image do not fit into half precision.
        alone = functional.instance_norm(
            maps[:, :half].float(),
            mean if self.training else None,  # only to keep it
            variance if self.training else None,
            weight,
            bias,
            momentum=self.momentum,
            eps=self.eps,
        )
        mean, variance, weight, bias = (values[half:] for values in self._values())
        together = functional.batch_norm(
            maps[:, half:], mean, variance, weight, bias, self.training, self.momentum, self.eps
        )
        return torch.cat((alone.to(maps.dtype), together), 1)

    def _values(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.running_mean, self.running_var, self.weight, self.bias


def with_norms(network: Network, norms: str) -> Network:
    """The network with norms of this kind, one of NORMS, in its encoder.

    Raises:
        SettingsError: they are to be mixed, and the network has no function `mix_norms` that does it.
    """
    if norms == 'mixed':
        mix_norms: Callable[[], None] | None = getattr(network, 'mix_norms', None)
        if mix_norms is None:
            raise SettingsError(f'norms is mixed, which {type(network).__name__} has not; use batch')
        mix_norms()
    return network
