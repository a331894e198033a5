"""Labelled images on disk, and which of them are kept aside."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np

from vss_ros.core.errors import SourceError
from vss_ros.core.frame import UNLABELLED
from vss_ros.core.model.files import sha256_of
from vss_ros.core.resize import fit, fit_labels
from vss_ros.core.sources.images import images_in, read_image, read_labels

_log = logging.getLogger(__name__)


class Joined(Sequence[np.ndarray]):
    """Several sequences behind each other; arrays that lie on disk are read one by one."""

    def __init__(self, parts: Sequence[Sequence[np.ndarray]]) -> None:
        self._entries = [(part, index) for part in parts for index in range(len(part))]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index):
        part, place = self._entries[index]
        return part[place]


@dataclass(frozen=True)
class LabelledImages:
    """Images uint8 (H, W, 3) BGR with their class ids uint8 (H, W), 255 where unlabelled."""

    names: Sequence[str]
    images: Sequence[np.ndarray]
    labels: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def pixels(self) -> np.ndarray:
        """How many pixels have each label, int64 (256,); counted once: it reads every label."""
        return count_labels(self.labels)

    def where(self, keep: Sequence[bool]) -> LabelledImages:
        """The part of the set whose entry in `keep` is true."""
        places = [index for index, kept in enumerate(keep) if kept]
        return LabelledImages(
            [self.names[index] for index in places],
            [self.images[index] for index in places],
            [self.labels[index] for index in places],
        )

    def split(self, held_out: float) -> tuple[LabelledImages, LabelledImages]:
        """Keep the last `held_out` share of every sequence aside: (the rest, kept aside).

        A contiguous piece, because neighbouring frames are almost copies of each other.
        """
        aside: list[bool] = []
        for _, members in groupby(self.names, key=sequence_of):
            count = len(list(members))
            kept = round(count * (1 - held_out))
            aside += [False] * kept + [True] * (count - kept)
        return self.where([not value for value in aside]), self.where(aside)


def sequence_of(name: str) -> str:
    """The drive a frame belongs to: what stands before the last underscore of its name."""
    return name.rpartition('_')[0]


def load_folder(folder: Path, height: int, width: int, classes: int) -> LabelledImages:
    """Read `folder/images/*` with the label maps `folder/labels/<same name>.png`.

    In natural order: of a drive whose frames are numbered without zeros the last ones come last as well.
    Images of another size are resized (labels to the nearest pixel).
    Raises:
        SourceError: no images, or an image or its label is missing or unreadable, or a label has other ids
            than 0 to `classes` - 1 and 255.
    """
    if not (folder / 'images').is_dir():
        raise SourceError(f'{folder} has no images; expected images/*.jpg and labels/*.png in it')
    paths = images_in(folder / 'images')
    images, labels = [], []
    for path in paths:
        label_path = folder / 'labels' / f'{path.stem}.png'
        image, label = read_image(path), read_labels(label_path)
        if label.shape != image.shape[:2]:
            raise SourceError(f'{label_path} must be of the size of its image')
        if (unknown := label[(label >= classes) & (label != UNLABELLED)]).size:
            raise SourceError(
                f'{label_path} has the class id {unknown[0]}; use 0 to {classes - 1}, '
                f'or {UNLABELLED} for unlabelled'
            )
        images.append(fit(image, (height, width)))
        labels.append(fit_labels(label, (height, width)))
    if all((label == UNLABELLED).all() for label in labels):  # as it may be where a teacher has the answers
        _log.warning('%s labels no pixel: all are %d', folder / 'labels', UNLABELLED)
    return LabelledImages([path.stem for path in paths], images, labels)


def count_labels(labels: Iterable[np.ndarray]) -> np.ndarray:
    """How many pixels have each label, int64 (256,)."""
    return sum((np.bincount(label.ravel(), minlength=256) for label in labels), np.zeros(256, np.int64))


def class_shares(pixels: np.ndarray, classes: int) -> np.ndarray:
    """Share of each class among the labelled pixels, float64 (K,), from how many have each label."""
    return pixels[:classes] / max(pixels[:classes].sum(), 1)


def class_frequencies(labels: Iterable[np.ndarray], classes: int) -> np.ndarray:
    """Share of each class among the labelled pixels, float64 (K,)."""
    return class_shares(count_labels(labels), classes)


def digest(paths: Sequence[Path]) -> str:
    """sha256 over the names and contents of files, and of all files in folders."""
    total = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob('*')) if path.is_dir() else [path]:
            if file.is_file():
                total.update(os.fsencode(f'{file.name} {sha256_of(file)}\n'))  # any bytes may be a name
    return total.hexdigest()
