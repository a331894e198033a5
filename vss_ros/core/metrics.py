"""How good a segmentation is.

Every measure counts over any number of frames in one array, `counts`, of a fixed size: memory does not grow
with a clip, two halves add up, and what was counted so far can be stored and taken up again. Masks and
truths are class ids, uint8 (H, W). Only pixels whose truth is one of the K classes count: 255 is ignored, and
so is any other id, which `TruthIds` tells.
"""

from __future__ import annotations

import logging

import cv2
import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import ShapeError
from vss_ros.core.frame import UNLABELLED

BOUNDARY_TOLERANCE = 0.0075  # of the image's diagonal: 4.5 pixels at 480x360
RELIABILITY_BINS = 15
LEVELS = 256  # of confidence and distortion, which come as bytes, as ids do
MOST_TOLD = 8  # ids in a warning
_log = logging.getLogger(__name__)


class TruthIds:
    """Whether the truth holds the ids of a class set.

    Some data have ids of their own for void, and those of another class set look the same.

    Attributes:
        counts: int64 (256,); pixels by id.
    """

    def __init__(self, classes: ClassSet) -> None:
        self.classes = classes
        self.counts = np.zeros(LEVELS, np.int64)

    def update(self, truth: np.ndarray) -> None:
        """Adds one frame."""
        self.counts += np.bincount(truth.ravel(), minlength=LEVELS)

    def tell_strange(self, name: str) -> None:
        """Warns of ids that are no class, with their share. To be called at the end, once.

        Args:
            name: of the data, or of what is written about them.
        """
        labelled = self.counts[:UNLABELLED]
        strange = labelled[len(self.classes) :]
        ids = [str(len(self.classes) + i) for i in np.flatnonzero(strange)]
        if ids:
            _log.warning(
                '%s: %.3g %% of the labelled pixels have ids that are no class of %s: %s; they are not '
                'scored; unless they mean void, give labels with the ids 0 to %d of its classes',
                name,
                100 * strange.sum() / labelled.sum(),
                self.classes.name,
                ', '.join(ids[:MOST_TOLD] + ['...'] * (len(ids) > MOST_TOLD)),
                len(self.classes) - 1,
            )


class ConfusionMatrix:
    """Counts of pixels by true and by predicted class.

    IoU of class c = M_cc / (row_c + column_c - M_cc): rows are the truth, columns the prediction. mIoU is
    the mean over the classes, those left out that are in neither. A prediction that is no class, such as
    255 for unlabelled, counts as wrong.

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
        check_one_size(mask=mask, truth=truth)
        columns = self.classes + 1
        known = truth < self.classes
        # As intp before they are multiplied: numpy 1 keeps uint8 times a scalar in eight bits.
        predicted = np.minimum(mask[known], self.classes).astype(np.intp)
        cells = np.bincount(
            truth[known].astype(np.intp) * columns + predicted, minlength=self.classes * columns
        )
        self.counts += cells.reshape(self.classes, columns)

    def iou(self) -> np.ndarray:
        """IoU of each class, 0..1, float64 (K,); NaN for a class in neither truth nor prediction."""
        hits = self.counts.diagonal()
        union = self.counts.sum(axis=1) + self.counts[:, : self.classes].sum(axis=0) - hits
        return np.divide(hits, union, out=np.full(self.classes, np.nan), where=union > 0)

    def miou(self) -> float:
        """Mean IoU, 0..1; NaN before anything was counted."""
        return mean_of_known(self.iou())


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


class TemporalConsistency:
    """TC (EVSS eq. 8): how well a clip's masks agree with the warped masks of the frame before.

    The mask of frame t - 1 is warped to t by nearest sampling along a backward flow at full resolution;
    pixels whose source lies outside the image are left out, occluded ones are not. TC = mean over the clips
    of the mIoU of all pairs (warp(mask_(t-1)), mask_t), t = 2..T, in one confusion matrix. No truth is
    needed. Values depend on the flow that warps, and cannot be compared with those of the paper, which does
    not say its own.

    Attributes:
        counts: float64 (2,); sum of the mIoUs of the clips, clips.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros(2)
        self._classes = classes
        self.start_clip()

    def start_clip(self) -> None:
        """Takes what comes for another clip."""
        self._matrix = ConfusionMatrix(self._classes)
        self._previous: np.ndarray | None = None

    def update(self, mask: np.ndarray, flow: np.ndarray | None) -> None:
        """Adds the next frame of a clip.

        Args:
            flow: float32 (H, W, 2), pixels x then y, from this frame to the one before; None on the first.
        """
        if self._previous is not None and flow is not None and self._previous.shape == mask.shape:
            self._matrix.update(warp_mask(self._previous, flow), mask)
        self._previous = mask

    def end_clip(self) -> None:
        """Counts the clip, if it had two frames."""
        if self._matrix.counts.any():
            self.counts += (self._matrix.miou(), 1)
        self.start_clip()

    def mean(self) -> float:
        """TC, 0..1; NaN before a clip was counted."""
        total, clips = self.counts
        return float(total / clips) if clips else float('nan')


def warp_mask(mask: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Moves a mask along a backward flow: result(p) = mask(p + flow(p)), nearest pixel; 255 from outside.

    Args:
        mask: class ids, uint8 (H, W).
        flow: float32 (H, W, 2), pixels, x then y; where it is no number it comes from outside.

    Raises:
        ShapeError: they differ in size.
    """
    check_one_size(mask=mask, flow=flow)
    height, width = mask.shape
    flow = np.where(np.isfinite(flow).all(axis=2, keepdims=True), flow, -np.float32(height + width))
    x = np.rint(flow[..., 0] + np.arange(width, dtype=np.float32)).astype(np.intp)
    y = np.rint(flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]).astype(np.intp)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return np.where(inside, mask[y.clip(0, height - 1), x.clip(0, width - 1)], np.uint8(UNLABELLED))


def boundaries(mask: np.ndarray) -> np.ndarray:
    """Pixels with one of another class above, below, left or right; bool (H, W). 255 is no class."""
    edges = np.zeros(mask.shape, bool)
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differ = (mask[first] != mask[second]) & (mask[first] != UNLABELLED) & (mask[second] != UNLABELLED)
        edges[first] |= differ
        edges[second] |= differ
    return edges


def mean_of_known(values: np.ndarray) -> float:
    """The mean without the NaNs; NaN if there is nothing else."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float('nan')


def check_one_size(**maps: np.ndarray) -> None:
    """Raises ShapeError unless all maps have one height and width."""
    sizes = {name: value.shape[:2] for name, value in maps.items()}
    if len(set(sizes.values())) > 1:
        (first, size), *others = sizes.items()
        listed = ''.join(f', the {name} {other}' for name, other in others)
        raise ShapeError(f'the {first} is {size}{listed}; they must be of one size')


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
