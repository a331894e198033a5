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
from vss_ros.training.losses import segmentation_losses, squares
from vss_ros.training.propagation import PropagationSettings, PropagationStage, follow


@dataclass(frozen=True)
class ScalingSettings(PropagationSettings):
    """Sampling and the weights of the losses."""

    jaccard: float = 0.5
    weight_softness: float = 1.05


class Prediction(NamedTuple):
    """What comes of a frame."""

    merged: Tensor  # warped and scaled scores, (N, K, h, w)


class Handed(NamedTuple):
    """What a frame is handed by the one before."""

    image: Tensor  # RGB in [0, 1], (N, 3, H, W)
    scores: Tensor  # (N, K, h, w)
    key_flow: Tensor  # to the key frame, (N, 2, h, w); of use where the flow is composed


class ScalingStage(PropagationStage[Dff, Handed]):
    """Gradients end at the state a frame is handed, so each frame can be judged by itself."""

    name = 'scaling'
    settings_class = ScalingSettings
    method_class = Dff
    trained = ('flownet',)

    def start(self, image: Tensor, scores: Tensor) -> Handed:
        return Handed(image, scores, torch.zeros_like(scores[:, :2]))

    def flow(self, image: Tensor, previous: Tensor) -> None:
        """The flow network gives it together with the scale field, in `advance`."""

    def advance(
        self, state: Handed, image: Tensor, flow: Tensor | None, judged: bool
    ) -> tuple[Handed, Prediction | None]:
        flow, scale = self._flow_and_scale(image, state.image)
        scores, kept, key_flow = follow(self.method, state.scores, flow, state.key_flow)
        if scale is not None:  # then the flow is not composed
            scores = scores * scale
            kept = scores.detach()
        return Handed(image, kept, key_flow), Prediction(scores) if judged else None

    def _flow_and_scale(self, image: Tensor, previous: Tensor) -> tuple[Tensor, Tensor | None]:
        network = self.method.flownet
        if not isinstance(network, ScalingFlowNet):
            return network(image, previous).float(), None
        flow, scale = network.flow_and_scale(image, previous)
        return flow.float(), scale.float()

    def terms(self, prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy and Jaccard loss of the scores, at half the size."""
        half = squares(labels).long()
        return segmentation_losses(prediction.merged, half, self._balance, self.settings.jaccard)
