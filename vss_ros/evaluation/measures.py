"""Measures beside mIoU: of the confidence, of outlines, and of what a correction does.

All count as those of `core/metrics.py` do, and leave the same pixels out.
"""

from __future__ import annotations

import cv2
import numpy as np

from vss_ros.core.frame import UNLABELLED
from vss_ros.core.metrics import check_one_size, mean_of_known

BOUNDARY_TOLERANCE = 0.0075  # of the image's diagonal: 4.5 pixels at 480x360
RELIABILITY_BINS = 15
LEVELS = 256  # of confidence and distortion, which come as bytes


class Calibration:
    """Whether a confidence of 80 % is right 80 % of the time.

    Pixels are sorted into bins of equal width by confidence; a confidence on the border of two bins is in
    the lower one. Expected calibration error, ECE = sum over bins b of n_b / n * |accuracy_b - confidence_b|,
    where n_b is the number of pixels of the bin and both values are means over them.

    Attributes:
        counts: int64 (256, 2); for each confidence byte the pixels, and those that were right.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = np.zeros((LEVELS, 2), np.int64)

    def update(self, truth: np.ndarray, mask: np.ndarray, confidence: np.ndarray) -> None:
        """Adds one frame; confidence is 255 times the probability, uint8 (H, W)."""
        check_one_size(mask=mask, truth=truth, confidence=confidence)
        known = truth < self.classes
        self.counts += _by_level(confidence[known], (truth == mask)[known])

    def curve(self, bins: int = RELIABILITY_BINS) -> np.ndarray:
        """The reliability curve, float64 (bins, 3): mean confidence, accuracy, share of all pixels.

        The first two are NaN in a bin without pixels, the third in every bin if nothing was counted.
        """
        levels = np.arange(LEVELS) / (LEVELS - 1)
        bin_of_level = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], levels)
        pixels, right = self.counts.astype(np.float64).T
        sums = [np.bincount(bin_of_level, values, bins) for values in (pixels * levels, right, pixels)]
        with np.errstate(invalid='ignore'):
            return np.stack([sums[0] / sums[2], sums[1] / sums[2], sums[2] / sums[2].sum()], axis=1)

    def ece(self, bins: int = RELIABILITY_BINS) -> float:
        """Expected calibration error, 0..1; NaN before anything was counted."""
        confidence, accuracy, share = self.curve(bins).T
        if not self.counts.any():
            return float('nan')
        return float(np.nansum(share * np.abs(accuracy - confidence)))


class BoundaryScore:
    """How well the outlines of a class are met, whatever its area.

    A boundary pixel of class c is one of c with a pixel of another class above, below, left or right of it.
    P_c is the share of predicted boundary pixels with a true one of c within the tolerance (Euclidean
    distance), R_c the share of true ones with a predicted one; F_c = 2 P_c R_c / (P_c + R_c), all counted
    over the whole set. A side towards pixels without truth is no boundary.

    Args:
        tolerance: share of the image's diagonal.

    Attributes:
        counts: int64 (K, 4); predicted boundary pixels, those met, true ones, those met.
    """

    def __init__(self, classes: int, tolerance: float = BOUNDARY_TOLERANCE) -> None:
        self.classes = classes
        self.tolerance = tolerance
        self.counts = np.zeros((classes, 4), np.int64)

    def update(self, truth: np.ndarray, mask: np.ndarray) -> None:
        """Adds one frame."""
        check_one_size(mask=mask, truth=truth)
        reach = self.tolerance * float(np.hypot(*truth.shape))
        truth = np.where(truth < self.classes, truth, np.uint8(UNLABELLED))
        mask = np.where(truth == UNLABELLED, np.uint8(UNLABELLED), np.minimum(mask, self.classes))
        predicted, true = boundaries(mask), boundaries(truth)
        for c in np.union1d(mask[predicted], truth[true]):
            if c >= self.classes:
                continue
            ours, theirs = predicted & (mask == c), true & (truth == c)
            self.counts[c, :2] += ours.sum(), _near(ours, theirs, reach)
            self.counts[c, 2:] += theirs.sum(), _near(theirs, ours, reach)

    def f_scores(self) -> np.ndarray:
        """F of each class, 0..1, float64 (K,); NaN for a class without any boundary."""
        ours, ours_met, theirs, theirs_met = self.counts.astype(np.float64).T
        precision = np.divide(ours_met, ours, out=np.zeros(self.classes), where=ours > 0)
        recall = np.divide(theirs_met, theirs, out=np.zeros(self.classes), where=theirs > 0)
        total = precision + recall
        f_scores = np.divide(2 * precision * recall, total, out=np.zeros(self.classes), where=total > 0)
        return np.where(ours + theirs > 0, f_scores, np.nan)

    def mean(self) -> float:
        """Mean of F over the classes, 0..1; NaN before anything was counted."""
        return mean_of_known(self.f_scores())


class Corrections:
    """What the correction did to the warped labels, right and wrong (after DAVSS fig. 3).

    Of all labelled pixels p, mended is the share with warped(p) != truth(p) = mask(p), spoilt that with
    warped(p) = truth(p) != mask(p).

    Attributes:
        counts: int64 (2, 2); pixels by whether the warp was right (row 1) and the result is (column 1):
            [1, 0] were spoilt, [0, 1] were mended.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = np.zeros((2, 2), np.int64)

    def update(self, truth: np.ndarray, warped: np.ndarray, mask: np.ndarray) -> None:
        """Adds one frame; `warped` is the mask decided from the warped scores alone."""
        check_one_size(truth=truth, warped=warped, mask=mask)
        known = truth < self.classes
        cells = 2 * (warped == truth)[known].astype(np.uint8) + (mask == truth)[known]
        self.counts += np.bincount(cells, minlength=4).reshape(2, 2)

    def mended(self) -> float:
        """Share of the pixels that the correction made right, 0..1; NaN before anything was counted."""
        return self._share(0, 1)

    def spoilt(self) -> float:
        """Share of the pixels that the correction made wrong, 0..1; NaN before anything was counted."""
        return self._share(1, 0)

    def _share(self, before: int, after: int) -> float:
        total = self.counts.sum()
        return float(self.counts[before, after] / total) if total else float('nan')


