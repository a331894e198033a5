"""Spatial pyramid pooling with grids that follow the map's shape (SwiftNet)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vss_ros.methods.blocks.cba import Cba
from vss_ros.methods.blocks.pooling import pool_to_grid
from vss_ros.methods.blocks.resize import resize

GRID_ROWS = (8, 4, 2)


def grid_columns(rows: int, height: int, width: int) -> int:
    """Columns that make a grid's cells about square; halves round to even, as in the release."""
    return max(1, round(rows * width / height))


class PyramidPooling(nn.Module):
    """(N, inputs, h, w) -> (N, width, h, w), with averages over three grids mixed in."""

    def __init__(self, inputs: int, width: int, activation: nn.Module) -> None:
        super().__init__()
        level = width // len(GRID_ROWS)
        levels = {f'spp{i}': (width, level) for i in range(len(GRID_ROWS))}
        fused = width + level * len(GRID_ROWS)
        layers = {'spp_bn': (inputs, width), **levels, 'spp_fuse': (fused, width)}
        self.spp = nn.ModuleDict(
            {name: Cba(*sizes, 1, activation, momentum=0.005) for name, sizes in layers.items()}
        )

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.spp['spp_bn'](maps)
        height, width = maps.shape[2:]
        levels = [maps]
        for i, rows in enumerate(GRID_ROWS):
            pooled = pool_to_grid(maps, rows, grid_columns(rows, height, width))
            levels.append(resize(self.spp[f'spp{i}'](pooled), (height, width)))
        return self.spp['spp_fuse'](torch.cat(levels, 1))
