"""CoNet, the correction network of EVSS: new scores and edges for a propagated frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vss_ros.methods.blocks.fuse import Fuse
from vss_ros.methods.blocks.image import Normalise
from vss_ros.methods.blocks.pooling import PoolToGrid
from vss_ros.methods.blocks.resize import resize

POOLED_GRIDS = (1, 3, 6)


def conv_norm_leaky(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """3x3 convolution without bias, batch norm, leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1),
    )


def projection(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Psp(nn.Module):
    """Pyramid pooling (PSPNet): (N, 512, h, w) -> (N, 128, h, w). No activations."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(PoolToGrid(grid), *projection(inputs, outputs)) for grid in POOLED_GRIDS
        )
        self.bottleneck = projection(inputs + outputs * len(POOLED_GRIDS), outputs, 3)

    def forward(self, features: Tensor) -> Tensor:
        size = features.shape[2:]
        levels = [resize(stage(features), size) for stage in self.stages]
        return self.bottleneck(torch.cat((*levels, features), 1))


class EdgeLayer(nn.Module):
    """Decoder outputs at 1/4, 1/8 and 1/16 -> logits (N, 2, h, w); channel 1 is edge or thin."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = projection(32, 32)
        self.conv2 = projection(64, 32)
        self.conv3 = projection(128, 32)
        self.conv4 = nn.Conv2d(32, 2, 3, padding=1)
        self.conv5 = nn.Conv2d(6, 2, 1)

    def forward(self, features_4: Tensor, features_8: Tensor, features_16: Tensor) -> Tensor:
        edge_4 = self.conv4(self.conv1(features_4))
        edge_8 = self.conv4(self.conv2(features_8))
        edge_16 = self.conv4(self.conv3(features_16))
        size = edge_4.shape[2:]
        return self.conv5(torch.cat((edge_4, resize(edge_8, size), resize(edge_16, size)), 1))


class CoNet(nn.Module):
    """RGB in [0, 1], (N, 3, H, W), and warped scores (N, K, h, w) -> edge logits, updated scores.

    Edge logits are (N, 2, h, w), updated scores (N, K, h, w); h = H/4, w = W/4. As in the release
    the edge module reads the decoder; the paper draws it on the encoder.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.conv1 = conv_norm_leaky(3, 32, 2)
        self.conv2 = conv_norm_leaky(32, 64, 2)
        self.conv3 = conv_norm_leaky(64, 128, 2)
        self.conv3_1 = conv_norm_leaky(128, 128, 1)
        self.conv4 = conv_norm_leaky(128, 256, 2)
        self.conv4_1 = conv_norm_leaky(256, 256, 1)
        self.conv5 = conv_norm_leaky(256, 512, 2)
        self.conv5_1 = conv_norm_leaky(512, 512, 1)
        self.psp = Psp(512, 128)
        self.deconv4 = Fuse(128, 256, 128, nn.LeakyReLU(0.1))
        self.deconv3 = Fuse(128, 128, 64, nn.LeakyReLU(0.1))
        self.deconv2 = Fuse(64, 64, 32, nn.LeakyReLU(0.1))
        self.predict_cc = nn.Conv2d(32 + classes, classes, 1)
        self.edge_layer = EdgeLayer()

    def forward(self, rgb: Tensor, warped: Tensor) -> tuple[Tensor, Tensor]:
        skip_4 = self.conv2(self.conv1(self.normalise(rgb)))
        skip_8 = self.conv3_1(self.conv3(skip_4))
        skip_16 = self.conv4_1(self.conv4(skip_8))
        pooled = self.psp(self.conv5_1(self.conv5(skip_16)))

        features_16 = self.deconv4(pooled, skip_16)
        features_8 = self.deconv3(features_16, skip_8)
        features_4 = self.deconv2(features_8, skip_4)

        updated = self.predict_cc(torch.cat((features_4, warped), 1))
        return self.edge_layer(features_4, features_8, features_16), updated
