"""CSRNet, the key frame network of EVSS: ResNet-18 and three cascaded passes of up-sampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vss_ros.methods.blocks.fuse import Fuse
from vss_ros.methods.blocks.image import Normalise, magnified
from vss_ros.methods.blocks.mixed_norm import MixedNorm
from vss_ros.methods.blocks.pyramid import PyramidPooling
from vss_ros.methods.blocks.resnet import ResNet18

WIDTH = 128


class CsrBackbone(ResNet18):
    """Normalised RGB (N, 3, H, W) -> features (N, 128, H/4, W/4)."""

    def __init__(self) -> None:
        super().__init__()

        def fuse(skip: int) -> Fuse:
            return Fuse(WIDTH, skip, WIDTH, nn.ReLU())

        self.spp = PyramidPooling(512, WIDTH, nn.ReLU())
        self.upsample = nn.ModuleList([fuse(256), fuse(128), fuse(64)])
        self.spp_up1 = PyramidPooling(WIDTH, WIDTH, nn.ReLU())
        self.upsample_up2 = nn.ModuleList([fuse(WIDTH), fuse(WIDTH)])
        self.spp_up2 = PyramidPooling(WIDTH, WIDTH, nn.ReLU())
        self.upsample_up3 = nn.ModuleList([fuse(WIDTH)])
        # Never used, but part of the published files.
        mean, std = (73.1584, 82.9090, 72.3924), (44.9149, 46.1529, 45.3192)
        self.register_buffer('img_mean', torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer('img_std', torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, rgb: Tensor) -> Tensor:
        skip_4, skip_8, skip_16, features_32 = self.features(rgb)

        first_16 = self.upsample[0](self.spp(features_32), skip_16)
        first_8 = self.upsample[1](first_16, skip_8)
        first_4 = self.upsample[2](first_8, skip_4)

        second_8 = self.upsample_up2[0](self.spp_up1(first_16), first_8)
        second_4 = self.upsample_up2[1](second_8, first_4)

        return self.upsample_up3[0](self.spp_up2(second_8), second_4)


class Logits(nn.Module):
    """Norm, ReLU, then a 1x1 convolution to the classes."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(self.norm(features).relu())


class CsrNet(nn.Module):
    """RGB in [0, 1], (N, 3, H, W) -> class logits (N, K, h, w), at a quarter of the image as it is looked at.

    Args:
        magnify: how much larger than it is that is; 1 as published.
    """

    def __init__(self, classes: int, magnify: float = 1) -> None:
        super().__init__()
        self.magnify = magnify
        self.normalise = Normalise()
        self.backbone = CsrBackbone()
        self.logits = Logits(WIDTH, classes)

    def mix_norms(self) -> None:
        """Let the first norm of each block, but for those at 1/32, be a `MixedNorm`; not so in EVSS."""
        for block in (*self.backbone.layer1, *self.backbone.layer2, *self.backbone.layer3):
            block.bn1 = MixedNorm(block.bn1.num_features)

    def forward(self, rgb: Tensor) -> Tensor:
        return self.logits(self.backbone(self.normalise(magnified(rgb, self.magnify))))
