"""Random views of labelled images. Every choice comes from the generator handed in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.random import Generator

from vss_ros.training.data import IGNORE


def random_window(rng: Generator, height: int, width: int, scales: tuple[float, float]) -> np.ndarray:
    """A random scale, place, small rotation and mirroring: affine map from source to view, (2, 3)."""
    scale = math.exp(rng.uniform(math.log(scales[0]), math.log(scales[1])))
    angle = math.radians(rng.normal(0, 2))
    stretch = rng.uniform(0.9, 1.1)
    mirror = -1 if rng.random() < 0.5 else 1
    linear = scale * np.array(
        [
            [mirror * stretch * math.cos(angle), -math.sin(angle)],
            [mirror * stretch * math.sin(angle), math.cos(angle)],
        ]
    )
    # The view's centre may lie anywhere that keeps it inside the source (or the source inside it).
    room = np.abs(1 - 1 / scale) / 2
    centre = np.array([width, height]) * (0.5 + rng.uniform(-room, room, 2))
    offset = np.array([width, height]) / 2 - linear @ centre
    return np.column_stack([linear, offset])


def view(image: np.ndarray, label: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image and label seen through the affine `window`; 255 where the source ends."""
    size = label.shape[1], label.shape[0]
    return (
        cv2.warpAffine(image, window, size, flags=cv2.INTER_LINEAR, borderValue=(114, 114, 114)),
        cv2.warpAffine(label, window, size, flags=cv2.INTER_NEAREST, borderValue=IGNORE),
    )


def paste_objects(
    rng: Generator,
    image: np.ndarray,
    label: np.ndarray,
    other_image: np.ndarray,
    other_label: np.ndarray,
    classes: Sequence[int],
) -> None:
    """Copy all pixels of a random half of `classes` from the other view, in place.

    Rare classes are seen on more backgrounds than the few labelled frames hold.
    """
    chosen = [value for value in classes if rng.random() < 0.5]
    mask = np.isin(other_label, chosen).astype(np.uint8)
    cv2.copyTo(other_image, mask, image)
    cv2.copyTo(other_label, mask, label)


def recolour(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Another camera and another hour: gain, offset, gamma, white balance, saturation, blur, noise."""
    ramp = np.arange(256, dtype=np.float32)[:, None] / 255
    gain = rng.uniform(0.7, 1.4) * rng.uniform(0.9, 1.1, 3)
    table = np.clip(gain * ramp ** rng.uniform(0.7, 1.4) + rng.uniform(-0.12, 0.12), 0, 1)
    image = cv2.LUT(image, (255 * table[None]).astype(np.uint8))
    if rng.random() < 0.5:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        keep = rng.uniform(0.3, 1.5)
        image = cv2.addWeighted(image, keep, grey, 1 - keep, 0)
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.4))
    if rng.random() < 0.2:
        noise = rng.normal(0, rng.uniform(2, 8), image.shape[:2]).astype(np.int16)
        image = np.clip(image + noise[..., None], 0, 255).astype(np.uint8)
    return image
