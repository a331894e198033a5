"""The stage `decide` that is no graph: from warped scores to the mask and its confidence, on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from vss_ros.core.engines import Engine
from vss_ros.core.engines.wrapper import EngineWrapper
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.model.steps import AGE, DECISIONS
from vss_ros.evaluation.variants import DECIDE, WARPED, carried_by_warp


class Decider(EngineWrapper):
    """Knows one stage more: `decide`, which takes the warped scores for the result."""

    def __init__(self, engine: Engine, model: ModelFolder) -> None:
        super().__init__(engine)
        self._model = model
        self._carried = carried_by_warp(model)

    def run(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        if graph != DECIDE:
            return super().run(graph, tensors)
        scores, age = (self.to_host(tensors[name])[0] for name in (WARPED, AGE))
        mask, confidence = decide(scores, self._model, int(age.item()))
        carried = {output: tensors[warped] for output, warped in self._carried.items()}
        return {**carried, 'mask': mask[None], 'confidence': confidence[None]}

    def to_host(self, tensor: Any) -> np.ndarray:
        return tensor if isinstance(tensor, np.ndarray) else super().to_host(tensor)


def decide(scores: np.ndarray, model: ModelFolder, age: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Class and confidence of every pixel, as the graphs of a model decide them.

    Args:
        scores: class logits, float (K, h, w).
        model: its options say where the class is decided: at the image's size H x W, a half or a quarter of
            it, whether the corners of both grids lie upon each other, and the temperatures of the confidence.
        age: frames since the key frame.

    Returns:
        mask: class ids, uint8 (H / part, W / part).
        confidence: round(255 * largest class probability), uint8, of the same size.
    """
    height, width = model.image_size
    part = DECISIONS.get(str(model.options.get('decision', 'full')), 1)
    planes: np.ndarray = np.ascontiguousarray(scores.transpose(1, 2, 0), np.float32)
    small = (width // part, height // part)
    if planes.shape[1::-1] != small:
        resized = corners_aligned if model.options.get('align_corners', False) else cv2.resize
        planes = resized(planes, small)
    mask = planes.argmax(axis=2).astype(np.uint8)
    temperature = np.float32(temperature_at(model.options.get('temperatures', ()), age))
    below = (planes - planes.max(axis=2, keepdims=True)) / temperature
    return mask, np.rint(255 / np.exp(below).sum(axis=2)).astype(np.uint8)


def temperature_at(temperatures: Sequence[float], age: int | np.ndarray) -> np.ndarray:
    """What scores are divided by for the confidence, as graphs choose it; 1 where there are no temperatures.

    Args:
        temperatures: by age; the last serves all later frames, see `Method`.
        age: frames since the key frame, of one frame or of several, (n,).
    """
    known = np.asarray(temperatures if len(temperatures) else (1.0,))
    return known[np.minimum(age, len(known) - 1)]


def corners_aligned(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Planes (h, w, K) resized bilinearly to (width, height), the centres of their corners on each other."""
    (width, height), (rows, columns) = size, planes.shape[:2]
    wide = np.tensordot(_between(columns, width), planes, (1, 1))  # (width, h, K)
    return np.ascontiguousarray(np.tensordot(_between(rows, height), wide, (1, 1)))


@lru_cache(maxsize=8)
def _between(given: int, wanted: int) -> np.ndarray:
    """Shares of `given` values in each of `wanted` ones, float32 (wanted, given), ends on ends.

    Not by `cv2.remap`, which rounds places to 1/32 before OpenCV 4.12.
    """
    place = np.linspace(0, given - 1, wanted)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(given)), 0).astype(np.float32)
