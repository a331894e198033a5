"""Bilinear resize, the only one in use: no antialiasing."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def resize(maps: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Resize (N, C, h, w) to `size` = (H, W). To a quarter it is the mean of each inner 2x2.

    Args:
        align_corners: lay the centres of the corner cells on each other, as DAVSS does, instead of their
            outer corners; to a quarter it is then no such mean.
    """
    if maps.shape[2:] == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode='bilinear', align_corners=align_corners)
