"""What the launch files share."""

from __future__ import annotations

from collections.abc import Mapping

from vss_ros.core.errors import SettingsError

YES = ('true', '1', 'yes', 'on')
NO = ('', 'false', '0', 'no', 'off')


def is_true(arguments: Mapping[str, str], name: str) -> bool:
    """Whether a launch argument that is a switch is on; nothing is off.

    Raises:
        SettingsError: it is neither; the message names it.
    """
    word = arguments[name].strip().lower()
    if word not in YES + NO:
        raise SettingsError(f'{name} is {arguments[name]!r}; use true or false')
    return word in YES
