"""Fields of settings that say what they mean and which values they take.

The checks of values, the parameters of the node and the options of the command line all come from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from vss_ros.core.errors import SettingsError

KINDS: dict[Any, tuple[type, str]] = {  # of values: what is one, NumPy's numbers too, and its name
    bool: (bool, 'true or false'),
    int: (Integral, 'a whole number'),
    float: (Real, 'a number'),
    str: (str, 'a text'),
}


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


def check_setting(owner: type[Described], name: str, value: Any) -> None:
    """Raises SettingsError if a setting does not take a value."""
    _check(name, value, owner.types[name], descriptions(owner)[name])


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises SettingsError unless `value` is one of `choices`."""
    if value not in choices:
        raise SettingsError(f'{name} is {value!r}; use one of {", ".join(choices)}')


class Described:
    """Settings, each a field made by `setting`, that are checked one by one when they are made.

    A field is of one of KINDS, or a tuple of them, or a mapping of names to them.
    """

    types: ClassVar[dict[str, Any]]  # of the fields, by name

    def __init_subclass__(cls) -> None:
        cls.types = get_type_hints(cls)

    def __post_init__(self) -> None:
        for name, description in descriptions(self).items():
            _check(name, getattr(self, name), self.types[name], description)


def _check(name: str, value: Any, kind: Any, description: Description) -> None:
    if not is_of(kind, value):
        limits = f', {description.values}' if description.choices or description.range else ''
        raise SettingsError(f'{name} is {value!r}; use {in_words(kind)}{limits} ({description.text})')
    if not description.takes(value):
        raise SettingsError(f'{name} is {value!r}; use {description.values} ({description.text})')


def is_of(kind: Any, value: Any) -> bool:
    """Whether a value is of one of KINDS, or of a tuple or a mapping of them."""
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(is_of(get_args(kind)[0], each) for each in value)
    if get_origin(kind) is Mapping:
        return isinstance(value, Mapping) and all(is_of(get_args(kind)[1], each) for each in value.values())
    if isinstance(value, bool):  # in Python a whole number, too
        return kind is bool
    return isinstance(value, KINDS[kind][0])


def in_words(kind: Any) -> str:
    """Which values are of a kind, see `is_of`."""
    if get_origin(kind) is tuple:
        return f'a list, each entry {KINDS[get_args(kind)[0]][1]}'
    if get_origin(kind) is Mapping:
        return f'entries of the form name: {KINDS[get_args(kind)[1]][1]}'
    return KINDS[kind][1]


def _short(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) else f'{limit:g}'
