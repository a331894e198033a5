"""Stage `update`: the update branch and the fusion of Accel, behind a frozen key frame network.

Accel trains on key frames at random distances; here a clip is run as a stream, as for the other methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from vss_ros.methods.accel import Accel
from vss_ros.training.losses import loss_weight, segmentation_losses, softness_of_weights, squares
from vss_ros.training.propagation import Carried, PropagationSettings, PropagationStage, follow


@dataclass(frozen=True)
class UpdateSettings(PropagationSettings):
    """Sampling and the weights of the losses."""

    fused: float = loss_weight(1.0, 'of the losses of the fused scores')
    alone: float = loss_weight(0.5, 'of those of the update branch, so that it becomes a segmenter')
    jaccard: float = loss_weight(0.5, 'of the Jaccard loss in both')
    weight_softness: float = softness_of_weights(1.05)


class Prediction(NamedTuple):
    """What both branches make of a frame, scores (N, K, h, w)."""

    updated: Tensor
    merged: Tensor


class UpdateStage(PropagationStage[Accel, Carried]):
    """Gradients end at the state a frame is handed, so each frame can be judged by itself."""

    name = 'update'
    settings_class = UpdateSettings
    method_class = Accel
    trained = ('update_branch', 'fusion', 'flownet')

    def start(self, image: Tensor, scores: Tensor) -> Carried:
        return Carried.from_key(scores)

    def advance(
        self, state: Carried, image: Tensor, flow: Tensor, judged: bool
    ) -> tuple[Carried, Prediction | None]:
        carry = self.method.options['carry']
        warped, handed = follow(self.method, state, flow)
        if not judged and carry != 'merged':
            return handed, None  # nothing of the update reaches the next frame
        updated = self.method.update_branch(image).float()
        merged = self.method.fusion(warped, updated).float()
        if carry == 'merged':
            handed = handed._replace(maps=merged.detach())
        return handed, Prediction(updated, merged)

    def terms(self, prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and Jaccard loss of the fused scores and of the update branch, at half the size."""
        settings: UpdateSettings = self.settings
        half = squares(labels).long()
        parts = (('fused', prediction.merged, settings.fused), ('alone', prediction.updated, settings.alone))
        return {
            f'{part}_{name}': weight * term
            for part, scores, weight in parts
            if weight
            for name, term in segmentation_losses(scores, half, self._balance, settings.jaccard).items()
        }
