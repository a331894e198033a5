"""A light stand-in for PSPNet: the trunk of evss-lite's segmenter, stopped at 1/8."""

from __future__ import annotations

from torch import Tensor, nn

from vss_ros.methods.blocks.lite import MIDDLE_GREY, Context, convolution, residuals, resize_like
from vss_ros.methods.blocks.pspnet import DROPPED

DECODER = 64


class LightFeatures(nn.Module):
    """RGB in [0, 1], (N, 3, H, W) -> class logits (N, K, H/8, W/8), by way of its features.

    Its names are those of `LiteSegmenter`, so that a training can start from the weights of one.
    """

    width = 128

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, 32, 3, 2), convolution(32, 32, 3, 2))
        self.encoder_4 = residuals(32, 32, 2, 1)
        self.encoder_8 = residuals(32, 64, 2, 2)
        self.encoder_16 = residuals(64, 128, 2, 2)
        self.encoder_32 = residuals(128, 192, 2, 2)
        self.context = Context(192, DECODER)
        self.skip_16 = convolution(128, DECODER, 1)
        self.skip_8 = convolution(64, DECODER, 1)
        self.decoder_16 = convolution(DECODER, DECODER)
        self.decoder_8 = convolution(DECODER, DECODER)
        self.features_8 = convolution(DECODER, self.width)
        self.dropout = nn.Dropout2d(DROPPED)
        self.classifier = nn.Conv2d(self.width, classes, 1)

    def features(self, rgb: Tensor) -> Tensor:
        """RGB in [0, 1], (N, 3, H, W) -> features (N, 128, H/8, W/8), none of them negative."""
        encoded_8 = self.encoder_8(self.encoder_4(self.stem(rgb - MIDDLE_GREY)))
        encoded_16 = self.encoder_16(encoded_8)
        coarse = self.context(self.encoder_32(encoded_16))
        detail = self.skip_16(encoded_16)
        coarse = self.decoder_16(detail + resize_like(coarse, detail))
        detail = self.skip_8(encoded_8)
        return self.features_8(self.decoder_8(detail + resize_like(coarse, detail)))

    def classify(self, features: Tensor) -> Tensor:
        """Features (N, 128, h, w), refined ones as well -> class logits (N, K, h, w)."""
        return self.classifier(self.dropout(features))

    def forward(self, rgb: Tensor) -> Tensor:
        return self.classify(self.features(rgb))
