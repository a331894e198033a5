"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(name: str | Path) -> Path:
    """The path that a name means: `~` is the home folder, `~NAME` that of a user, if there is such a one.

    The shell does that for most words of a command, but not within `--labels=~/labels`.
    """
    return Path(os.path.expanduser(name))


def real_path(path: Path) -> Path:
    """An absolute path without links. Where links lead in circles `Path.resolve` raises in some Pythons."""
    return Path(os.path.realpath(path))
