"""Joins a coarse map with a finer one by selective kernels (SKNet)."""

from __future__ import annotations

from torch import Tensor, nn

from vss_ros.methods.blocks.cba import Cba
from vss_ros.methods.blocks.resize import resize


class Mean(nn.Module):
    """(N, C, h, w) -> (N, C, 1, 1): `nn.AdaptiveAvgPool2d(1)`, of which an exported graph has more nodes."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3), keepdim=True)


class Select(nn.Module):
    """Mixes two maps of one size, channel by channel, by weights seen in their global average."""

    def __init__(self, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.avg_pool = Mean()
        self.fc = Cba(width, width, 1, activation)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.conv_out = Cba(width, width, 1, activation)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        seen = self.fc(self.avg_pool(coarse + skip)).flatten(1)
        # A softmax over the pair is a sigmoid of the difference.
        weight = (self.fc1(seen) - self.fc2(seen)).sigmoid()[:, :, None, None]
        return self.conv_out(skip + weight * (coarse - skip))


class Fuse(nn.Module):
    """(N, width, h, w) and a skip (N, skip, H, W) -> (N, outputs, H, W), H = 2h or 2h - 1, W alike."""

    def __init__(self, width: int, skip: int, outputs: int, activation: nn.Module) -> None:
        super().__init__()
        self.bottleneck = Cba(skip, width, 1, activation)
        self.sk = Select(width, activation)
        self.blend_conv = Cba(width, outputs, 3, activation)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        skip = self.bottleneck(skip)
        return self.blend_conv(self.sk(resize(coarse, skip.shape[2:]), skip))
