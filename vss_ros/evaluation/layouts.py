"""Layouts: where a data set keeps its images and labels, read from YAML."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import SettingsError, SourceError
from vss_ros.core.files.share import named_file, share_names
from vss_ros.core.files.strict_yaml import load_strictly
from vss_ros.core.settings import StreamSettings
from vss_ros.core.sources.open import MOST_RATE
from vss_ros.evaluation.clips import FileClip, FrameFile
from vss_ros.evaluation.label_files import LabelFiles, check_text

_log = logging.getLogger(__name__)
FOLDER = 'config/datasets'
LEAD_S = 1.0  # before the first label that a split may have
MAX_GAP_S = StreamSettings.max_frame_gap_s  # a longer gap ends a clip, as it ends a live stream
LEAST_RATE = 1e-6  # frames per second
MISTAKES = (  # what comes of a file that describes no data set
    OSError,
    yaml.YAMLError,
    re.error,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)

Key = tuple[str, int]  # sequence, number of the frame
NEEDED = ('classes', 'images', 'labels', 'name', 'rate')  # in the file of a layout


@dataclass(frozen=True)
class Layout:
    """How one data set lies on disk. Patterns may name {split}, those of images {sequence}, too.

    Attributes:
        classes: name of the class set.
        images: the first pattern that finds a file counts.
        labels: of several kinds, that of which there are the most files; the first of equals.
        name: searched in the name of a label (without its suffix): `sequence` and `number` of the frame.
        image_name: the same for images, where it differs; it may leave the sequence to the pattern.
        rate: frame numbers per second.
        split: taken if the user names none.
        list_file: text file that names the files of the split, if there is one.
        splits: split -> sequence -> first and last number of its labels; None if folders are the splits. Of
            the frames those of the same range are read, and those of LEAD_S before.
        shift: sequence -> what is added to a label's number to get that of its frame.
    """

    title: str
    classes: str
    images: tuple[str, ...]
    labels: tuple[LabelFiles, ...]
    name: str
    rate: float
    image_name: str = ''
    split: str = ''
    list_file: str = ''
    splits: Mapping[str, Mapping[str, tuple[int, int]]] | None = None
    shift: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises LookupError, TypeError or ValueError for what cannot describe a data set."""
        check_text(
            classes=self.classes,
            name=self.name,
            image_name=self.image_name,
            split=self.split,
            list_file=self.list_file,
        )
        for pattern in self.images:
            check_text(images=pattern)
        if not LEAST_RATE <= self.rate <= MOST_RATE:
            raise ValueError(f'rate is {self.rate}; use {LEAST_RATE} to {MOST_RATE:.0f} frames per second')
        for regex in filter(None, (self.name, self.image_name)):
            if 'number' not in re.compile(regex).groupindex:
                raise ValueError(
                    f'{regex!r} does not find the number of a frame; write (?P<number>\\d+) in it'
                )
        for pattern in self._patterns():
            if '{sequence}' in pattern and pattern not in self.images:
                raise ValueError(f'{pattern!r} names {{sequence}}, as only images may; write * there')
            pattern.format(split='', sequence='')
        for ranges in (self.splits or {}).values():
            for first, last in ranges.values():
                if not (isinstance(first, int) and isinstance(last, int) and first <= last):
                    raise ValueError(f'{ranges} are no ranges; write [first number, last number]')
        if not isinstance(self.shift, Mapping) or not all(isinstance(n, int) for n in self.shift.values()):
            raise ValueError(f'shift is {self.shift!r}; write a whole number for each sequence')

    def _patterns(self) -> tuple[str, ...]:
        return *self.images, *(entry.files for entry in self.labels), self.list_file

    @property
    def has_splits(self) -> bool:
        return self.splits is not None or any('{split}' in pattern for pattern in self._patterns())

    def fits(self, root: Path) -> bool:
        """Whether a folder looks like this, in any split."""
        any_split = any(_files(root, entry.files.replace('{split}', '*'), self.name) for entry in self.labels)
        patterns = [pattern.replace('{split}', '*').replace('{sequence}', '*') for pattern in self.images]
        return any_split and any(_files(root, pattern, self.image_name or self.name) for pattern in patterns)

    def clips(self, root: Path, split: str | None = None) -> list[FileClip]:
        """The clips with labels in them, in order of sequence and frame number.

        Raises:
            SettingsError: there is no such split.
            SourceError: images or labels are missing, or two are of one frame.
        """
        if split and not self.has_splits:
            raise SettingsError(f'{self.title} has no splits; leave --split out')
        split = split or self.split
        if self.splits is not None and split not in self.splits:
            raise SettingsError(f'{self.title} has no split {split!r}; use one of {", ".join(self.splits)}')
        files, labels = self._labels(root, split)
        every_label = set(root.glob(files.files.format(split=split)))  # they may lie among the images
        images = self._images(root, split, sorted({sequence for sequence, _ in labels}), every_label)
        if lost := sorted(set(labels) - set(images)):
            raise SourceError(
                f'{labels[lost[0]]} has no image of the same name in {root}; {len(lost)} labels are without'
            )
        read = files.reader(load_classes(self.classes))
        near = [key for key in images if self._is_near(split, *key)]
        labelled = [keys for keys in _runs(near, MAX_GAP_S * self.rate) if not labels.keys().isdisjoint(keys)]
        _warn_of_uneven_steps(root, labelled, images)
        return [FileClip(_title(keys), self._frames(keys, images, labels), read) for keys in labelled]

    def _frames(
        self, keys: Sequence[Key], images: Mapping[Key, Path], labels: Mapping[Key, Path]
    ) -> list[FrameFile]:
        return [FrameFile(images[key], round(key[1] / self.rate * 1e9), labels.get(key)) for key in keys]

    def _is_near(self, split: str, sequence: str, number: int) -> bool:
        """Whether a frame is of the split, or shortly before it, where its first labels are reached from."""
        if self.splits is None:
            return True
        first, last = self.splits[split].get(sequence, (0, -1))
        shift = self.shift.get(sequence, 0)
        return first + shift - LEAD_S * self.rate <= number <= last + shift

    def _labels(self, root: Path, split: str) -> tuple[LabelFiles, dict[Key, Path]]:
        """The label files of the kind of which there are the most."""
        kinds: list[tuple[LabelFiles, dict[Key, Path]]] = []
        listed = _names_in(root / self.list_file.format(split=split)) if self.list_file else None
        for files in self.labels:
            found = _files(root, files.files.format(split=split), self.name)
            if listed is not None:
                found = [(key, path) for key, path in found if path.stem in listed]
            if self.splits is not None:
                ranges = self.splits[split]
                found = [
                    ((sequence, number), path)
                    for (sequence, number), path in found
                    if sequence in ranges and ranges[sequence][0] <= number <= ranges[sequence][1]
                ]
            shifted = [((sequence, n + self.shift.get(sequence, 0)), path) for (sequence, n), path in found]
            kinds.append((files, _by_key(shifted)))
        best = max(kinds, key=lambda kind: len(kind[1]), default=None)
        if best is not None and best[1]:
            return best
        tried = ', '.join(files.files.format(split=split) for files in self.labels)
        raise SourceError(f'{root} has no labels of {self.title}, split {split!r}; expected {tried}')

    def _images(
        self, root: Path, split: str, sequences: list[str], every_label: Set[Path]
    ) -> dict[Key, Path]:
        for pattern in self.images:
            found: list[tuple[Key, Path]] = []
            for sequence in sequences if '{sequence}' in pattern else ['']:
                filled = pattern.format(split=split, sequence=sequence)
                found += _files(root, filled, self.image_name or self.name, sequence, every_label)
            if found:
                return _by_key(found)
        tried = ', '.join(pattern.format(split=split, sequence='SEQUENCE') for pattern in self.images)
        raise SourceError(f'{root} has no images of {self.title}, split {split!r}; expected {tried}')