class CorrectedLabels:
    """CL (EVSS eq. 9): share of the cells of the 1/4 map whose label the correction changed.

    CL = mean over the propagated frames of |{x: updated(x) != warped(x)}| / |{x}|, labels being the classes
    of the largest scores of a cell. The model itself gives the share of a frame.

    Attributes:
        counts: float64 (2,); sum of the shares, frames.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2)

    def update(self, share: float) -> None:
        self.counts += (share, 1)

    def mean(self) -> float:
        """CL, 0..1; NaN before anything was counted."""
        total, frames = self.counts
        return float(total / frames) if frames else float('nan')


class ErrorRanking:
    """How well the fine distortion map finds the pixels where the warp is wrong.

    Pixels are ranked by distortion. Average precision AP = sum over levels n of (R_n - R_(n-1)) * P_n, where
    P_n is the share of wrong pixels among those of level n and above, and R_n the share of all wrong
    pixels that lie there. A map without any knowledge scores the share of wrong pixels, `base`.

    Attributes:
        counts: int64 (256, 2); for each distortion byte the pixels, and those where the warp is wrong.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.counts = np.zeros((LEVELS, 2), np.int64)

    def update(self, truth: np.ndarray, warped: np.ndarray, distortion: np.ndarray) -> None:
        """Adds one frame; distortion is 255 times the map, uint8 (H, W)."""
        check_one_size(truth=truth, warped=warped, distortion=distortion)
        known = truth < self.classes
        self.counts += _by_level(distortion[known], (truth != warped)[known])

    def average_precision(self) -> float:
        """AP, 0..1; NaN if the warp was never wrong."""
        pixels, wrong = self.counts[::-1].cumsum(axis=0).astype(np.float64).T
        if not wrong[-1]:
            return float('nan')
        precision = np.divide(wrong, pixels, out=np.zeros(LEVELS), where=pixels > 0)
        return float(np.sum(np.diff(wrong / wrong[-1], prepend=0) * precision))

    def base(self) -> float:
        """Share of the pixels where the warp is wrong, 0..1; NaN before anything was counted."""
        pixels, wrong = self.counts.sum(axis=0)
        return float(wrong / pixels) if pixels else float('nan')


def boundaries(mask: np.ndarray) -> np.ndarray:
    """Pixels with one of another class above, below, left or right; bool (H, W). 255 is no class."""
    edges = np.zeros(mask.shape, bool)
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differ = (mask[first] != mask[second]) & (mask[first] != UNLABELLED) & (mask[second] != UNLABELLED)
        edges[first] |= differ
        edges[second] |= differ
    return edges


def _by_level(levels: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """For each byte, how many there are and how many of them are marked; int64 (256, 2)."""
    pixels = np.bincount(levels, minlength=LEVELS)
    return np.stack([pixels, np.bincount(levels[marked], minlength=LEVELS)], axis=1)


def _near(pixels: np.ndarray, others: np.ndarray, reach: float) -> int:
    """How many of `pixels` have one of `others` within reach."""
    if not (pixels.any() and others.any()):
        return 0
    distance = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return int((distance[pixels] <= reach).sum())
