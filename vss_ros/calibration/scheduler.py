"""Fits what predicts the accuracy of propagated frames (`core/stream/expected_accuracy.py`) to a model.

Needs no labels: accuracy is the share of pixels in which a propagated mask agrees with the mask of the same
frame computed in full. How well the fit holds is measured on clips that it has not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vss_ros.calibration.enough import LEAST_PROPAGATED, check_enough
from vss_ros.calibration.folds import left_out
from vss_ros.core.engines import Engine
from vss_ros.core.errors import ModelError
from vss_ros.core.frame import Frame
from vss_ros.core.model.accuracy_model import AccuracyModel
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.settings import StreamSettings
from vss_ros.core.stream.expected_accuracy import accuracy_graph_of, signals_of
from vss_ros.core.stream.segmenter import VideoSegmenter

RIDGE = 1e-3  # per sample, on weights of signals scaled to deviation 1
ITERATIONS = 50


@dataclass(frozen=True)
class Samples:
    """Propagated frames: what was known before, and how they turned out.

    Attributes:
        names: of the signals.
        signals: float64 (n, signals).
        accuracy: 0..1, (n,).
        clip: number of the clip, or of the group of stills, that each came from, (n,).
    """

    names: tuple[str, ...]
    signals: np.ndarray
    accuracy: np.ndarray
    clip: np.ndarray

    def of(self, wanted: np.ndarray, names: Sequence[str] | None = None) -> Samples:
        """Some of the samples, with some of the signals, or all."""
        names = self.names if names is None else tuple(names)
        columns = [self.names.index(name) for name in names]
        signals = self.signals[wanted][:, columns]
        return Samples(names, signals, self.accuracy[wanted], self.clip[wanted])


def collect(
    model: ModelFolder, engine: Engine, clips: Iterable[tuple[int, Iterable[Frame]]], span: int
) -> Samples:
    """Propagates through clips with a key frame every `span` frames, and computes every frame in full.

    Args:
        clips: with their numbers; clips that show the same have one number.

    Raises:
        ModelError: the model does not propagate, or says itself what it expects.
        SourceError: there are too few frames.
    """
    if model.computes_all_in_full:
        raise ModelError(f'{model.name} computes every frame in full; there is nothing to expect')
    if accuracy_graph_of(model) is not None:
        raise ModelError(f'{model.name} says itself what it expects of a frame; it needs no calibration')
    names = signals_of(model)
    watching = replace(model, expected_accuracy=AccuracyModel(0.0, dict.fromkeys(names, 0.0)))
    common: dict[str, Any] = {'max_frame_gap_s': float('inf'), 'output_size': 'network'}
    every = StreamSettings(
        scheduler='adaptive', key_frame_threshold=0.0, min_interval=1, max_interval=span, **common
    )
    signals, accuracy, origin = [], [], []
    for number, clip in clips:
        propagating = VideoSegmenter(watching, engine, every)
        in_full = VideoSegmenter(model, engine, StreamSettings(1, **common))
        for frame in clip:
            found, expected = propagating.step(frame), in_full.step(frame)
            if found.is_key or propagating.expectation is None:
                continue
            signals.append([propagating.expectation.seen[name] for name in names])
            accuracy.append(float((found.mask == expected.mask).mean()))
            origin.append(number)
    check_enough(len(accuracy), LEAST_PROPAGATED)
    return Samples(tuple(names), np.array(signals), np.array(accuracy), np.array(origin))


def fit(samples: Samples) -> AccuracyModel:
    """Fits the weights: logistic regression on shares, with a little ridge.

    Every signal is one of trouble, so a weight above 0 comes from chance or from another signal's; such
    signals are left out, the largest first.
    """
    kept = list(samples.names)
    while True:
        bias, weights = _logistic(samples.of(np.arange(len(samples.accuracy)), kept))
        if not kept or weights.max() <= 0:
            return AccuracyModel(bias, dict(zip(kept, weights.tolist(), strict=True)))
        del kept[int(weights.argmax())]


def cross_validate(samples: Samples, names: Sequence[str] | None = None) -> np.ndarray:
    """Predicted accuracy (n,) of every sample by weights that were fitted to other clips, see `left_out`.

    Args:
        names: of the signals to use; all if not given.
    """
    predicted = np.empty(len(samples.accuracy))
    for others, judged in left_out(samples.clip):
        model = fit(samples.of(others, names))
        for index in judged:
            row = dict(zip(samples.names, samples.signals[index].tolist(), strict=True))
            predicted[index] = model.predict(row)
    return predicted


def quality(samples: Samples, predicted: np.ndarray) -> dict[str, float]:
    """Mean error of a prediction in points of per cent, and its correlation with what happened."""
    known = predicted.std() > 0 and samples.accuracy.std() > 0
    return {
        'mean_error_percent': round(100 * float(np.abs(predicted - samples.accuracy).mean()), 3),
        'correlation': round(float(np.corrcoef(predicted, samples.accuracy)[0, 1]), 3) if known else 0.0,
    }


def _logistic(samples: Samples) -> tuple[float, np.ndarray]:
    """Bias and weights that fit best, by Newton's method."""
    count = len(samples.accuracy)
    middle, scale = samples.signals.mean(0), samples.signals.std(0)
    scale = np.where(scale > 0, scale, 1)
    design = np.column_stack((np.ones(count), (samples.signals - middle) / scale))
    ridge = np.diag([0.0, *[RIDGE * count] * samples.signals.shape[1]])
    share = np.clip(samples.accuracy.mean(), 1e-3, 1 - 1e-3)
    found = np.zeros(design.shape[1])
    found[0] = np.log(share / (1 - share))
    for _ in range(ITERATIONS):
        predicted = 1 / (1 + np.exp(-design @ found))
        slope = design.T @ (samples.accuracy - predicted) - ridge @ found
        curvature = design.T @ (design * (predicted * (1 - predicted))[:, None]) + ridge
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(found)), slope)
        found += step
        if np.abs(step).max() < 1e-8:
            break
    weights = found[1:] / scale
    return float(found[0] - weights @ middle), weights
