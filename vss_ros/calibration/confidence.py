"""Fits the temperatures that make a model's confidence mean what it says (Guo et al. 2017).

A model is run over labelled clips, and the scores behind some labelled pixels are kept. For each age (frames
since the key frame) the temperature is sought at which the negative log likelihood of the true class under
softmax(scores / temperature) is least. What that is worth is measured on clips that were not fitted to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from vss_ros.calibration.enough import LEAST_PIXELS, check_labelled
from vss_ros.calibration.folds import left_out
from vss_ros.calibration.watched import answers_on, told_of_calls
from vss_ros.core.frame import Answer, Frame
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.model.steps import DECISIONS
from vss_ros.core.resize import fit_labels
from vss_ros.evaluation.deciding import temperature_at
from vss_ros.evaluation.measures import Calibration
from vss_ros.exporting.weights import load_method
from vss_ros.methods.blocks.resize import resize

PIXELS_PER_FRAME = 1500
COLDEST, HOTTEST = 0.2, 5.0
SEED = 0


class Samples(NamedTuple):
    """Labelled pixels.

    Attributes:
        scores: class logits, float32 (n, K).
        truth: class ids, (n,).
        age: frames since the key frame, (n,); 0 throughout for a model that computes every frame in full.
        clip: number of the clip that each came from, (n,).
    """

    scores: np.ndarray
    truth: np.ndarray
    age: np.ndarray
    clip: np.ndarray

    def of(self, wanted: np.ndarray) -> Samples:
        """Some of the samples."""
        return Samples(*(column[wanted] for column in self))


class Quality(NamedTuple):
    """Negative log likelihood of the truth, in nats, and expected calibration error (`Calibration`)."""

    nll: float
    ece_percent: float


def collect(model: ModelFolder, clips: Iterable[tuple[int, Iterable[Frame]]], span: int) -> Samples:
    """Runs the model over clips, in PyTorch, and keeps the scores of some labelled pixels of each frame.

    Args:
        clips: a number and the frames of each. What has the same number is fitted to, or left out, together.
        span: the most frames from a key frame to the next, see `answers_on`.
    Raises:
        SourceError: too few pixels are labelled.
        ModelError: the model has no weights.
    """
    method = load_method(model, {'temperatures': ()})
    scores: list[Tensor] = []
    part = DECISIONS[method.decision]

    def keep(seen: Tensor, size: Sequence[int], age: Tensor | None = None) -> None:
        small = size[0] // part, size[1] // part
        scores[:] = [resize(seen, small, method.align_corners)]

    rng = np.random.default_rng(SEED)
    kept: list[Samples] = []
    with told_of_calls(method, 'decided', keep):
        for number, answer in answers_on(clips, model, method, span):
            if answer.frame.truth is not None:
                logits = scores[0][0].permute(1, 2, 0).numpy()
                kept.append(_some_pixels(logits, answer, number, rng))
    check_labelled(sum(len(part.truth) for part in kept))
    return Samples(*map(np.concatenate, zip(*kept, strict=True)))


def _some_pixels(scores: np.ndarray, answer: Answer, clip: int, rng: np.random.Generator) -> Samples:
    """Labelled pixels of one frame, drawn at random; scores are (h, w, K)."""
    assert answer.frame.truth is not None
    truth = answer.frame.truth
    rows, columns = np.nonzero(truth < scores.shape[2])
    drawn = rng.permutation(len(rows))[:PIXELS_PER_FRAME]
    rows, columns = rows[drawn], columns[drawn]
    height, width = scores.shape[:2]
    # As `fit_labels` enlarges the mask: each pixel has the scores at its centre.
    cells = fit_labels(np.arange(height * width, dtype=np.int32).reshape(height, width), truth.shape)
    cell = cells[rows, columns]
    age = np.full(len(cell), answer.segmentation.age_frames)
    return Samples(
        scores.reshape(height * width, -1)[cell], truth[rows, columns], age, np.full(len(cell), clip)
    )


def fit(samples: Samples) -> list[float]:
    """The temperature of each age from 0 to the highest; where pixels are few, that of the neighbours."""
    counts = np.bincount(samples.age)
    known = np.flatnonzero(counts >= min(LEAST_PIXELS, counts.max()))
    found = [best_temperature(samples.of(samples.age == age)) for age in known]
    return [round(float(each), 3) for each in np.interp(np.arange(len(counts)), known, found)]


def best_temperature(samples: Samples) -> float:
    """The one temperature with the least negative log likelihood, between COLDEST and HOTTEST.

    The likelihood is concave in 1 / temperature, and its slope is the mean score of the truth minus the mean
    expected score, so halving finds it.
    """
    least, most = 1 / HOTTEST, 1 / COLDEST
    scores = samples.scores - samples.scores.max(1, keepdims=True)
    of_truth = _of_truth(scores, samples.truth).mean()
    for _ in range(20):
        middle = (least + most) / 2
        shares = np.exp(middle * scores)
        expected = (shares * scores).sum(1) / shares.sum(1)
        if expected.mean() > of_truth:
            most = middle
        else:
            least = middle
    return 2 / (least + most)


def cross_validate(samples: Samples) -> np.ndarray:
    """The temperature (n,) of every sample as fitted to the clips that it is not from, see `left_out`."""
    found = np.empty(len(samples.age))
    for others, judged in left_out(samples.clip):
        found[judged] = temperature_at(fit(samples.of(others)), samples.age[judged])
    return found


def quality(samples: Samples, temperature: np.ndarray) -> Quality:
    """How good the confidence is with a temperature (n,) for each sample."""
    scores = samples.scores / temperature[:, None]
    scores -= scores.max(1, keepdims=True)
    logarithm = np.log(np.exp(scores).sum(1))
    calibration = Calibration(scores.shape[1])
    confidence = np.rint(255 * np.exp(-logarithm)).astype(np.uint8)
    calibration.update(samples.truth, scores.argmax(1).astype(np.uint8), confidence)
    nll = float((logarithm - _of_truth(scores, samples.truth)).mean())
    return Quality(round(nll, 4), round(100 * calibration.ece(), 3))


def _of_truth(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.take_along_axis(scores, truth[:, None].astype(np.intp), 1)[:, 0]
