"""The segmenter of evss-lite in PSPNet's place: its features at 1/8, and scores from refined ones."""

from __future__ import annotations

import torch
from torch import Tensor

from vss_ros.methods.blocks.lite import LiteSegmenter


class LiteFeatures(LiteSegmenter):
    """The weights are those of `LiteSegmenter`, cut in two where its decoder reaches 1/8.

    The first `width` channels of the features are the decoder's. Behind them lies the encoder's map at 1/4:
    the classifier draws fine outlines from it, and it is neither fused nor refined.
    """

    width = 64
    entries = ('features', 'classify')
    classifier = ('skip_4', 'decoder_4', 'scores')  # the part that is trained behind STF and MAR

    def features(self, rgb: Tensor) -> Tensor:
        """An image as `forward` takes it -> features (N, 192, H/8, W/8), none of them negative."""
        features_4 = self.to_quarter(rgb)
        return torch.cat((self.to_eighth(features_4), stack_squares(features_4)), 1)

    def classify(self, refined: Tensor, features: Tensor) -> Tensor:
        """Refined features (N, 64, H/8, W/8) and those of the same frame -> logits (N, K, H/4, W/4)."""
        return self.from_eighth(refined, unstack_squares(features[:, self.width :]))


def stack_squares(x: Tensor) -> Tensor:
    """Each square of 2 x 2 cells as one cell, (N, C, 2 h, 2 w) -> (N, 4 C, h, w)."""
    count, channels, height, width = x.shape
    squares = x.reshape(count, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 3, 5, 1, 2, 4).reshape(count, 4 * channels, height // 2, width // 2)


def unstack_squares(x: Tensor) -> Tensor:
    """The reverse of `stack_squares`."""
    count, channels, height, width = x.shape
    squares = x.reshape(count, 2, 2, channels // 4, height, width)
    return squares.permute(0, 3, 4, 1, 5, 2).reshape(count, channels // 4, 2 * height, 2 * width)
