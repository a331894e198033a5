"""Backward warping along a flow."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vss_ros.core.errors import ShapeError


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """Read features where the flow points: output(p) = features(p + flow(p)).

    Bilinear, at whole cell centres; beyond the border the border cell is read. Computed in float32:
    half precision cannot hold the coordinates.

    Args:
        features: maps of the previous frame, (N, C, h, w) with h, w > 1.
        flow: in cells, (N, 2, h, w); channel 0 to the right, channel 1 down.
    Raises:
        ShapeError: the two differ in height or width, or are a single row or column.
    """
    if features.shape[2:] != flow.shape[2:]:
        raise ShapeError(
            f'features are {tuple(features.shape[2:])} and flow is {tuple(flow.shape[2:])} '
            '(height, width); both must have the same size'
        )
    height, width = flow.shape[2:]
    if min(height, width) < 2:
        raise ShapeError(f'flow is {width}x{height} cells; warping needs at least 2x2')
    columns = torch.arange(width, dtype=torch.float32, device=flow.device)
    rows = torch.arange(height, dtype=torch.float32, device=flow.device)[:, None]
    x = (columns + flow[:, 0].float()) * (2 / (width - 1)) - 1
    y = (rows + flow[:, 1].float()) * (2 / (height - 1)) - 1
    grid = torch.stack((x, y), -1)
    warped = F.grid_sample(features.float(), grid, mode='bilinear', padding_mode='border', align_corners=True)
    return warped.to(features.dtype)
