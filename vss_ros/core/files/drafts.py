"""Outputs appear complete or not at all."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vss_ros.core.errors import SettingsError, writing
from vss_ros.core.files.paths import real_path

PREFIX = '.unfinished-'
MARK = '.held-for'  # in such a folder: the name of its target, locked as long as the process lives
_log = logging.getLogger(__name__)


class Draft:
    """A file or folder that is written in a hidden folder and moved to its place when it is complete.

    Write to `path`, which has the name the result will have, then `publish` or `discard`. What processes left
    that were ended while they wrote the same target is removed.

    Args:
        target: the final place; its folder is made if it does not exist.
        overwrite: whether what lies there may be replaced.
        tidy: whether such leftovers are looked for, which takes longer the more files lie beside the target.

    Raises:
        SettingsError: there is something at the target already, and it may not be replaced.
    """

    def __init__(self, target: Path, overwrite: bool = False, tidy: bool = True) -> None:
        if tidy:
            remove_unfinished(target)
        if target.exists() and not overwrite:
            raise SettingsError(f'{target} exists; choose another name or add --overwrite')
        self._made = make_folder(target.parent)
        self.target = target
        self._may_replace = overwrite
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=target.parent))
        try:
            self._mark = _held_mark(self._folder, target)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            remove_if_empty(self._made)
            raise
        self.path = self._folder / target.name

    def publish(self) -> None:
        """Moves the result to its place.

        Raises:
            SettingsError: something came to lie there meanwhile, and it may not be replaced.
        """
        if self.target.exists() and not self._may_replace:
            raise SettingsError(f'{self.target} was written by another meanwhile; choose another name')
        replaced = _replaced(self._folder, self.target)
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
        """Removes what is not published, and folders that were made for it."""
        self._mark.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        remove_if_empty(self._made)


def make_folder(folder: Path) -> list[Path]:
    """Makes a folder and those around it; gives those that were not there, the innermost first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def remove_if_empty(folders: Sequence[Path]) -> None:
    """Removes folders, the innermost first, as far as nothing lies in them."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def remove_unfinished(target: Path) -> None:
    """Removes what processes left that were ended while they wrote a target, and tells how much it was.

    What a living process holds stays. So does, with a warning, what may be held where files have no locks.
    """
    for folder in target.parent.glob(f'{PREFIX}*'):
        with suppress(OSError):  # somebody else's, or just removed by another
            if not folder.is_symlink():
                _remove_if_left(folder, target)


def _remove_if_left(folder: Path, target: Path) -> None:
    mark = folder / MARK
    if not mark.exists():  # of an older version
        if (folder / target.name).exists():
            _remove(folder, target)
        return
    with mark.open('r+b') as file:  # some network file systems lock only what can be written
        if file.read() != os.fsencode(target.name):
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:
            _log.warning(
                '%s, %.1f MB, may be left from a process that was ended while it wrote %s; remove it if '
                'nobody writes there',
                folder,
                _megabytes(folder),
                target,
            )
            return
        _remove(folder, target)


def _remove(folder: Path, target: Path) -> None:
    replaced = _replaced(folder, target)
    if replaced.exists() and not target.exists():  # it was ended between the two moves of `publish`
        replaced.rename(target)
    size = _megabytes(folder)
    shutil.rmtree(folder)
    _log.warning(
        '%s, %.1f MB, was left from a process that was ended while it wrote %s; it is removed',
        folder,
        size,
        target,
    )


def _held_mark(folder: Path, target: Path) -> BinaryIO:
    """Says whose draft lies in a folder, and holds it until the file is closed or the process ends."""
    mark = (folder / MARK).open('wb', buffering=0)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        mark.write(os.fsencode(target.name))  # once it is held: without a name it is no leftover yet
    except BaseException:
        mark.close()
        raise
    return mark


def _replaced(folder: Path, target: Path) -> Path:
    """Where a folder lies while another takes its place."""
    return folder / f'{target.name}.replaced'


def _megabytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob('*')) / 1e6


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a path to write to, whose content is on the disk before it takes the place of the file.

    Nothing is left of it after an error.
    """
    draft = Draft(file, overwrite=True)
    try:
        yield draft.path
        with draft.path.open('rb') as written:
            os.fsync(written.fileno())  # otherwise a power cut may leave the name, and nothing behind it
        draft.publish()
    finally:
        draft.discard()


def write_file(path: Path, data: bytes | str, overwrite: bool = True) -> None:
    """Writes a small file in one go, so that no reader ever sees half of it.

    Text may hold names of files, which need not be UTF-8; their odd bytes are written as escapes. A link
    stays one: what it points to is written. Into devices and pipes it is written straight.

    Raises:
        SettingsError: a folder or a link to itself has that name, or the file may not be replaced.
        OutputError: nothing can be written there.
    """
    refuse_folder(path)
    content = data.encode(errors='backslashreplace') if isinstance(data, str) else data
    with writing(path):
        if _is_device(path):
            with path.open('wb') as device:
                device.write(content)
            return
        draft = Draft(_linked(path), overwrite, tidy=False)
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
        Draft(folder / 'draft', overwrite=True, tidy=False).discard()
    except OSError as error:
        raise SettingsError(f'{folder} cannot be written to: {error.strerror}; name another') from error


def refuse_folder(path: Path) -> None:
    """Raises SettingsError where a file cannot be written, because a folder has its name."""
    if path.is_dir():
        raise SettingsError(f'{path} is a folder; name a file in it, such as {path / "figures"}')
