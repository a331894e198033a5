"""All measures of one subject under one condition, such as a distance from the key frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.frame import Segmentation
from vss_ros.core.metrics import ConfusionMatrix, mean_of_known
from vss_ros.evaluation.measures import (
    BoundaryScore,
    Calibration,
    CorrectedLabels,
    Corrections,
    ErrorRanking,
)


class Scores:
    """Counts of every measure. See `core/metrics.py` and `measures.py` for what each is."""

    def __init__(self, classes: ClassSet) -> None:
        self._classes = classes
        self.frames = np.zeros(1, np.int64)
        self.confusion = ConfusionMatrix(len(classes))
        self.calibration = Calibration(len(classes))
        self.boundary = BoundaryScore(len(classes))
        self.corrections = Corrections(len(classes))
        self.corrected_labels = CorrectedLabels()
        self.ranking = ErrorRanking(len(classes))

    def update(self, truth: np.ndarray, segmentation: Segmentation, warped: np.ndarray | None) -> None:
        """Adds one frame.

        Args:
            truth: class ids, uint8 (H, W); the segmentation has its size.
            warped: what the mask would be without correction, uint8 (H, W), where there is a correction.
        """
        mask = segmentation.mask
        self.frames += 1
        self.confusion.update(truth, mask)
        self.calibration.update(truth, mask, segmentation.confidence)
        self.boundary.update(truth, mask)
        if segmentation.corrected_share is not None:
            self.corrected_labels.update(segmentation.corrected_share)
        if warped is not None:
            self.corrections.update(truth, warped, mask)
            if segmentation.read_distortion is not None:
                self.ranking.update(truth, warped, segmentation.distortion())

    def arrays(self) -> dict[str, np.ndarray]:
        """The counts themselves, by name; changing them changes the scores."""
        return {
            'frames': self.frames,
            'confusion': self.confusion.counts,
            'calibration': self.calibration.counts,
            'boundary': self.boundary.counts,
            'corrections': self.corrections.counts,
            'corrected_labels': self.corrected_labels.counts,
            'ranking': self.ranking.counts,
        }

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds counts as `arrays` gives them."""
        for name, counts in self.arrays().items():
            counts += arrays[name]

    def report(self) -> dict[str, Any]:
        """The values as they are written: percentages, None where there is nothing to score."""
        iou = self.confusion.iou()
        groups = self._classes.groups.items()
        return {
            'frames': int(self.frames[0]),
            'miou_percent': percent(self.confusion.miou()),
            'iou_percent': self._by_class(iou),
            'group_miou_percent': {
                name: percent(mean_of_known(iou[list(members)])) for name, members in groups
            },
            'boundary_f_percent': percent(self.boundary.mean()),
            'boundary_f_percent_by_class': self._by_class(self.boundary.f_scores()),
            'ece_percent': percent(self.calibration.ece()),
            'reliability_percent': [[percent(value) for value in row] for row in self.calibration.curve()],
            'corrected_labels_percent': percent(self.corrected_labels.mean()),
            'mended_percent': percent(self.corrections.mended()),
            'spoilt_percent': percent(self.corrections.spoilt()),
            'distortion_ap_percent': percent(self.ranking.average_precision()),
            'warp_errors_percent': percent(self.ranking.base()),
        }

    def _by_class(self, values: np.ndarray) -> dict[str, float | None]:
        return {name: percent(value) for name, value in zip(self._classes.names, values, strict=True)}


def total(classes: ClassSet, parts: Iterable[Scores]) -> Scores:
    """The scores over all frames of several conditions."""
    whole = Scores(classes)
    for part in parts:
        whole.add(part.arrays())
    return whole


def percent(share: float) -> float | None:
    """A share 0..1 as percent with three decimals; None for NaN."""
    return None if math.isnan(share) else round(100 * float(share), 3)
