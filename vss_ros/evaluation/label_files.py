"""Label files: what the ids or colours in them mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import UNLABELLED
from vss_ros.core.sources.images import read_image, read_labels


@dataclass(frozen=True)
class LabelFiles:
    """One kind of label files.

    Attributes:
        files: glob pattern.
        ids: id in the file -> class id; None keeps ids. Ids that are no class are unlabelled.
        colours: class name -> RGB colours, for label images in colour.
    """

    files: str
    ids: Mapping[int, int] | None = None
    colours: Mapping[str, list[list[int]]] | None = None

    def __post_init__(self) -> None:
        """Raises TypeError or ValueError for values that no label file can hold."""
        check_text(files=self.files)
        shades = [shade for shades in (self.colours or {}).values() for shade in shades]
        for values in [*(self.ids or {}).items(), *shades]:
            if not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
                raise ValueError(f'{values} are not whole numbers from 0 to 255')
        if wrong := [shade for shade in shades if len(shade) != 3]:
            raise ValueError(f'{wrong[0]} is no colour; write [red, green, blue]')

    def reader(self, classes: ClassSet) -> Callable[[Path], np.ndarray]:
        """What reads such a file as class ids, uint8 (H, W), 255 = unlabelled.

        Raises:
            SettingsError: a colour belongs to a class that is not in the set.
        """
        if self.colours is not None:
            if strange := [name for name in self.colours if name not in classes.names]:
                raise SettingsError(
                    f'{strange[0]} has colours and is no class of {classes.name}; '
                    f'use {", ".join(classes.names)}'
                )
            return _ColourReader(self.colours, classes)
        table = np.full(256, UNLABELLED, np.uint8)
        pairs = self.ids if self.ids is not None else {c: c for c in range(len(classes))}
        for id_, c in pairs.items():
            table[id_] = c
        return lambda path: table[read_labels(path)]


class _ColourReader:
    """Reads label images in colour as class ids."""

    def __init__(self, colours: Mapping[str, list[list[int]]], classes: ClassSet) -> None:
        self._table = np.full(1 << 24, UNLABELLED, np.uint8)
        for name, shades in colours.items():
            for red, green, blue in shades:
                self._table[red << 16 | green << 8 | blue] = classes.names.index(name)

    def __call__(self, path: Path) -> np.ndarray:
        blue, green, red = np.moveaxis(read_image(path).astype(np.uint32), 2, 0)
        return self._table[red << 16 | green << 8 | blue]


def check_text(**entries: Any) -> None:
    """Raises TypeError for an entry of a layout that is no text."""
    for name, value in entries.items():
        if not isinstance(value, str):
            raise TypeError(f'{name} has {value!r}, which is no text')