def load_layout(name: str) -> Layout:
    """Reads a layout by name, or from a YAML file's path.

    Raises:
        SettingsError: there is none of this name, or the file does not describe one.
    """
    path = named_file(name, FOLDER, 'layout')
    try:
        content = load_strictly(path.read_text())
        if not isinstance(content, dict):
            raise ValueError('expected entries of the form name: value')
        if missing := [name for name in NEEDED if name not in content]:
            raise ValueError(f'it lacks {", ".join(missing)}')
        if wrong := [entry for entry in content['labels'] if not isinstance(entry, dict)]:
            raise ValueError(
                f'labels has {wrong[0]!r}; write a list of entries such as {{files: labels/*.png}}'
            )
        if not isinstance(content['images'], list):
            raise ValueError(f'images is {content["images"]!r}; write a list such as [images/*.png]')
        content = dict(content)
        labels = tuple(LabelFiles(**entry) for entry in content.pop('labels'))
        layout = Layout(title=path.stem, images=tuple(content.pop('images')), labels=labels, **content)
    except MISTAKES as error:
        reason = ' '.join(str(error).split())
        raise SettingsError(
            f'{path} does not describe a data set ({reason}); see {FOLDER}/camvid-segnet.yaml for an example'
        ) from error
    return layout


def list_layouts() -> list[str]:
    """Names of the layouts that came with the package."""
    return share_names(FOLDER)


