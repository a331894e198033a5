"""The losses that train the non-key-frame CNN of TWNet; the per-frame CNN stays frozen.

Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4; the features are those that are carried.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vss_ros.methods.blocks.u_shape import LAST
from vss_ros.methods.twnet import TwNet

CONSISTENCY = 10.0  # lambda of the paper, the best of 0, 1, 10 and 20


class Prediction(NamedTuple):
    """One propagated frame, with gradients to the non-key-frame CNN."""

    merged: Tensor  # scores (N, K, h, w)
    features: Tensor  # corrected, (N, c, h, w)
    own: Tensor | None  # what the per-frame CNN gives there for the same frame, detached; if it was asked for


class Handed(NamedTuple):
    """What a frame is handed by the one before."""

    features: Tensor
    picture: Tensor


@torch.no_grad()
def start(method: TwNet, rgb: Tensor) -> Handed:
    """A key frame, RGB in [0, 1], (N, 3, H, W)."""
    return Handed(own_features(method, rgb), method.shrink(rgb))


def advance(
    method: TwNet, handed: Handed, rgb: Tensor, flow: Tensor, compared: bool
) -> tuple[Handed, Prediction]:
    """Propagate to the next frame.

    Args:
        handed: by the frame before. Gradients end there.
        rgb: the frame in [0, 1], (N, 3, H, W).
        flow: (N, 2, h, w) to the frame before.
        compared: whether the per-frame CNN's features of the frame are wanted, for the consistency loss.
    """
    picture = method.shrink(rgb)
    warped = method.warped(handed.features, flow)
    residual = method.residual(picture, handed.picture, flow) if method.is_attended else None
    features, scores, _ = method.nonkey(rgb, warped, residual)
    own = own_features(method, rgb) if compared else None
    return Handed(features.detach().float(), picture), Prediction(scores.float(), features.float(), own)


@torch.no_grad()
def own_features(method: TwNet, rgb: Tensor) -> Tensor:
    """What the per-frame CNN gives, float32 (N, c, h, w)."""
    return method.cnn.interior(method.cnn.encode(rgb, LAST + 1), method.layer).float()


def consistency(prediction: Prediction) -> Tensor:
    """Mean squared difference of the corrected features and the per-frame CNN's own."""
    assert prediction.own is not None
    return (prediction.features - prediction.own).square().mean()
