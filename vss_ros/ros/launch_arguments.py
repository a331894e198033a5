"""What the launch files share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vss_ros.core.errors import SettingsError

if TYPE_CHECKING:
    from launch.actions import DeclareLaunchArgument
    from launch.launch_context import LaunchContext

# Of each: its name, its default (None: it must be given) and what it says.
Arguments = Sequence[tuple[str, str | None, str]]
YES = ('true', '1', 'yes', 'on')
NO = ('', 'false', '0', 'no', 'off')


def declared(arguments: Arguments) -> list[DeclareLaunchArgument]:
    """The actions that let these arguments be given."""
    from launch.actions import DeclareLaunchArgument

    return [
        DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in arguments
    ]


def values_of(context: LaunchContext, arguments: Arguments) -> dict[str, str]:
    """What was given for these arguments, or else their defaults, by name."""
    from launch.substitutions import LaunchConfiguration

    return {name: LaunchConfiguration(name).perform(context) for name, _, _ in arguments}


def is_true(arguments: Mapping[str, str], name: str) -> bool:
    """Whether a launch argument that is a switch is on; nothing is off.

    Raises:
        SettingsError: it is neither; the message names it.
    """
    word = arguments[name].strip().lower()
    if word not in YES + NO:
        raise SettingsError(f'{name} is {arguments[name]!r}; use true or false')
    return word in YES


def whole_number(arguments: Mapping[str, str], name: str) -> int:
    """The value of a launch argument that is a whole number.

    Raises:
        SettingsError: it is none; the message names it.
    """
    try:
        return int(arguments[name])
    except ValueError:
        raise SettingsError(f'{name} is {arguments[name]!r}; use a whole number') from None
