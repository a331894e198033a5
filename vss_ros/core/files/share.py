"""Finds the files that travel with the package: models, config, launch, rviz."""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from vss_ros.core.errors import SettingsError

PACKAGE = 'vss_ros'
FILE_ENDINGS = ('.yaml', '.yml')
DEFAULT_MODEL = 'camvid-evss-lite'  # of the models that come with the package


def share_folders() -> list[Path]:
    """Every place the share files may lie in, best first.

    A source checkout comes first so that an editable install uses what the developer edits; then each
    prefix of the ament index (colcon workspaces, pip installs), then this Python environment, and where pip
    puts files that are installed for all users of Debian's Python, or for one user.
    """
    checkout = Path(__file__).resolve().parents[3]
    prefixes = [p for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    prefixes += [sys.prefix, sysconfig.get_path('data'), site.getuserbase()]
    folders = [Path(prefix) / 'share' / PACKAGE for prefix in dict.fromkeys(prefixes)]
    return [checkout, *folders] if (checkout / 'package.xml').is_file() else folders


def share_path(relative: str) -> Path:
    """The path of one share file or folder, such as `config/segmentation.yaml`.

    Raises:
        SettingsError: it lies in none of the places; the message lists them.
    """
    folders = share_folders()
    for folder in folders:
        if os.path.exists(folder / relative):  # unlike Path's, False where it may not be looked
            return folder / relative
    tried = ', '.join(str(folder) for folder in folders)
    raise SettingsError(f'{relative} was not found in {tried}; install the package again')


def share_names(folder: str) -> list[str]:
    """Names of the YAML files that lie in a share folder, wherever."""
    places = [place / folder for place in share_folders() if os.path.isdir(place / folder)]
    return sorted({file.stem for place in places for file in place.glob('*.yaml')})


def named_file(name: str, folder: str, what: str) -> Path:
    """A YAML file by its path, or by the name of one that came with the package.

    Args:
        folder: of those, such as `config/classes`.
        what: they are, for the error.

    Raises:
        SettingsError: there is none of this name; the message lists those there are.
    """
    if name.endswith(FILE_ENDINGS):
        return Path(name)
    if name in (known := share_names(folder)):
        return share_path(f'{folder}/{name}.yaml')
    raise SettingsError(f'there is no {what} {name!r}; use one of {", ".join(known)}, or a YAML file')


def version() -> str:
    """The installed version of the package, or that of the checkout."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        found = re.search(r'<version>(.*?)</version>', share_path('package.xml').read_text())
        return found[1] if found else 'unknown'
