"""DeepLabv3+: atrous spatial pyramid pooling behind an encoder, and a decoder at 1/4."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.separable import RELEASED_MOMENTUM, SeparableConv
from vss_ros.methods.blocks.xception import Xception

RATES = (6, 12, 18)  # of the atrous convolutions, in cells of 1/16
DROPPED = 0.1  # of the channels, in training


class DeepLab(nn.Module):
    """RGB in [0, 1], (N, 3, H, W) -> class logits (N, K, H/4, W/4), sides rounded up."""

    def __init__(self, classes: int) -> None:
        super().__init__()

        def norm(width: int, eps: float = 1e-5) -> nn.BatchNorm2d:
            return nn.BatchNorm2d(width, eps, RELEASED_MOMENTUM)

        self.xception_features = Xception()
        low, deep = self.xception_features.widths
        width, projected = 256, 48  # of the pyramid and the decoder; what is left of the features at 1/4
        plain = OrderedDict(conv=nn.Conv2d(deep, width, 1, bias=False), bn=norm(width), relu=nn.ReLU())
        self.aspp0 = atrous(nn.Sequential(plain))
        self.aspp1, self.aspp2, self.aspp3 = (atrous(head(deep, width, dilation=rate)) for rate in RATES)
        self.image_pooling = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(deep, width, 1, bias=False), norm(width), nn.ReLU()
        )
        self.concat_projection = nn.Sequential(
            nn.Conv2d(5 * width, width, 1, bias=False), norm(width), nn.ReLU(), nn.Dropout2d(DROPPED)
        )
        self.feature_projection0_conv = nn.Conv2d(low, projected, 1, bias=False)
        self.feature_projection0_bn = norm(projected, eps=1e-3)
        self.decoder = nn.Sequential(head(width + projected, width), head(width, width))
        self.logits = nn.Conv2d(width, classes, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        features_4, features_16 = self.xception_features(rgb)
        everywhere = self.image_pooling(features_16).expand(-1, -1, *features_16.shape[2:])
        levels = [aspp(features_16) for aspp in (self.aspp0, self.aspp1, self.aspp2, self.aspp3)]
        context = self.concat_projection(torch.cat((everywhere, *levels), 1))
        # Corners are aligned here even where the method is told not to align them elsewhere.
        context = resize(context, features_4.shape[2:], align_corners=True)
        detail = self.feature_projection0_bn(self.feature_projection0_conv(features_4)).relu()
        return self.logits(self.decoder(torch.cat((context, detail), 1)))


def head(inputs: int, outputs: int, dilation: int = 1) -> SeparableConv:
    """A separable convolution with the initial weights of DeepLab's head."""
    block = SeparableConv(inputs, outputs, dilation=dilation)
    nn.init.normal_(block.depthwise.weight, std=0.33)
    nn.init.normal_(block.pointwise.weight, std=0.33)
    return block


def atrous(block: nn.Module) -> nn.Sequential:
    """A branch of the pyramid under the name that published files give it."""
    return nn.Sequential(OrderedDict(atrous_convolution=block))
