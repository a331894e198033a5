"""Clips that exist already: pieces of them at random, and those of videos without labels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.random import Generator

from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import UNLABELLED
from vss_ros.core.resize import fit, fit_labels
from vss_ros.training.augment import recolour_clip
from vss_ros.training.clips import Clip
from vss_ros.training.data import LabelledImages


class ClipLibrary:
    """Random pieces of clips, mirrored and recoloured at random, some at double speed."""

    def __init__(
        self,
        clips: Sequence[Clip],
        height: int,
        width: int,
        recoloured: bool = True,
        mirrored: bool = True,
    ) -> None:
        self._clips, self._size = clips, (height, width)
        self._recoloured, self._mirrored = recoloured, mirrored

    def clip(self, rng: Generator, frames: int, backwards: bool = False) -> Clip:
        """A piece of one of the clips, cut to the shape of the view where its frames are wider.

        Raises:
            SettingsError: no clip has that many frames.
        """
        able = [clip for clip in self._clips if len(clip.images) >= frames]
        if not able:
            raise SettingsError(f'no clip has {frames} frames; ask for shorter clips')
        clip = able[int(rng.integers(len(able)))]
        stride = 2 if len(clip.images) >= 2 * frames and rng.random() < 0.3 else 1
        first = int(rng.integers(len(clip.images) - stride * (frames - 1)))
        piece = slice(first, first + stride * (frames - 1) + 1, stride)
        look, place, mirrored = int(rng.integers(1 << 62)), rng.random(), rng.random() < 0.5
        images, labels = [], []
        for image, label in zip(clip.images[piece], clip.labels[piece], strict=True):
            image, label = self._fit(image, label, place)
            if mirrored and self._mirrored:
                image, label = image[:, ::-1], label[:, ::-1]
            images.append(np.ascontiguousarray(image))
            labels.append(label)
        if self._recoloured:
            images = recolour_clip(look, images)
        order = slice(None, None, -1 if backwards else 1)
        return Clip(np.stack(images[order]), np.stack(labels[order]))

    def _fit(self, image: np.ndarray, label: np.ndarray, place: float) -> tuple[np.ndarray, np.ndarray]:
        height, width = self._size
        kept = min(label.shape[1], round(label.shape[0] * width / height))
        left = int(place * (label.shape[1] - kept))
        here = np.s_[:, left : left + kept]
        return fit(image[here], self._size), fit_labels(label[here], self._size)

    def stills(self) -> LabelledImages:
        """Every frame of every clip on its own."""
        pairs = [
            self._fit(image, label, 0.5)
            for clip in self._clips
            for image, label in zip(clip.images, clip.labels, strict=True)
        ]
        names = [f'clip_{index}' for index in range(len(pairs))]
        return LabelledImages(names, [image for image, _ in pairs], [label for _, label in pairs])


def read_video(path: Path, height: int) -> Clip:
    """All frames of a video, without labels, all in memory; larger ones are reduced to this height.

    Raises:
        SourceError: the file cannot be read.
        MissingLibraryError: PyAV is not installed.
    """
    from vss_ros.core.sources.video import VideoSource  # whose library is needed for videos alone

    with closing(VideoSource(path)) as source:
        stack = np.stack([_reduced(frame.image, height) for frame in source])
    return Clip(stack, np.full(stack.shape[:3], UNLABELLED, np.uint8))


def _reduced(image: np.ndarray, height: int) -> np.ndarray:
    """An image of this height, as wide as it must be then; one that is not higher stays as it is."""
    rows, columns = image.shape[:2]
    return fit(image, (height, round(columns * height / rows))) if rows > height else image
