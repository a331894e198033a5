"""How good a segmentation is."""

from __future__ import annotations

import numpy as np

from vss_ros.core.errors import ShapeError


class ConfusionMatrix:
    """Counts of pixels by true and by predicted class, over any number of frames.

    IoU of class c = M_cc / (row_c + column_c - M_cc): rows are the truth, columns the prediction. mIoU is
    the mean over the classes, those left out that are in neither. Only pixels whose truth is below the
    number of classes count (255 is ignored); a prediction that is no class, such as 255 for unlabelled,
    counts as wrong.

    Attributes:
        counts: int64 (K, K + 1); the last column counts predictions that are no class.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = np.zeros((classes, classes + 1), np.int64)

    def update(self, truth: np.ndarray, mask: np.ndarray) -> None:
        """Adds one frame; both are class ids, uint8 (H, W).

        Raises:
            ShapeError: they differ in size.
        """
        if truth.shape != mask.shape:
            raise ShapeError(f'the mask is {mask.shape}, the truth {truth.shape}; they must be of one size')
        columns = self.classes + 1
        known = truth < self.classes
        predicted = np.minimum(mask[known], self.classes).astype(np.intp)
        cells = np.bincount(truth[known] * np.intp(columns) + predicted, minlength=self.classes * columns)
        self.counts += cells.reshape(self.classes, columns)

    def iou(self) -> np.ndarray:
        """IoU of each class, 0..1, float64 (K,); NaN for a class in neither truth nor prediction."""
        hits = self.counts.diagonal()
        union = self.counts.sum(axis=1) + self.counts[:, : self.classes].sum(axis=0) - hits
        return np.divide(hits, union, out=np.full(self.classes, np.nan), where=union > 0)

    def miou(self) -> float:
        """Mean IoU, 0..1; NaN before anything was counted."""
        iou = self.iou()
        present = ~np.isnan(iou)
        return float(iou[present].mean()) if present.any() else float('nan')
