"""Fits how far the correction of EVSS is let through, by frames since the key frame (`edge_offsets`).

A model is run over clips, and each frame that it corrects is decided with every offset in question. The truth
are labels, or, where a frame has none, the model's own mask of the frame computed in full. For each age the
offset with the best mIoU is taken: of the mean of both, where there are frames of both kinds, so that it does
not matter how many of each there are. What that is worth is measured on clips that were not fitted to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vss_ros.calibration.enough import LEAST_CORRECTED, check_enough
from vss_ros.calibration.folds import left_out
from vss_ros.calibration.watched import answers_on, told_of_calls
from vss_ros.core.errors import ModelError
from vss_ros.core.frame import Frame
from vss_ros.core.metrics import ConfusionMatrix
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.resize import fit, fit_labels
from vss_ros.exporting.weights import load_method
from vss_ros.methods.evss import Evss

OFFSETS = tuple(float(each) for each in np.arange(-5, 2.1, 0.5))


class Samples(NamedTuple):
    """Corrected frames, and how each turns out with every offset.

    Attributes:
        counts: confusion matrices, (n, OFFSETS, K, K + 1), see `ConfusionMatrix`.
        shown: that of the offset the model has now, (n, K, K + 1).
        labelled: whether the truth was labels, bool (n,).
        age: frames since the key frame, (n,).
        clip: number of the clip that each came from, (n,).
    """

    counts: np.ndarray
    shown: np.ndarray
    labelled: np.ndarray
    age: np.ndarray
    clip: np.ndarray

    def of(self, wanted: np.ndarray) -> Samples:
        """Some of the samples."""
        return Samples(*(column[wanted] for column in self))


def collect(model: ModelFolder, clips: Iterable[tuple[int, Iterable[Frame]]], span: int) -> Samples:
    """Runs the model over clips, in PyTorch, as it is deployed; counts the frames that it corrects.

    Args:
        clips: a number and the frames of each. What has the same number is fitted to, or left out, together.
        span: the most frames from a key frame to the next, see `answers_on`.
    Raises:
        SourceError: too few frames are corrected.
        ModelError: the model has no weights, or no correction with such offsets.
    """
    method = load_method(model)
    if not isinstance(method, Evss):
        raise ModelError(
            f'{model.name} is {model.method}; edge_offsets are an option of evss and evss-lite, so there is '
            'nothing to fit'
        )
    masks: list[np.ndarray] = []
    counts, shown, labelled, ages, origin = [], [], [], [], []
    with told_of_calls(method, 'rectify', _decider(method, masks)):
        for number, (frame, found) in answers_on(clips, model, method, span):
            if masks:  # it was corrected
                truth = _own_mask(method, frame, model) if frame.truth is None else frame.truth
                counts.append(np.stack([_confusion(truth, mask, model) for mask in masks]))
                shown.append(_confusion(truth, found.mask, model))
                labelled.append(frame.truth is not None)
                ages.append(found.age_frames)
                origin.append(number)
            masks.clear()
    check_enough(len(ages), LEAST_CORRECTED, 'corrected')
    return Samples(np.stack(counts), np.stack(shown), np.array(labelled), np.array(ages), np.array(origin))


def _decider(method: Evss, masks: list[np.ndarray]) -> Callable[..., None]:
    """What decides a frame with each of OFFSETS, given what `Evss.rectify` takes, and adds the masks."""
    rectify = method.rectify

    def decide(
        warped: Tensor,
        updated: Tensor,
        edge: Tensor,
        reference: Tensor,
        size: Sequence[int],
        edge_offset: Tensor | None = None,
    ) -> None:
        for offset in OFFSETS:
            merged, _ = rectify(warped, updated, edge, reference, size, torch.tensor(offset))
            masks.append(method.decided(merged, size)['mask'][0].numpy())

    return decide


@torch.no_grad()
def _own_mask(method: Evss, frame: Frame, model: ModelFolder) -> np.ndarray:
    """The frame computed in full, at the resolution of the decision."""
    image = torch.from_numpy(fit(frame.image, model.image_size))[None]
    return method.segmenter(image)['mask'][0].numpy()


def _confusion(truth: np.ndarray, mask: np.ndarray, model: ModelFolder) -> np.ndarray:
    confusion = ConfusionMatrix(len(model.classes))
    confusion.update(truth, fit_labels(mask, truth.shape))
    return confusion.counts


def fit_offsets(samples: Samples) -> list[float]:
    """The offset of each age from 1 to the highest.

    Each is judged together with the ages beside it, for single ages are few frames. Ages that were never
    corrected lie between those that were.
    """
    ages = np.unique(samples.age)
    chosen = []
    for place in range(len(ages)):
        near = samples.of(np.isin(samples.age, ages[max(place - 1, 0) : place + 2]))
        scores = [miou(near.counts[:, each], near.labelled) for each in range(len(OFFSETS))]
        chosen.append(OFFSETS[int(np.argmax(scores))])
    return [round(float(each), 2) for each in np.interp(np.arange(1, ages[-1] + 1), ages, chosen)]


def cross_validate(samples: Samples) -> np.ndarray:
    """Confusion matrices (n, K, K + 1) with the offsets as fitted to other clips, see `left_out`."""
    found = np.empty_like(samples.shown)
    for others, judged in left_out(samples.clip):
        offsets = fit_offsets(samples.of(others))
        for index in judged:
            wanted = offsets[min(samples.age[index], len(offsets)) - 1]
            nearest = int(np.abs(np.array(OFFSETS) - wanted).argmin())
            found[index] = samples.counts[index, nearest]
    return found


def miou(counts: np.ndarray, labelled: np.ndarray) -> float:
    """Of confusion matrices (n, K, K + 1), 0..1; the mean of that by labels and that by own masks."""
    found = []
    for kind in np.unique(labelled):
        confusion = ConfusionMatrix(counts.shape[1])
        confusion.counts += counts[labelled == kind].sum(0)
        found.append(confusion.miou())
    return float(np.mean(found))
