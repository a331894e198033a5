"""The user's cache folder, and a lock for what several processes keep in it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vss_ros.core.errors import SettingsError

DIGITS = 16  # of a digest in a name


def cache_path(name: str) -> Path:
    """`vss_ros/<name>` in the user's cache folder, whether it is there or not.

    Raises:
        SettingsError: the user has no home.
    """
    try:
        home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    except RuntimeError as error:
        raise SettingsError(
            'there is no home folder to keep a cache in; set XDG_CACHE_HOME to a folder of your own'
        ) from error
    return home / 'vss_ros' / name


def cache_folder(name: str) -> Path:
    """The same folder, made if need be, for its user alone.

    Raises:
        OSError: it cannot be made.
        SettingsError: the user has no home.
    """
    folder = cache_path(name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def made_from(model_name: str, content: bytes) -> str:
    """The name of a folder for what is made of a model: another one for other content."""
    return f'{_file_name(model_name)}-{hashlib.sha256(content).hexdigest()[:DIGITS]}'


def all_made(folder: Path, model_name: str) -> list[Path]:
    """The folders in a folder that `made_from` names for a model, whatever of its content they are."""
    return sorted(folder.glob(f'{_file_name(model_name)}-{"[0-9a-f]" * DIGITS}'))


def _file_name(model_name: str) -> str:
    return re.sub(r'[^A-Za-z0-9_.-]', '_', model_name)


@contextmanager
def held(file: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds a lock for this process; a second process waits until the first is done.

    The lock ends with the process, however that ends.

    Args:
        on_wait: called once if somebody else holds the lock.
    """
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if on_wait:
                    on_wait()
                    on_wait = None
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_open_at(handle, file):
                yield
                return
        finally:
            os.close(handle)


def _is_open_at(handle: int, file: Path) -> bool:
    """Whether an open file still has its name. Who comes next would lock the one that has it now."""
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def is_held(file: Path) -> bool:
    """Whether somebody holds that lock just now, or may, where files have no locks."""
    with file.open('rb') as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
