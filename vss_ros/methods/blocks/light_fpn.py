"""The per-frame CNN of TWNet: a pretrained encoder, pyramid pooling, three lateral connections.

Encoder and lateral connections as in the paper; widths and pyramid, which it leaves open, as in the light
decoder that its authors used elsewhere. All resizing lays outer corners on each other, so that one flow
holds at every scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vss_ros.methods.blocks.image import Normalise
from vss_ros.methods.blocks.lite import conv_norm_relu, resize_like
from vss_ros.methods.blocks.mobilenet import mobilenet_v1, mobilenet_v2
from vss_ros.methods.blocks.pooling import PoolToGrid
from vss_ros.methods.blocks.resnet import resnet18
from vss_ros.methods.blocks.u_shape import LAST, UShape

CONTEXT = 256  # channels that leave the context module
GRIDS = (1, 2, 4, 8)  # sides of its grids


class Encoder(NamedTuple):
    build: Callable[[], nn.Sequential]
    ends: tuple[int, int, int, int]  # layers before the end of each head: the last ones before a stride
    widths: tuple[int, int, int, int]  # channels there


ENCODERS = {
    'mobilenet_v1': Encoder(mobilenet_v1, (4, 6, 12, 14), (128, 256, 512, 1024)),
    'mobilenet_v2': Encoder(mobilenet_v2, (4, 7, 14, 18), (24, 32, 96, 320)),
    'resnet18': Encoder(resnet18, (5, 6, 7, 8), (64, 128, 256, 512)),
}


class LightFpn(UShape):
    """The network for K classes.

    Args:
        encoder: a key of ENCODERS.
    """

    widths = (128, 64, 64)

    def __init__(self, classes: int, encoder: str) -> None:
        super().__init__()
        kind = ENCODERS[encoder]
        self.ends, self.head_widths = (0, *kind.ends), kind.widths
        self.normalise = Normalise()
        self.encoder = kind.build()
        self.pyramid = Pyramid(kind.widths[-1], CONTEXT)
        inputs = (CONTEXT, *self.widths)
        for number, width in enumerate(self.widths, 1):
            encoded = kind.widths[LAST - number]
            self.add_module(f'lateral_{number}', Lateral(encoded, inputs[number - 1], width))
        self.classifier = nn.Conv2d(self.widths[-1], classes, 3, padding=1)

    def head(self, number: int, maps: Tensor) -> Tensor:
        if number == 1:
            maps = self.normalise(maps)
        for layer in list(self.encoder)[self.ends[number - 1] : self.ends[number]]:
            maps = layer(maps)
        return maps

    def take_context(self, maps: Tensor) -> Tensor:
        return self.pyramid(maps)

    def lateral(self, number: int, maps: Tensor) -> Tensor:
        return self.get_submodule(f'lateral_{number}.feature')(maps)

    def connect(self, number: int, coarse: Tensor, lateral: Tensor) -> Tensor:
        return self.get_submodule(f'lateral_{number}.merge')(lateral + resize_like(coarse, lateral))

    def classify(self, features: Tensor) -> Tensor:
        return self.classifier(features)

    def without(self, heads: int, laterals: int) -> None:
        # Deleting a slice would number the layers that are left, and those of ResNet have names.
        for name in list(self.encoder._modules)[self.ends[heads] :]:
            delattr(self.encoder, name)
        del self.pyramid
        for number in range(1, laterals + 1):
            delattr(self, f'lateral_{number}')


class Lateral(nn.ModuleDict):
    """Layers of a lateral connection: encoder -> inputs channels, and inputs -> outputs for the sum."""

    def __init__(self, encoded: int, inputs: int, outputs: int) -> None:
        super().__init__(
            {'feature': conv_norm_relu(encoded, inputs, 1), 'merge': conv_norm_relu(inputs, outputs)}
        )


class Pyramid(nn.Module):
    """(N, inputs, h, w) -> (N, outputs, h, w) with averages over four grids mixed in."""

    def __init__(self, inputs: int, outputs: int, width: int = 512) -> None:
        super().__init__()
        level = width // len(GRIDS)
        self.entry = conv_norm_relu(inputs, width, 1)
        self.levels = nn.ModuleList(
            nn.Sequential(PoolToGrid(grid), conv_norm_relu(width, level, 1)) for grid in GRIDS
        )
        self.join = conv_norm_relu(2 * width, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.entry(maps)
        levels = [resize_like(level(maps), maps) for level in self.levels]
        return self.join(torch.cat((maps, *levels), 1))
