"""Stage `rectification`: the non-key-frame CNN of TWNet, behind a frozen per-frame CNN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vss_ros.core.errors import SettingsError
from vss_ros.methods import twnet_losses
from vss_ros.methods.twnet import TwNet
from vss_ros.methods.twnet_losses import CONSISTENCY, Handed, Prediction
from vss_ros.training.losses import segmentation_losses, squares
from vss_ros.training.propagation import PropagationSettings, PropagationStage

if TYPE_CHECKING:
    from vss_ros.training.gather import Gathered
    from vss_ros.training.recipe import StageRecipe


@dataclass(frozen=True)
class RectificationSettings(PropagationSettings):
    """Sampling and the weights of the losses, those of TWNet's second step."""

    frames: int = 5  # distances 1 to 4 equally often, from 2 on with features that were corrected before
    judged: int = 2
    consistency: float = CONSISTENCY
    jaccard: float = 0.0  # added to the cross-entropy
    copies: bool = True  # whether to begin with a copy of the per-frame CNN, as it is now

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.consistency < 0:
            raise SettingsError(f'consistency is {self.consistency}; use a weight of 0 or more')


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
        return twnet_losses.start(self.method, image)

    def advance(
        self, state: Handed, image: Tensor, flow: Tensor | None, judged: bool
    ) -> tuple[Handed, Prediction]:
        assert flow is not None
        learns = judged and torch.is_grad_enabled()
        return twnet_losses.advance(self.method, state, image, flow, compared=learns)

    def terms(self, prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
        """At half resolution, to save work."""
        settings: RectificationSettings = self.settings
        targets = squares(labels).long()
        losses = segmentation_losses(prediction.merged, targets, self._balance, settings.jaccard)
        return losses | {'consistency': settings.consistency * twnet_losses.consistency(prediction)}
