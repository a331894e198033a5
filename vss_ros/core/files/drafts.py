"""Outputs appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from vss_ros.core.errors import SettingsError
from vss_ros.core.files.paths import real_path

PREFIX = '.unfinished-'


class Draft:
    """A file or folder that is written in a hidden folder and moved to its place when it is complete.

    Write to `path`, which has the name the result will have, then `publish` or `discard`.

    Args:
        target: the final place; its folder is made if it does not exist.
        overwrite: whether what lies there may be replaced.

    Raises:
        SettingsError: there is something at the target already, and it may not be replaced.
    """

    def __init__(self, target: Path, overwrite: bool = False) -> None:
        if target.exists() and not overwrite:
            raise SettingsError(f'{target} exists; choose another name or add --overwrite')
        target.parent.mkdir(parents=True, exist_ok=True)
        self.target = target
        self._may_replace = overwrite
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=target.parent))
        self.path = self._folder / target.name

    def publish(self) -> None:
        """Moves the result to its place.

        Raises:
            SettingsError: something came to lie there meanwhile, and it may not be replaced.
        """
        if self.target.exists() and not self._may_replace:
            raise SettingsError(f'{self.target} was written by another meanwhile; choose another name')
        replaced = self._folder / f'{self.path.name}.replaced'
        try:
            if self.target.is_dir():  # the one case that os.replace cannot do
                self.target.rename(replaced)
            os.replace(self.path, self.target)
        except BaseException:  # Ctrl-C, too, after which the draft is discarded
            if replaced.exists() and not self.target.exists():
                replaced.rename(self.target)
            raise
        self.discard()

    def discard(self) -> None:
        """Removes what is not published."""
        shutil.rmtree(self._folder, ignore_errors=True)


def remove_unfinished(target: Path) -> None:
    """Removes what processes left that were ended while they wrote a target. Nobody may be writing it now."""
    for folder in target.parent.glob(f'{PREFIX}*'):
        if (folder / target.name).exists():
            shutil.rmtree(folder, ignore_errors=True)


def write_file(path: Path, data: bytes | str, overwrite: bool = True) -> None:
    """Writes a small file in one go, so that no reader ever sees half of it.

    Text may hold names of files, which need not be UTF-8; their odd bytes are written as escapes. A link
    stays one: what it points to is written. Into devices and pipes it is written straight.

    Raises:
        SettingsError: a folder or a link to itself has that name, or the file may not be replaced.
    """
    refuse_folder(path)
    content = data.encode(errors='backslashreplace') if isinstance(data, str) else data
    if _is_device(path):
        with path.open('wb') as device:
            device.write(content)
        return
    draft = Draft(_linked(path), overwrite)
    try:
        draft.path.write_bytes(content)
        draft.publish()
    finally:
        draft.discard()


def check_file(path: Path, overwrite: bool = False) -> None:
    """Raises SettingsError, before the work, where `write_file` could not write in the end."""
    refuse_folder(path)
    target = _linked(path)
    if _is_device(path):
        if not os.access(path, os.W_OK):
            raise SettingsError(f'{path} cannot be written to; name another')
    elif target.exists() and not overwrite:
        raise SettingsError(f'{path} exists; choose another name or add --overwrite')
    else:
        check_writable(target.parent)


def _is_device(path: Path) -> bool:
    """Whether what is written there goes on to somebody: a device or a pipe, which is never replaced."""
    return path.exists() and not path.is_file()


def _linked(path: Path) -> Path:
    """What a link points to, and any other path as it is."""
    target = real_path(path) if path.is_symlink() else path
    if target.is_symlink():
        raise SettingsError(f'{path} is a link that leads back to itself; name another')
    return target


def check_writable(folder: Path) -> None:
    """Raises SettingsError where nothing could be written into a folder, which is made when it is needed."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        Draft(folder / 'draft').discard()
    except OSError as error:
        raise SettingsError(f'{folder} cannot be written to: {error.strerror}; name another') from error


def refuse_folder(path: Path) -> None:
    """Raises SettingsError where a file cannot be written, because a folder has its name."""
    if path.is_dir():
        raise SettingsError(f'{path} is a folder; name a file in it, such as {path / "figures"}')
