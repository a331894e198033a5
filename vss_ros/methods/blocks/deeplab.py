"""DeepLabv3+: atrous spatial pyramid pooling behind an encoder, and a decoder at 1/4."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from vss_ros.methods.blocks.lite import MIDDLE_GREY, convolution, residuals
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.separable import RELEASED_MOMENTUM, SeparableConv
from vss_ros.methods.blocks.xception import Xception

RATES = (6, 12, 18)  # of the atrous convolutions, in cells of 1/16
DROPPED = 0.1  # of the channels, in training


class DeepLab(nn.Module):
    """RGB in [0, 1], (N, 3, H, W) -> class logits (N, K, H/4, W/4), sides rounded up.

    Args:
        backbone: rgb -> features at 1/4 and at 1/16, as many as its attribute `widths` says; Xception
            if not given.
        width: of the pyramid and the decoder.
        projected: what is left of the features at 1/4.
        momentum: of the norms behind the backbone.
    """

    def __init__(
        self,
        classes: int,
        backbone: Xception | LightBackbone | None = None,
        width: int = 256,
        projected: int = 48,
        momentum: float = RELEASED_MOMENTUM,
    ) -> None:
        super().__init__()
        backbone = backbone or Xception()
        low, deep = backbone.widths

        def norm(width: int, eps: float = 1e-5) -> nn.BatchNorm2d:
            return nn.BatchNorm2d(width, eps, momentum)

        self.xception_features = backbone  # published files call it so
        plain = OrderedDict(conv=nn.Conv2d(deep, width, 1, bias=False), bn=norm(width), relu=nn.ReLU())
        self.aspp0 = atrous(nn.Sequential(plain))
        self.aspp1, self.aspp2, self.aspp3 = (
            atrous(head(deep, width, dilation=rate, momentum=momentum)) for rate in RATES
        )
        self.image_pooling = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(deep, width, 1, bias=False), norm(width), nn.ReLU()
        )
        self.concat_projection = nn.Sequential(
            nn.Conv2d(5 * width, width, 1, bias=False), norm(width), nn.ReLU(), nn.Dropout2d(DROPPED)
        )
        self.feature_projection0_conv = nn.Conv2d(low, projected, 1, bias=False)
        self.feature_projection0_bn = norm(projected, eps=1e-3)
        self.decoder = nn.Sequential(
            head(width + projected, width, momentum=momentum), head(width, width, momentum=momentum)
        )
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


class LightBackbone(nn.Module):
    """The encoder of evss-lite down to 1/16: RGB in [0, 1] -> features at 1/4 and at 1/16.

    Its names are those of `LiteSegmenter`, so that a training can start from the weights of one.
    """

    widths = (32, 128)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, 32, 3, 2), convolution(32, 32, 3, 2))
        self.encoder_4 = residuals(32, 32, 2, 1)
        self.encoder_8 = residuals(32, 64, 2, 2)
        self.encoder_16 = residuals(64, 128, 2, 2)

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        features_4 = self.encoder_4(self.stem(rgb - MIDDLE_GREY))
        return features_4, self.encoder_16(self.encoder_8(features_4))


def head(inputs: int, outputs: int, dilation: int = 1, momentum: float = 0.1) -> SeparableConv:
    """A separable convolution with the initial weights of DeepLab's head."""
    block = SeparableConv(inputs, outputs, dilation=dilation, momentum=momentum)
    nn.init.normal_(block.depthwise.weight, std=0.33)
    nn.init.normal_(block.pointwise.weight, std=0.33)
    return block


def atrous(block: nn.Module) -> nn.Sequential:
    """A branch of the pyramid under the name that published files give it."""
    return nn.Sequential(OrderedDict(atrous_convolution=block))
