"""What a flow must be like where nobody knows it: its images judge it (UnFlow, Meister et al. 2018).

The previous image, read where the flow points, must look like the current one wherever the same things are
seen in both, and the flow bends only where the image has an edge.
Shapes: N pairs, h x w cells of the 1/4 map. Flow is in cells, (N, 2, h, w), and points from the current image
to the previous one. Images are RGB in [0, 1], (N, 3, h, w), brought there by `in_cells`: to the size at which
flow is predicted and used. Each loss is one number for each pair, (N,), finite for any finite flow.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vss_ros.core.frame import CELL
from vss_ros.methods.blocks.warp import warp

PATCH = 7  # cells; a cell is compared with all others of a square around it
EDGE_WEIGHT = 10.0  # how fast smoothness lets go as the image changes (ARFlow, Liu et al. 2020)


def in_cells(image: Tensor) -> Tensor:
    """RGB (N, 3, H, W) averaged to cells, (N, 3, h, w)."""
    return functional.avg_pool2d(image, CELL)


def visible(flow: Tensor, flow_back: Tensor) -> Tensor:
    """Which cells of the current image are seen in the previous one too, bool (N, 1, h, w), without gradient.

    Those whose flow ends inside the image and is undone by the flow back from there (UnFlow eq. 1, after
    Sundaram et al. 2010): |u + v|^2 < 0.01 (|u|^2 + |v|^2) + 0.5. Departure: where that leaves less than half
    of a pair, it is the flow that is wrong, and only what leaves the image is not seen. Otherwise a network
    that knows nothing yet may find that everything is hidden, and would never learn.

    Args:
        flow_back: from the previous image to the current one, (N, 2, h, w).
    """
    flow, flow_back = flow.detach(), flow_back.detach()
    height, width = flow.shape[2:]
    columns = torch.arange(width, device=flow.device)
    rows = torch.arange(height, device=flow.device)[:, None]
    x, y = columns + flow[:, 0], rows + flow[:, 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    back = warp(flow_back, flow)
    lengths = flow.square().sum(1) + back.square().sum(1)
    undone = (flow + back).square().sum(1) < 0.01 * lengths + 0.5
    believed = (inside & undone).sum((1, 2), keepdim=True) >= 0.5 * inside.sum((1, 2), keepdim=True)
    return (inside & (undone | ~believed))[:, None]


def photometric_difference(image: Tensor, previous: Tensor, flow: Tensor, seen: Tensor) -> Tensor:
    """How much the previous image, warped along the flow, differs from the current one, (N,) of 0 to 1.

    Both are compared by their soft census, which hardly notices a change of light, and each comparison counts
    d^2 / (0.1 + d^2) (DDFlow, Liu et al. 2019). Departures: what is not seen in both images counts neither by
    itself nor as a neighbour, so that the border of the image needs no rule of its own; and the mean over all
    comparisons is taken as it is, because each of them is bounded.

    Args:
        seen: where to compare, bool (N, 1, h, w), see `visible`. Nowhere: 0, and no gradient.
    """
    difference = (census(image) - census(warp(previous, flow))).square()
    counted = _neighbours(seen.float()) * seen.flatten(2)
    total = (counted * difference / (0.1 + difference)).sum((1, 2))
    return total / counted.sum((1, 2)).clamp(min=1)


def census(image: Tensor) -> Tensor:
    """Whether each neighbour is brighter (towards 1) or darker (towards -1) than a cell: (N, PATCH^2, h * w).

    The census transform of Zabih and Woodfill (1994) made smooth, d / sqrt(0.81 + d^2) of differences in grey
    levels of 0 to 255 (Stein 2004; DDFlow). An offset of the light changes nothing, a gain little.
    """
    red, green, blue = (255 * image.float()).split(1, 1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    difference = _neighbours(grey) - grey.flatten(2)
    return difference / (0.81 + difference.square()).sqrt()


def bending(flow: Tensor, image: Tensor) -> Tensor:
    """How much the flow bends where the image has no edge, in cells, (N,).

    The second differences of the flow along rows and columns, each weighed by exp(-10 |first difference of
    the image|), the steeper one beside the cell (ARFlow). Second order, as UnFlow has it: a flow that grows
    evenly, like that of a road, costs nothing. What is not seen counts too: there neighbours say what it is.
    """
    return _bending_of_rows(flow, image) + _bending_of_rows(flow.transpose(2, 3), image.transpose(2, 3))


def _bending_of_rows(flow: Tensor, image: Tensor) -> Tensor:
    """The half of `bending` within rows; 0 where they have less than three cells."""
    second = flow.diff(n=2, dim=3).abs()
    slope = image.diff(dim=3).abs().mean(1, keepdim=True)
    steeper = torch.maximum(slope[..., 1:], slope[..., :-1])
    weighted = torch.exp(-EDGE_WEIGHT * steeper) * second
    return weighted.sum((1, 2, 3)) / max(second[0].numel(), 1)


def _neighbours(maps: Tensor) -> Tensor:
    """The patch around each cell, zero beyond the border: (N, 1, h, w) -> (N, PATCH^2, h * w)."""
    return functional.unfold(maps, PATCH, padding=PATCH // 2)
