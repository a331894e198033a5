"""Stage `decision`: the decision network of DVSNet, behind frozen segmentation and flow.

It learns how much of a warp agrees with the segmenter, region by region and over the frame, by the mean
squared error (DVSNet). No labels are needed. The flow network of `flow: network` stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vss_ros.core.described import setting
from vss_ros.core.frame import CELL, UNLABELLED
from vss_ros.methods.blocks.decide import labels_of
from vss_ros.methods.dvsnet import REGION, DvsNet
from vss_ros.training.losses import loss_weight
from vss_ros.training.propagation import Carried, Judged, PropagationSettings, PropagationStage, follow


@dataclass(frozen=True)
class DecisionSettings(PropagationSettings):
    """Sampling and the weights of the losses."""

    pseudo_labels: bool = setting(True, 'agreement with the segmenter; with true labels, accuracy proper')
    regions: float = loss_weight(1.0, 'of the error of regions')
    frame: float = loss_weight(4.0, 'of that of frames, which differ less from each other than regions do')


class Prediction(NamedTuple):
    """A warp and what is expected of it."""

    merged: Tensor  # the warped scores, (N, K, h, w)
    regions: Tensor  # expected accuracy, (N, 1, h / REGION, w / REGION)


class DecisionStage(PropagationStage[DvsNet, Carried]):
    """Nothing that is learnt reaches the next frame."""

    name = 'decision'
    settings_class = DecisionSettings
    method_class = DvsNet
    trained = ('decision_network',)

    def start(self, image: Tensor, scores: Tensor) -> Carried:
        return Carried.from_key(torch.cat((scores, self.method.quarter(image)), 1))  # and the appearance

    def advance(
        self, state: Carried, image: Tensor, flow: Tensor, judged: bool
    ) -> tuple[Carried, Prediction | None]:
        flow = flow.detach()
        both, handed = follow(self.method, state, flow)
        if not judged:
            return handed, None
        warped, appearance = both.split((self.method.classes, 3), 1)
        regions = self.method.regions(self.method.quarter(image), warped, appearance, flow)
        return handed, Prediction(warped, regions)

    def terms(self, prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
        right, known = agreement(prediction.merged, labels), middles(labels) != UNLABELLED
        found, share = (
            functional.avg_pool2d(cells.float(), REGION, ceil_mode=True, count_include_pad=False)
            for cells in (right * known, known)
        )
        regions = (prediction.regions - found / share.clamp(min=1e-6)).square()
        whole = prediction.regions.mean((1, 2, 3)) - _mean_of(right, known)
        return {
            'regions': self.settings.regions * (regions * share).sum() / share.sum().clamp(min=1e-6),
            'frame': self.settings.frame * whole.square().mean(),
        }

    @torch.no_grad()
    def validate(self, average: nn.Module) -> dict[str, float]:
        """On clips kept aside: mean error of what is expected, in per cent; its correlation, times 100."""
        pairs: list[tuple[float, float]] = []

        def judge(frame: Judged, truth: Tensor) -> None:
            labels = self.targets(truth, frame.image)
            right = _mean_of(agreement(frame.prediction.merged, labels), middles(labels) != UNLABELLED)
            pairs.append((float(frame.prediction.regions.mean()), float(right.mean())))

        self.run_aside(average, judge)
        if len(pairs) < 2:
            return {}
        expected, found = np.array(pairs).T
        varies = expected.std() > 0 and found.std() > 0
        return {
            'expectation_error': 100 * float(np.abs(expected - found).mean()),
            'expectation_correlation': 100 * float(np.corrcoef(expected, found)[0, 1]) if varies else 0.0,
        }


@torch.no_grad()
def agreement(scores: Tensor, labels: Tensor) -> Tensor:
    """1 where scores (N, K, h, w) have the class of the middle of the cell in labels, uint8 (N, H, W)."""
    return (labels_of(scores) == middles(labels)).float()


def middles(labels: Tensor) -> Tensor:
    """The label in the middle of each cell, uint8 (N, 1, h, w)."""
    middle = CELL // 2
    return labels[:, None, middle::CELL, middle::CELL]


def _mean_of(cells: Tensor, known: Tensor) -> Tensor:
    """The mean over those that are known of each frame, (N, 1, h, w) -> (N,)."""
    return (cells * known).sum((1, 2, 3)) / known.sum((1, 2, 3)).clamp(min=1)
