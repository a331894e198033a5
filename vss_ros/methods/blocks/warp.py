"""Backward warping along a flow, and following one flow after another."""

from __future__ import annotations

import torch
from torch import Tensor

from vss_ros.core.errors import ShapeError


def known(flow: Tensor) -> Tensor:
    """Flow that moves nothing where it is no number, as a network's may be in half precision.

    An index made of such flow lies outside the map, which on a GPU ends the work of the whole process.
    """
    return torch.where(flow == flow, flow, 0)


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """Read features where the flow points: output(p) = features(p + flow(p)).

    Bilinear, at whole cell centres; beyond the border the border cell is read, and where flow is no number
    nothing has moved. Computed in float32: half precision cannot hold the coordinates.

    Args:
        features: maps of the frame that the flow points to, (N, C, h, w) with h, w > 1.
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
    flow = known(flow.float())
    count, channels = features.shape[:2]
    columns = torch.arange(width, dtype=torch.float32, device=flow.device)
    rows = torch.arange(height, dtype=torch.float32, device=flow.device)[:, None]
    x = _inside(columns + flow[:, 0], width - 1)
    y = _inside(rows + flow[:, 1], height - 1)
    left, top = x.detach().floor().clamp(max=width - 2), y.detach().floor().clamp(max=height - 2)
    share_x, share_y = (x - left).reshape(-1), (y - top).reshape(-1)

    # Whole cells of all channels are gathered: half the time of grid_sample in ONNX Runtime on a CPU.
    image = torch.arange(count, device=flow.device)[:, None, None] * (height * width)
    cell = (image + (top * width + left).to(torch.int64)).reshape(-1)
    cells = features.float().permute(0, 2, 3, 1).reshape(-1, channels)

    def read(which: Tensor) -> Tensor:  # (C, cells): shares that are one per cell multiply fast along rows
        return cells.index_select(0, which).t()

    def row(first: Tensor) -> Tensor:
        here, right = read(first), read(first + 1)
        return here + share_x * (right - here)

    upper, lower = row(cell), row(cell + width)
    warped = upper + share_y * (lower - upper)
    return warped.reshape(channels, count, height, width).transpose(0, 1).to(features.dtype)


def read_nearest(maps: Tensor, flow: Tensor) -> Tensor:
    """The cell that the flow points to: output(p) = maps(p + flow(p)), for maps of ids.

    Beyond the border the border cell is read. Nothing here has a gradient.

    Args:
        maps: of the frame that the flow points to, (N, C, h, w).
        flow: in cells of these maps, (N, 2, n h, n w), for a whole number n; channel 0 to the right, channel
            1 down, and made of numbers, see `known`. With n above 1 what moves by less than a cell moves
            nevertheless.
    Returns:
        (N, C, n h, n w).
    Raises:
        ShapeError: flow is not so many times the size of the maps.
    """
    count, channels, height, width = maps.shape
    rows, columns = flow.shape[2:]
    finer = rows // height
    if not finer or (rows, columns) != (finer * height, finer * width):
        raise ShapeError(
            f'maps are {(height, width)} and flow is {(rows, columns)} (height, width); '
            'both must have the same size, or flow a multiple of it'
        )
    # Where centres come to lie; becoming an integer, each is rounded down to the cell around it.
    x = (torch.arange(columns, device=flow.device) + 0.5) / finer + flow[:, 0].float()
    y = ((torch.arange(rows, device=flow.device) + 0.5) / finer)[:, None] + flow[:, 1].float()
    column, row = x.clamp(0, width - 1).to(torch.int32), y.clamp(0, height - 1).to(torch.int32)
    image = torch.arange(count, dtype=torch.int32, device=flow.device)[:, None, None] * (height * width)
    cells = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    read = cells.index_select(0, (image + row * width + column).reshape(-1))
    return read.reshape(count, rows, columns, channels).permute(0, 3, 1, 2)


def _inside(position: Tensor, last: int) -> Tensor:
    """Clamped to the map. At the last cell both cells that are read are that one: flow has no say there."""
    position = position.clamp(0, last)
    if position.requires_grad:
        position = position.masked_fill(position >= last, last)
    return position


def compose(flow: Tensor, earlier: Tensor) -> Tensor:
    """Follow two flows, one after the other: output(p) = flow(p) + earlier(p + flow(p)).

    Args:
        flow: from the current frame to an earlier one, in cells, (N, 2, h, w).
        earlier: from that frame to one before it, same shape. Beyond the border it is that of the border.
    Raises:
        ShapeError: the two differ in height or width, or are a single row or column.
    """
    return flow + warp(earlier, flow)