def stretches(numbers: list[int], max_step: float) -> list[list[int]]:
    """Cuts rising numbers where they leap by more than `max_step`."""
    cuts = [i for i in range(1, len(numbers)) if numbers[i] - numbers[i - 1] > max_step]
    return [numbers[start:end] for start, end in zip([0, *cuts], [*cuts, len(numbers)], strict=True)]


def _runs(keys: Iterable[Key], max_step: float) -> list[list[Key]]:
    """Frames in order, those of a sequence together, cut where their numbers leap."""
    by_sequence: dict[str, list[int]] = defaultdict(list)
    for sequence, number in keys:
        by_sequence[sequence].append(number)
    return [
        [(sequence, number) for number in stretch]
        for sequence, numbers in sorted(by_sequence.items())
        for stretch in stretches(sorted(numbers), max_step)
    ]


def _title(keys: Sequence[Key]) -> str:
    sequence, first = keys[0]
    return f'{sequence}_{first:06d}'


def _warn_of_uneven_steps(root: Path, clips: Iterable[Sequence[Key]], images: Mapping[Key, Path]) -> None:
    places = [(keys, uneven_steps([number for _, number in keys])) for keys in clips]
    uneven = [images[keys[place]] for keys, found in places for place in found]
    if uneven:
        _log.warning(
            '%s: steps between frames that are not as long as most of their clip: %d, that to %s for '
            'example; distances are counted in frames, whatever is missing between them',
            root,
            len(uneven),
            uneven[0],
        )


def uneven_steps(numbers: list[int]) -> list[int]:
    """Places in rising numbers that are reached by another step than most are."""
    steps = [after - before for before, after in pairwise(numbers)]
    counts = Counter(steps)
    usual = max(counts, key=lambda step: (counts[step], -step), default=0)
    return [index for index, step in enumerate(steps, start=1) if step != usual]


def _files(
    root: Path, pattern: str, name: str, sequence: str = '', without: Set[Path] = frozenset()
) -> list[tuple[Key, Path]]:
    """Files with sequence and number; those whose name does not match are none of ours, nor are hidden ones.

    A Mac leaves `._a.png` beside `a.png`, which is no picture.

    Raises:
        SettingsError: the pattern is none.
    """
    try:
        paths = sorted(path for path in root.glob(pattern) if path not in without)
    except (ValueError, NotImplementedError) as error:
        raise SettingsError(f'{pattern!r} is no pattern of files in a folder: {error}') from error
    found: list[tuple[Key, Path]] = []
    for path in paths:
        match = None if path.name.startswith('.') else re.search(name, path.stem)
        if match and (match['number'] or '').isdecimal():
            groups: dict[str, Any] = match.groupdict()
            found.append(((groups.get('sequence') or sequence, int(match['number'])), path))
    return found


def _by_key(files: list[tuple[Key, Path]]) -> dict[Key, Path]:
    """Raises SourceError where two files are of one frame."""
    found: dict[Key, Path] = {}
    for (sequence, number), path in files:
        if (other := found.setdefault((sequence, number), path)) != path:
            raise SourceError(
                f'{other} and {path} are both of frame {number}{f" of {sequence}" if sequence else ""}; take '
                'one away, or use a layout whose patterns and names tell them apart'
            )
    return found


def _names_in(file: Path) -> set[str] | None:
    """Names without folder and suffix of all files named in a list; None if there is no list."""
    return {Path(word).stem for word in file.read_text().split()} if file.is_file() else None
