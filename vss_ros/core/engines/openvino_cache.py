"""OpenVINO's own cache of compiled graphs, with the proof that it lacks: that a file is as it was written.

OpenVINO notices a file that was cut off. Single bytes that have changed it does not notice: it then computes
something else, without a word.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vss_ros.core.engines.engine_cache import EngineCache, write_private
from vss_ros.core.errors import VssError
from vss_ros.core.model_folder import ModelFolder
from vss_ros.core.user_cache import all_made, held, made_from

FOLDER = 'openvino'  # in the engine cache
_log = logging.getLogger(__name__)


@contextmanager
def cache_folder(engine_cache: str, model: ModelFolder, version: str) -> Iterator[Path | None]:
    """A folder of one model in which OpenVINO may keep what it compiles meanwhile, for this process alone.

    What is damaged there is removed before. What was added is noted afterwards, by its sha256.

    Args:
        engine_cache: as in `EngineSettings`.
        version: of OpenVINO.
    Returns:
        None where nothing can be kept, with a warning.
    """
    with ExitStack() as lock:
        folder: Path | None = None
        try:
            folder = EngineCache(engine_cache).folder / FOLDER / _name_of(model, version)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(f'{folder} cannot be written')
            # What another process is writing just now would look damaged.
            lock.enter_context(held(folder / 'lock'))
            _remove_damaged(folder)
        except (VssError, OSError) as error:
            _log.warning('OpenVINO compiles its graphs at every start: %s', error)
            folder = None
        yield folder
        try:
            _note_new(folder)
        except OSError as error:  # the disk is full
            _log.warning('OpenVINO compiles its graphs again at the next start: %s', error)


def prune(engine_cache: str, model_name: str) -> list[Path]:
    """Removes what was compiled of a model, by any OpenVINO; gives the folders."""
    removed = all_made(EngineCache(engine_cache).folder / FOLDER, model_name)
    for folder in removed:
        shutil.rmtree(folder)
    return removed


def _name_of(model: ModelFolder, version: str) -> str:
    files = [graph.sha256 for graph in model.graphs.values()]
    files += [sha256 for graph in model.graphs.values() for _, sha256 in graph.precisions.values()]
    return made_from(model.name, ' '.join([version, *files]).encode())


def _remove_damaged(folder: Path) -> None:
    for blob in folder.glob('*.blob'):
        note = _note_of(blob)
        if not note.is_file() or note.read_bytes() != _sha256(blob):
            _log.warning('%s is damaged or was not completed; it is made again', blob)
            blob.unlink(missing_ok=True)
            note.unlink(missing_ok=True)


def _note_new(folder: Path | None) -> None:
    for blob in folder.glob('*.blob') if folder else ():
        if not _note_of(blob).is_file():
            write_private(_note_of(blob), _sha256(blob))


def _note_of(blob: Path) -> Path:
    return blob.with_suffix('.sha256')


def _sha256(blob: Path) -> bytes:
    return hashlib.sha256(blob.read_bytes()).hexdigest().encode()
