"""Clips: stretches of consecutive frames, some of them labelled, each with its number in the clip."""

from __future__ import annotations

import logging
import operator
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from vss_ros.core.errors import FrameError, SourceError
from vss_ros.core.frame import Frame
from vss_ros.core.sources import Source
from vss_ros.core.sources.images import read_image, read_labels

_log = logging.getLogger(__name__)
STAMP = re.compile(r'(\d+)(?:([._])(\d{1,9}))?([^0-9A-Za-z](?!\d{10}).*)?')  # and what follows it in a name


class Clip(Protocol):
    """Consecutive frames. `operator.length_hint` tells how many `frames(None)` gives, where that is known."""

    name: str

    def frames(self, before: int | None, after: int = 0) -> Iterator[tuple[int, Frame]]:
        """Numbers and frames in order.

        Args:
            before: only labelled frames and up to this many frames before each are needed, and the rest
                may be left out; None asks for all.
            after: so many frames after each labelled one are needed as well.

        Raises:
            SourceError: a file cannot be read.
        """
        ...


@dataclass(frozen=True)
class FrameFile:
    """One frame on disk."""

    image: Path
    stamp_ns: int
    label: Path | None


class FileClip:
    """Frames from image files.

    Args:
        read_truth: reads a label file as class ids.
    """

    def __init__(self, name: str, files: list[FrameFile], read_truth: Callable[[Path], np.ndarray]) -> None:
        self.name = name
        self.files = files
        self._read_truth = read_truth

    def __len__(self) -> int:
        return len(self.files)

    def frames(self, before: int | None, after: int = 0) -> Iterator[tuple[int, Frame]]:
        for number in self.wanted(before, after):
            yield number, self.frame(number)

    def frame(self, number: int) -> Frame:
        """One frame, with its truth where it is labelled.

        Raises:
            SourceError: a file cannot be read.
        """
        file = self.files[number]
        try:
            return Frame(read_image(file.image), file.stamp_ns, self.name, truth=self.truth(number))
        except FrameError as error:
            raise SourceError(f'{file.image} and {file.label}: {error}') from error

    def truth(self, number: int) -> np.ndarray | None:
        """The class ids of one frame, uint8 (H, W); None where it is not labelled."""
        label = self.files[number].label
        return None if label is None else self._read_truth(label)

    def wanted(self, before: int | None, after: int = 0) -> list[int]:
        """Numbers of the frames that `frames` gives."""
        if before is None:
            return list(range(len(self.files)))
        labelled = [number for number, file in enumerate(self.files) if file.label is not None]
        near = {n for number in labelled for n in range(number - before, number + after + 1)}
        return sorted(near & set(range(len(self.files))))


class SourceClip:
    """All frames of a source as one clip.

    Args:
        open_: opens the source; it is opened once here to see that it can be.
        labels: folder of PNGs of class ids named by stamp, for sources that bring no truth.

    Attributes:
        is_labelled: whether frames may come with their truth.

    Raises:
        SourceError: it cannot be read, or the folder of labels holds none.
    """

    def __init__(self, name: str, open_: Callable[[], Source], labels: Path | None = None) -> None:
        self.name = name
        self._open = open_
        self._labels = None if labels is None else labels_by_stamp(labels)
        with closing(open_()) as source:
            self._length = operator.length_hint(source)
            self.is_labelled = labels is not None or source.is_labelled

    def __length_hint__(self) -> int:
        return self._length

    def frames(self, before: int | None, after: int = 0) -> Iterator[tuple[int, Frame]]:
        unused = dict(self._labels or {})
        with closing(self._open()) as source:
            for number, frame in enumerate(source):
                if label := (self._labels or {}).get(frame.stamp_ns):
                    unused.pop(frame.stamp_ns, None)
                    try:
                        frame = replace(frame, truth=read_labels(label))
                    except FrameError as error:
                        raise SourceError(f'{label} does not fit its image: {error}') from error
                yield number, frame
        if unused:
            _log.warning(
                '%s: %d of %d labels have the stamp of no frame, %s for example',
                self.name,
                len(unused),
                len(self._labels or {}),
                next(iter(unused.values())),
            )


def may_be_labelled(clip: Clip, frames: int) -> bool:
    """Whether one of the first so many frames may have a label, as far as is known before they are read."""
    if isinstance(clip, FileClip):
        return any(file.label is not None for file in clip.files[:frames])
    return clip.is_labelled if isinstance(clip, SourceClip) else True


def labels_by_stamp(folder: Path) -> dict[int, Path]:
    """PNGs of a folder by the stamp that is their name.

    A stamp is nanoseconds (`1650000000123456789.png`), seconds and nanoseconds
    (`1650000000_123456789.png`), or seconds with decimals (`1650000000.123456789.png`). More may follow, as
    in `1650000000123456789_left.png`, where the number is long enough to be no other one.

    Raises:
        SourceError: there is none, or two are of one stamp.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.glob('*.png')):
        if match := STAMP.fullmatch(path.stem):
            whole, mark, part, more = match.groups()
            if more and len(whole) < 10 and len(part or '') < 9:
                continue  # a name that begins with any number, such as that of a sequence
            if mark == '.':
                stamp_ns = int(whole) * 10**9 + int(part.ljust(9, '0'))
            else:
                stamp_ns = int(whole) * 10**9 + int(part) if part else int(whole)
            if (other := found.setdefault(stamp_ns, path)) != path:
                raise SourceError(f'{other} and {path} are of one stamp; keep the labels alone in a folder')
    if not found:
        raise SourceError(
            f'{folder} holds no labels named by stamp; expected for example 1650000000123456789.png'
        )
    return found
