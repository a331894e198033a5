"""Class sets: the names and colours behind the ids of a mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import yaml

from vss_ros.core.errors import SettingsError
from vss_ros.core.files.share import named_file, share_names
from vss_ros.core.files.strict_yaml import load_strictly
from vss_ros.core.frame import UNLABELLED

FOLDER = 'config/classes'
EXPECTED = 'expected `classes:` with a list of {name, colour: [r, g, b]}'


@dataclass(frozen=True)
class ClassSet:
    """Names and colours of the classes 0..K-1.

    Attributes:
        name: such as `camvid11`.
        names: one per class id.
        colours: RGB 0..255, one per class id.
        thin: ids of the thin classes, which count as edges in EVSS.
        groups: ids of classes that are scored together, by the group's name.
        scene: ids by what they are in a street, see `SceneClasses`; empty if the set does not say.
    """

    name: str
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    thin: tuple[int, ...] = ()
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    scene: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def palette(self) -> np.ndarray:
        """RGB of every byte value, uint8 (256, 3); ids beyond the classes are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.colours
        return table

    def as_yaml(self) -> str:
        """The classes as YAML for other programs: a list of {id, name, colour: [r, g, b]}."""
        entries = [
            {'id': i, 'name': name, 'colour': list(colour)}
            for i, (name, colour) in enumerate(zip(self.names, self.colours, strict=True))
        ]
        return yaml.safe_dump(entries, sort_keys=False, default_flow_style=None, allow_unicode=True)

    def as_entry(self) -> str | dict[str, Any]:
        """The classes as `model.yaml` has them: a name of the package's own, any others in full."""
        if self.name in share_names(FOLDER) and load_classes(self.name) == self:
            return self.name
        entries: list[dict[str, Any]] = [
            {'name': name, 'colour': list(colour), **({'thin': True} if i in self.thin else {})}
            for i, (name, colour) in enumerate(zip(self.names, self.colours, strict=True))
        ]
        content: dict[str, Any] = {'name': self.name, 'classes': entries}
        for entry, groups in (('groups', self.groups), ('scene', self.scene)):
            if groups:
                content[entry] = {group: [self.names[i] for i in ids] for group, ids in groups.items()}
        return content


def load_classes(name: str) -> ClassSet:
    """Reads a class set by name (`camvid11`, `cityscapes19`) or from a YAML file's path.

    Raises:
        SettingsError: no such set, or the file does not describe one.
    """
    path = named_file(name, FOLDER, 'class set')
    try:
        content = load_strictly(path.read_text())
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise SettingsError(f'{path} is not a class set ({error}); {EXPECTED}') from error
    return classes_of(content, path.stem, str(path))


def classes_of(content: Any, name: str, where: str) -> ClassSet:
    """The class set that a YAML document holds.

    Args:
        where: what to call the document in an error.

    Raises:
        SettingsError: it does not describe one.
    """
    try:
        entries = content['classes']
        names = tuple(str(entry['name']) for entry in entries)
        colours = tuple(_colour(entry['colour']) for entry in entries)
        thin = tuple(i for i, entry in enumerate(entries) if entry.get('thin', False))
        groups, scene = (
            {
                group: tuple(names.index(name) for name in members)
                for group, members in content.get(entry, {}).items()
            }
            for entry in ('groups', 'scene')
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(f'{where} is not a class set ({error}); {EXPECTED}') from error
    if not 0 < len(names) < UNLABELLED:
        raise SettingsError(f'{where} has {len(names)} classes; a uint8 mask holds 1 to 254')
    return ClassSet(name, names, colours, thin, groups, scene)


def _colour(values: list[int]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in values)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f'colour {values} is outside 0..255')
    return red, green, blue
