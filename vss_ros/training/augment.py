"""Random views of labelled images. Every choice comes from the generator handed in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.random import Generator

from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import CELL, MAX_SIDE, UNLABELLED
from vss_ros.training.data import LabelledImages

SCALES = (0.01, 100)  # of a view; beyond them nothing is seen of an image, or nothing but a few pixels


def random_window(
    rng: Generator, height: int, width: int, scales: tuple[float, float], size: Sequence[int] = ()
) -> np.ndarray:
    """A random scale, place, small rotation and mirroring: affine map from source to view, (2, 3).

    Args:
        size: (height, width) of the view; that of the source if not given.
    """
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
    source = np.array([width, height])
    seen = np.array(size[::-1]) if len(size) else source
    room = np.abs(1 - seen / source / scale) / 2
    centre = source * (0.5 + rng.uniform(-room, room, 2))
    offset = seen / 2 - linear @ centre
    return np.column_stack([linear, offset])


def view(
    image: np.ndarray, label: np.ndarray, window: np.ndarray, size: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Image and label seen through the affine `window`, as large as `size`; 255 where the source ends."""
    height, width = size if len(size) else label.shape
    size = width, height
    return (
        cv2.warpAffine(image, window, size, flags=cv2.INTER_LINEAR, borderValue=(114, 114, 114)),
        cv2.warpAffine(label, window, size, flags=cv2.INTER_NEAREST, borderValue=UNLABELLED),
    )


def random_view(
    rng: Generator, images: LabelledImages, scales: tuple[float, float], crop: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """One of the images and its label through a random window, as large as `crop` or the image itself."""
    index = int(rng.integers(len(images)))
    label = images.labels[index]
    window = random_window(rng, label.shape[0], label.shape[1], scales, crop)
    return view(images.images[index], label, window, crop)


def check_scales(scales: Sequence[float]) -> None:
    """Raises SettingsError unless these are the smallest and the largest scale of a view."""
    least, most = SCALES
    if len(scales) != 2 or not least <= scales[0] <= scales[1] <= most:
        raise SettingsError(
            f'scales is {list(scales)}; use the smallest and the largest, of {least} to {most}: [0.6, 2.0]'
        )


def check_crop(crop: Sequence[float]) -> None:
    """Raises SettingsError unless `crop` is empty or a height and a width that maps at 1/4 fit into."""
    if len(crop) not in (0, 2) or any(
        not isinstance(side, int) or side not in range(CELL, MAX_SIDE + 1, CELL) for side in crop
    ):
        raise SettingsError(
            f'crop is {list(crop)}; use [height, width], multiples of {CELL} up to {MAX_SIDE}, or [] for none'
        )


def random_place(rng: Generator, size: Sequence[int], part: Sequence[int]) -> tuple[slice, slice]:
    """Where in an image of `size` (height, width) a random window of `part` lies, on whole cells.

    Raises:
        SettingsError: the window is larger than the image.
    """
    if part[0] > size[0] or part[1] > size[1]:
        raise SettingsError(
            f'crop is {part[1]}x{part[0]}, the images are {size[1]}x{size[0]}; use a smaller crop'
        )
    top, left = (
        CELL * int(rng.integers((whole - cut) // CELL + 1)) for whole, cut in zip(size, part, strict=True)
    )
    return slice(top, top + part[0]), slice(left, left + part[1])


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


def recolour_clip(look: int, images: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Frames as one camera sees them: of one look, and with noise of their own."""
    return [
        recolour(np.random.default_rng(look), image, np.random.default_rng([look, number]))
        for number, image in enumerate(images)
    ]


def recolour(rng: Generator, image: np.ndarray, grain: Generator | None = None) -> np.ndarray:
    """Another camera and another hour: gain, offset, gamma, white balance, saturation, blur, noise.

    Args:
        grain: draws the noise, if another one does than what draws the rest.
    """
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
        strength = rng.uniform(2, 8)
        noise = (grain or rng).normal(0, strength, image.shape[:2]).astype(np.int16)
        image = np.clip(image + noise[..., None], 0, 255).astype(np.uint8)
    return image
