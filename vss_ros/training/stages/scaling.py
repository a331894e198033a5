"""Stage `scaling`: the flow network of DFF with its scale field, behind a frozen key frame network.

Both learn through the segmentation of the frame that was warped, as in DFF; no flow is given. The network
should know flow before, from the stage `flow`: where warping fails the loss says little of which way to go.
DFF trains on a key frame and one frame up to nine later, with one flow between them (`hops: 1`); here a clip
is run as a stream by default, because scores are carried, and scaled, from frame to frame. DFF's key frame
network learns along; here it stays as it is, so that key frames are the same in every method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vss_ros.methods.dff import Dff, ScalingFlowNet
from vss_ros.training.losses import loss_weight, segmentation_losses, softness_of_weights, squares
from vss_ros.training.propagation import Carried, PropagationSettings, PropagationStage, follow


@dataclass(frozen=True)
class ScalingSettings(PropagationSettings):
    """Sampling and the weights of the losses."""

    jaccard: float = loss_weight(0.5, 'of the Jaccard loss')
    weight_softness: float = softness_of_weights(1.05)


class Prediction(NamedTuple):
    """What comes of a frame."""

    merged: Tensor  # warped and scaled scores, (N, K, h, w)


class ScalingStage(PropagationStage[Dff, Carried]):
    """Gradients end at the state a frame is handed, so each frame can be judged by itself."""

    name = 'scaling'
    settings_class = ScalingSettings
    method_class = Dff
    trained = ('flownet',)

    def start(self, image: Tensor, scores: Tensor) -> Carried:
        return Carried.from_key(scores)

    def flow(self, image: Tensor, previous: Tensor) -> Tensor:
        """The flow and, where there is one, the scale field behind it, (N, 2 + K, h, w)."""
        network = self.method.flownet
        if not isinstance(network, ScalingFlowNet):
            return super().flow(image, previous)
        return torch.cat(network.flow_and_scale(image, previous), 1).float()

    def advance(
        self, state: Carried, image: Tensor, flow: Tensor, judged: bool
    ) -> tuple[Carried, Prediction | None]:
        scores, handed = follow(self.method, state, flow[:, :2])
        if flow.shape[1] > 2:  # then it is not composed
            scores = scores * flow[:, 2:]
            handed = handed._replace(maps=scores.detach())
        return handed, Prediction(scores) if judged else None

    def terms(self, prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and Jaccard loss of the scores, at half the size."""
        half = squares(labels).long()
        return segmentation_losses(prediction.merged, half, self._balance, self.settings.jaccard)
