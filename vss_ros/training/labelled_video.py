"""Videos on disk in which some frames are labelled, as CamVid and Cityscapes are; read when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator

from vss_ros.core.errors import SettingsError
from vss_ros.core.files.share import FILE_ENDINGS
from vss_ros.core.frame import UNLABELLED
from vss_ros.core.resize import fit, fit_labels
from vss_ros.core.sources.images import read_image
from vss_ros.evaluation.clips import FileClip
from vss_ros.evaluation.layouts import Layout, load_layout
from vss_ros.training.augment import recolour_clip
from vss_ros.training.clips import Clip
from vss_ros.training.data import LabelledImages

Place = tuple[FileClip, int]  # a video, and the number of a labelled frame in it


def layout_and_split(layout: str, classes: str) -> tuple[Layout, str]:
    """What `cityscapes/train` names; the split is empty where the data set has none.

    Args:
        layout: name of a layout in config/datasets, or the path of a layout's file, and where it has splits a
            slash and one of them.
        classes: the class set of the training.
    Raises:
        SettingsError: there is no such layout, its classes are others, or the split is missing.
    """
    name, split = layout, ''
    if '/' in layout and not layout.endswith(FILE_ENDINGS):
        name, _, split = layout.rpartition('/')
    chosen = load_layout(name)
    if chosen.classes != classes:
        raise SettingsError(f'the layout {name} has the classes {chosen.classes}, the recipe {classes}')
    if chosen.has_splits and not split:  # that of the layout is the one to evaluate on
        raise SettingsError(f'name the part, such as {name}/{next(iter(chosen.splits or ["train"]))}')
    if split and not chosen.has_splits:
        raise SettingsError(f'the layout has no parts, write {name}')
    if chosen.splits is not None and split not in chosen.splits:
        raise SettingsError(f'the layout has no part {split!r}, use one of {", ".join(chosen.splits)}')
    return chosen, split


def read_layout(root: Path, layout: str, classes: str) -> list[Place]:
    """The labelled frames of a data set; arguments as of `layout_and_split`.

    Raises:
        SettingsError: there is no such layout or split, or its classes are others.
        SourceError: images or labels are missing.
    """
    chosen, split = layout_and_split(layout, classes)
    videos = chosen.clips(root, split or None)
    return [(video, n) for video in videos for n, file in enumerate(video.files) if file.label is not None]


class LabelledVideo:
    """Clips that end at labelled frames, mirrored and recoloured at random.

    Args:
        places: the labelled frames.
        height, width: images of another size are resized.
        recoloured, mirrored: whether they are, half of them mirrored.
        following: how many frames a clip goes on after its labelled one.
    """

    def __init__(
        self,
        places: Sequence[Place],
        height: int,
        width: int,
        recoloured: bool = True,
        mirrored: bool = True,
        following: int = 0,
    ) -> None:
        self.places, self._size, self._following = places, (height, width), following
        self._recoloured, self._mirrored = recoloured, mirrored

    def __len__(self) -> int:
        return len(self.places)

    def clip(self, rng: Generator, frames: int, backwards: bool = False) -> Clip:
        """A clip that ends at one of the labelled frames; only that one is labelled.

        Raises:
            SettingsError: none has so many frames before it, or, if backwards, behind it.
        """
        able = [place for place in self.places if self._has_clip(place, frames, backwards)]
        if not able:
            more = f' and {self._following} on the other' if self._following else ''
            raise SettingsError(
                f'no labelled frame has {frames - 1 - self._following} frames on that side{more}; '
                'ask for fewer, or give the data set with its video, not the labelled frames alone'
            )
        look, mirrored = int(rng.integers(1 << 62)), rng.random() < 0.5
        clip = self.clip_to(able[int(rng.integers(len(able)))], frames, backwards)
        if mirrored and self._mirrored:
            clip = Clip(clip.images[:, :, ::-1], clip.labels[:, :, ::-1])
        if not self._recoloured:
            return Clip(np.ascontiguousarray(clip.images), np.ascontiguousarray(clip.labels))
        images = recolour_clip(look, map(np.ascontiguousarray, clip.images))
        return Clip(np.stack(images), clip.labels)

    def in_order(self, frames: int) -> Iterator[Clip]:
        """The clip that ends at each labelled frame which has one, as it is, one after the other."""
        return (self.clip_to(place, frames) for place in self.places if self._has_clip(place, frames))

    def clip_to(self, place: Place, frames: int, backwards: bool = False) -> Clip:
        """The clip that ends at a labelled frame, as it is."""
        video, labelled = place
        images = [_image(video, number, self._size) for number in self._numbers(labelled, frames, backwards)]
        labels = np.full((frames, *self._size), UNLABELLED, np.uint8)
        labels[-1 - self._following] = _label(video, labelled, self._size)
        return Clip(np.stack(images), labels)

    def _numbers(self, labelled: int, frames: int, backwards: bool) -> range:
        """Those of the frames of a clip."""
        step = -1 if backwards else 1
        first = labelled - step * (frames - 1 - self._following)
        return range(first, first + step * frames, step)

    def _has_clip(self, place: Place, frames: int, backwards: bool = False) -> bool:
        video, labelled = place
        numbers = self._numbers(labelled, frames, backwards)
        return min(numbers) >= 0 and max(numbers) < len(video)

    def clips_aside(self, frames: int, count: int) -> list[Clip]:
        """Up to `count` clips, evenly spread, at a short, a middle and the longest distance in turn."""
        lengths = sorted({2, 1 + frames // 2, frames})
        every = max(len(self.places) // count, 1)
        places = [(place, lengths[n % len(lengths)]) for n, place in enumerate(self.places[::every][:count])]
        return [self.clip_to(place, length) for place, length in places if self._has_clip(place, length)]

    def stills(self) -> LabelledImages:
        """The labelled frames on their own, read when they are looked at."""
        names = [f'{video.name}_{number}' for video, number in self.places]
        images, labels = (_OnDisk(self.places, self._size, read) for read in (_image, _label))
        return LabelledImages(names, images, labels)


def _image(video: FileClip, number: int, size: tuple[int, int]) -> np.ndarray:
    return fit(read_image(video.files[number].image), size)


def _label(video: FileClip, number: int, size: tuple[int, int]) -> np.ndarray:
    label = video.truth(number)
    assert label is not None  # places are labelled frames
    return fit_labels(label, size)


class _OnDisk(Sequence[np.ndarray]):
    """Reads an entry when it is asked for; nothing is kept, for a data set may be larger than the memory."""

    def __init__(
        self, places: Sequence[Place], size: tuple[int, int], read: Callable[..., np.ndarray]
    ) -> None:
        self._places, self._size, self._read = places, size, read

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index):
        return self._read(*self._places[index], self._size)
