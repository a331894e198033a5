"""A norm of which one half looks at each image alone, the other at what all images had in common."""

from __future__ import annotations

import copy
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
    depends less on them (docs/experiments.md).

    Its weights are named and shaped as those of a batch norm, and statistics are kept for all channels: a
    network can go on with the weights of one that has batch norms, and the other way round. Of several
    processes each has the statistics of its part of a batch, also on GPUs.
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
        alone = self._norm(maps[:, :half], slice(half), by_image=True)
        return torch.cat((alone, self._norm(maps[:, half:], slice(half, None), by_image=False)), 1)

    def _norm(self, maps: Tensor, part: slice, by_image: bool) -> Tensor:
        kind, weight, bias = maps.dtype, self.weight[part], self.bias[part]
        mean, variance = self.running_mean[part], self.running_var[part]
        if by_image:  # sums over an image do not fit into half precision
            maps, weight, bias = maps.float(), weight.float(), bias.float()
        if not self.training:
            if by_image:
                return functional.instance_norm(maps, None, None, weight, bias, eps=self.eps).to(kind)
            return functional.batch_norm(maps, mean, variance, weight, bias, eps=self.eps)
        # Copies, for a gradient may still need them when the next frame has moved the statistics on.
        mean, variance = mean.clone(), variance.clone()
        norm = functional.instance_norm if by_image else functional.batch_norm
        normed = norm(maps, mean, variance, weight, bias, True, self.momentum, self.eps)
        self.running_mean[part], self.running_var[part] = mean, variance
        return normed.to(kind)


class HalfInstanceNorm(nn.Module):
    """What is left of a `MixedNorm` once the convolution before it does the batch norm of the other half."""

    def __init__(self, norm: MixedNorm) -> None:
        super().__init__()
        self.alone, self.eps = norm.num_features // 2, norm.eps
        self.weight = nn.Parameter(norm.weight.detach()[: self.alone].clone())
        self.bias = nn.Parameter(norm.bias.detach()[: self.alone].clone())

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, h, w) -> the same shape."""
        first = maps[:, : self.alone].float()
        normed = functional.instance_norm(
            first, None, None, self.weight.float(), self.bias.float(), eps=self.eps
        )
        return torch.cat((normed.to(maps.dtype), maps[:, self.alone :]), 1)


def fuse_half(convolution: nn.Conv2d, norm: MixedNorm) -> tuple[nn.Conv2d, HalfInstanceNorm]:
    """A convolution that also does the batch norm of its last channels, and the norm of the first ones."""
    half = norm.num_features // 2
    scale, shift = torch.ones_like(norm.weight), torch.zeros_like(norm.bias)
    fused = copy.deepcopy(convolution)
    with torch.no_grad():
        scale[half:] = norm.weight[half:] * (norm.running_var[half:] + norm.eps).rsqrt()
        shift[half:] = norm.bias[half:] - norm.running_mean[half:] * scale[half:]
        fused.weight *= scale[:, None, None, None]
        bias = 0 if convolution.bias is None else convolution.bias * scale
        fused.bias = nn.Parameter(shift + bias)
    return fused, HalfInstanceNorm(norm)


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
