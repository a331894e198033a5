"""Fields of settings that say what they mean and which values they take.

The checks of values, the parameters of the node and the options of the command line all come from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from vss_ros.core.errors import SettingsError


@dataclass(frozen=True)
class Description:
    """What a user reads about a setting.

    Attributes:
        choices: all values, if they can be listed.
        range: least and largest value of a number; the largest may be infinite.
        live: whether it may change while a stream runs.
    """

    text: str
    choices: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    live: bool = False

    @property
    def values(self) -> str:
        """Which values it takes, in words."""
        if self.choices:
            return f'one of {", ".join(self.choices)}'
        if self.range is None:
            return 'any value'
        least, largest = self.range
        return f'{_short(least)} or more' if largest == math.inf else f'{_short(least)} to {_short(largest)}'

    def takes(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        return self.range is None or self.range[0] <= value <= self.range[1]  # which NaN is not


def setting(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    range: tuple[float, float] | None = None,
    live: bool = False,
) -> Any:
    """A field of a settings class, with its description."""
    return field(default=default, metadata={'description': Description(text, choices, range, live)})


def descriptions(owner: Any) -> dict[str, Description]:
    """The descriptions of a settings class, or of an instance, by the names of the fields."""
    return {field.name: field.metadata['description'] for field in fields(owner)}


def check_setting(owner: Any, name: str, value: Any) -> None:
    """Raises SettingsError if a setting does not take a value."""
    description = descriptions(owner)[name]
    if not description.takes(value):
        raise SettingsError(f'{name} is {value!r}; use {description.values} ({description.text})')


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises SettingsError unless `value` is one of `choices`."""
    if value not in choices:
        raise SettingsError(f'{name} is {value!r}; use one of {", ".join(choices)}')


class Described:
    """Settings, each a field made by `setting`, that are checked one by one when they are made."""

    def __post_init__(self) -> None:
        for name in descriptions(self):
            check_setting(self, name, getattr(self, name))


def _short(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) else f'{limit:g}'
