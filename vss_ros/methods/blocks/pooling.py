"""Average pooling to a grid of any size, exportable where the grid does not divide the map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pool_to_grid(maps: Tensor, rows: int, columns: int) -> Tensor:
    """Average (N, C, h, w) over a grid; bin i of m takes cells floor(i n/m) .. ceil((i+1) n/m).

    In an exported graph it is two products with constant matrices, since no runtime has the
    operation itself.
    """
    if torch.compiler.is_exporting():
        height, width = maps.shape[2:]
        rows_of, columns_of = bin_weights(height, rows), bin_weights(width, columns)
        return rows_of.to(maps) @ maps @ columns_of.T.to(maps)
    return F.adaptive_avg_pool2d(maps, (rows, columns))


def bin_weights(length: int, bins: int) -> Tensor:
    """Weight of every cell of a row of `length` in each of the bins' averages, (bins, length)."""
    rows = []
    for i in range(bins):
        start, end = i * length // bins, -(-(i + 1) * length // bins)
        rows.append([1 / (end - start) if start <= cell < end else 0.0 for cell in range(length)])
    return torch.tensor(rows)  # in one go, so that an exporter sees one constant


class PoolToGrid(nn.Module):
    """`pool_to_grid` with a fixed square grid."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, maps: Tensor) -> Tensor:
        return pool_to_grid(maps, self.grid, self.grid)
