"""Models that came as weights alone: their graphs are made on first use and kept in the user's cache folder.

So a large network is stored once instead of twice. PyTorch makes the graphs, as `vss export` does; once they
are made it is not needed any more.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vss_ros.core.errors import ModelError, VssError, torch_needed
from vss_ros.core.files.drafts import remove_unfinished
from vss_ros.core.files.user_cache import all_made, cache_folder, cache_path, held, made_from

if TYPE_CHECKING:
    from vss_ros.core.model.folder import ModelFolder

MAKER = 'vss_ros.exporting.export'  # imported when it is needed
SOURCES = [Path(__file__).parents[2] / folder for folder in ('methods', 'exporting')]
ROOM = 3  # times the weights: once as they are, and as fp32 in the graphs, twice as large as fp16
OUTDATED_S = 30 * 24 * 3600  # after which graphs are removed when others of that name are made
_log = logging.getLogger(__name__)


def complete(
    model: ModelFolder, description: bytes, read: Callable[[Path], ModelFolder], make: bool = True
) -> ModelFolder:
    """The same model with its graphs, out of the cache folder, where they are made if need be.

    Args:
        description: the bytes of its model.yaml, which vouch for the weights.
        read: reads and checks a folder.
        make: whether they are made; without, the model is given as it is where they are not there.
    Raises:
        ModelError: the graphs cannot be made or kept; PyTorch cannot be loaded, say.
        MissingLibraryError: they are not made yet, and PyTorch is not installed.
        SettingsError: the user has no home to keep them in.
    """
    try:
        models = cache_path('models')
        folder = models / made_from(model.name, description + _sources())
        if (made := _made(folder, read)) is not None:
            return made  # also from a disk that cannot be written
        if not make:
            return model
        cache_folder('models')
        with held(models / f'{folder.name}.lock', lambda: _log.warning('another process makes %s', folder)):
            remove_unfinished(folder)
            made = _made(folder, read, lambda error: _log.warning('%s; it is made anew', error))
            return made or _make(model, folder, read)
    except OSError as error:
        raise ModelError(
            f'{model.path} came as weights alone, and its graphs cannot be kept: {error}; set XDG_CACHE_HOME '
            f'to a folder that can be written, or make a whole model of it: vss export {model.path} -o FOLDER'
        ) from error


def _made(
    folder: Path, read: Callable[[Path], ModelFolder], on_damage: Callable[[VssError], None] = lambda _: None
) -> ModelFolder | None:
    """What was made before; None if nothing was, or if it is damaged."""
    if not folder.exists():
        return None
    try:
        return read(folder)
    except VssError as error:
        on_damage(error)
        return None


def _make(model: ModelFolder, folder: Path, read: Callable[[Path], ModelFolder]) -> ModelFolder:
    _check_room(model, folder.parent)
    _log.warning('%s came as weights alone; making its graphs, this once', model.name)
    elsewhere = f'make a whole model elsewhere, with: vss export {model.name} -o FOLDER'
    try:
        with torch_needed(f', or {elsewhere}'):
            maker = importlib.import_module(MAKER)
    except (ImportError, OSError) as error:  # it is there, a native library that it needs is not
        raise ModelError(
            f'{model.path} came as weights alone, and PyTorch, which makes its graphs, cannot be loaded: '
            f'{error}; install it anew, or {elsewhere}'
        ) from error
    maker.export_again(model, folder)
    for other in all_made(folder.parent, model.name):
        if time.time() - other.stat().st_mtime > OUTDATED_S:  # of other weights or code
            shutil.rmtree(other, ignore_errors=True)
    return read(folder)


def _check_room(model: ModelFolder, folder: Path) -> None:
    """Raises OSError if the disk is too full: making the graphs would take half a minute to find out."""
    assert model.weights is not None
    needed, free = ROOM * model.weights.stat().st_size, shutil.disk_usage(folder).free
    if free < needed:
        reason = (
            f'{os.strerror(errno.ENOSPC)}: they take about {needed / 1e6:.0f} MB, {free / 1e6:.0f} are free'
        )
        raise OSError(errno.ENOSPC, reason, str(folder))


@cache
def _sources() -> bytes:
    """A digest of the code that says what graphs compute: graphs of another one are not these."""
    digest = hashlib.sha256()
    for file in sorted(file for folder in SOURCES for file in folder.rglob('*.py')):
        digest.update(file.read_bytes())
    return digest.digest()
