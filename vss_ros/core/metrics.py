"""How right a mask is.

What is counted over any number of frames is one array, `counts`, of a fixed size: memory does not grow with a
clip, two halves add up, and what was counted so far can be stored and taken up again. Masks and truths are
class ids, uint8 (H, W). Only pixels whose truth is one of the K classes count: 255 is ignored, and so is any
other id, which `TruthIds` tells. More measures are in `evaluation/measures.py`.
"""

from __future__ import annotations

import logging

import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import ShapeError
from vss_ros.core.frame import UNLABELLED

IDS = 256  # that a byte can hold
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
        self.counts = np.zeros(IDS, np.int64)

    def update(self, truth: np.ndarray) -> None:
        """Adds one frame."""
        self.counts += np.bincount(truth.ravel(), minlength=IDS)

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
