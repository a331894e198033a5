"""Stage `rectification`: the non-key-frame CNN of TWNet, behind a frozen per-frame CNN.

Shapes: N batch, K classes, H x W image, h x w = H/4 x W/4; the features are those that are carried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vss_ros.core.described import setting
from vss_ros.methods.blocks.u_shape import LAST
from vss_ros.methods.twnet import TwNet
from vss_ros.training.losses import loss_weight, segmentation_losses, squares
from vss_ros.training.propagation import PropagationSettings, PropagationStage

if TYPE_CHECKING:
    from vss_ros.training.gather import Gathered
    from vss_ros.training.recipe import StageRecipe


@dataclass(frozen=True)
class RectificationSettings(PropagationSettings):
    """Sampling and the weights of the losses, those of TWNet's second step."""

    frames: int = setting(
        5,
        'of a clip: distances 1 to 4 equally often, from 2 on with features that were corrected before',
        range=(2, math.inf),
    )
    judged: int = setting(2, 'propagated frames of a clip that a loss is taken on', range=(1, math.inf))
    consistency: float = loss_weight(10.0, 'lambda of the paper, the best of 0, 1, 10 and 20')
    jaccard: float = loss_weight(0.0, 'of a Jaccard loss beside the cross-entropy')
    copies: bool = setting(True, 'begin with a copy of the per-frame CNN, as it is now')


class Prediction(NamedTuple):
    """One propagated frame, with gradients to the non-key-frame CNN."""

    merged: Tensor  # scores (N, K, h, w)
    features: Tensor  # corrected, (N, c, h, w)
    own: Tensor | None  # what the per-frame CNN gives there for the same frame; if a loss will need it


class Handed(NamedTuple):
    """What a frame is handed by the one before, detached."""

    features: Tensor
    picture: Tensor


class RectificationStage(PropagationStage[TwNet, Handed]):
    """Every frame is corrected, judged or not, because the next one starts from what was corrected."""

    name = 'rectification'
    settings_class = RectificationSettings
    method_class = TwNet
    trained = ('nonkey',)

    @classmethod
    def create(cls, method: TwNet, data: Gathered, recipe: StageRecipe) -> PropagationStage:
        stage = super().create(method, data, recipe)
        if recipe.sampling.copies:
            method.nonkey.start_from(method.cnn)
        return stage

    def start(self, image: Tensor, scores: Tensor) -> Handed:
        return Handed(own_features(self.method, image), self.method.shrink(image))

    def advance(self, state: Handed, image: Tensor, flow: Tensor, judged: bool) -> tuple[Handed, Prediction]:
        method = self.method
        picture = method.shrink(image)
        warped = method.warped(state.features, flow)
        residual = method.residual(picture, state.picture, flow) if method.is_attended else None
        features, scores, _ = method.nonkey(image, warped, residual)
        own = own_features(method, image) if judged and torch.is_grad_enabled() else None
        return Handed(features.detach().float(), picture), Prediction(scores.float(), features.float(), own)

    def terms(self, prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
        """At half resolution, to save work."""
        settings: RectificationSettings = self.settings
        targets = squares(labels).long()
        losses = segmentation_losses(prediction.merged, targets, self._balance, settings.jaccard)
        return losses | {'consistency': settings.consistency * consistency(prediction)}


@torch.no_grad()
def own_features(method: TwNet, rgb: Tensor) -> Tensor:
    """What the per-frame CNN gives for frames in [0, 1], (N, 3, H, W): float32 (N, c, h, w)."""
    return method.cnn.interior(method.cnn.encode(rgb, LAST + 1), method.layer).float()


def consistency(prediction: Prediction) -> Tensor:
    """Mean squared difference of the corrected features and the per-frame CNN's own."""
    assert prediction.own is not None
    return (prediction.features - prediction.own).square().mean()
