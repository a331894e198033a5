"""Correction: new scores where warped ones cannot be trusted."""

from __future__ import annotations

from torch import Tensor

from vss_ros.core.errors import ShapeError


def merge(warped: Tensor, updated: Tensor, distortion: Tensor) -> Tensor:
    """Blend scores by the distortion map: (1 - distortion) * warped + distortion * updated.

    Args:
        warped: scores carried along the flow, (N, K, h, w).
        updated: scores a correction network computed from the current image, (N, K, h, w).
        distortion: 0 trusts the warp, 1 trusts the update, (N, 1, h, w).
    Raises:
        ShapeError: the three differ in height or width.
    """
    if not warped.shape[2:] == updated.shape[2:] == distortion.shape[2:]:
        sizes = [tuple(maps.shape[2:]) for maps in (warped, updated, distortion)]
        raise ShapeError(f'warped, updated and distortion are {sizes}; all must have one size')
    return warped + distortion * (updated - warped)
