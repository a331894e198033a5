"""Compiled graphs that runtimes keep by themselves, with the proof they lack: that a file is as written.

OpenVINO notices a file that was cut off. Single bytes that have changed it does not notice: it then computes
something else, without a word. ONNX Runtime takes any engine of TensorRT that lies there, and that is native
code.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vss_ros.core.engines.engine_cache import EngineCache, write_private
from vss_ros.core.errors import VssError
from vss_ros.core.files.user_cache import all_made, held, made_from
from vss_ros.core.model.folder import ModelFolder

FOLDER = 'openvino'  # in the engine cache
_log = logging.getLogger(__name__)


@contextmanager
def cache_folder(engine_cache: str, model: ModelFolder, version: str) -> Iterator[Path | None]:
    """A folder of one model in which OpenVINO may keep what it compiles meanwhile, see `guarded`.

    Args:
        engine_cache: as in `EngineSettings`.
        version: of OpenVINO.
    Returns:
        None where nothing can be kept, with a warning.
    """
    with ExitStack() as guard:
        folder: Path | None = None
        try:
            folder = EngineCache(engine_cache).folder / FOLDER / _name_of(model, version)
            guard.enter_context(guarded(folder, ['*.blob']))
        except (VssError, OSError) as error:
            _log.warning('OpenVINO compiles its graphs at every start: %s', error)
            folder = None
        yield folder


@contextmanager
def guarded(
    folder: Path, patterns: Sequence[str], on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """A folder, made if need be, in which a runtime may keep files meanwhile, for this process alone.

    What is damaged there is removed before. What is there afterwards is noted by its sha256, or removed again
    after an error.

    Args:
        patterns: of the names of these files.
        on_wait: called once if another process is at work there.
    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f'{folder} cannot be written')
    with held(folder / 'lock', on_wait):  # what another process is writing just now would look damaged
        for file in _files(folder, patterns):
            if not _is_noted(file):
                _log.warning('%s is damaged or was not completed; it is made again', file)
                file.unlink(missing_ok=True)
                _note_of(file).unlink(missing_ok=True)
        try:
            yield
        except BaseException:  # of a file that was being written nobody knows whether it is whole
            with suppress(OSError):
                for file in _files(folder, patterns):
                    if not _is_noted(file):
                        file.unlink()
            raise
        try:
            for file in _files(folder, patterns):
                if not _is_noted(file):  # it is new, or was written again
                    write_private(_note_of(file), _sha256(file))
        except OSError as error:  # the disk is full
            _log.warning('%s is made again at the next start: %s', folder, error)


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


def _files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return [file for pattern in patterns for file in folder.glob(pattern)]


def _is_noted(file: Path) -> bool:
    note = _note_of(file)
    return note.is_file() and note.read_bytes() == _sha256(file)


def _note_of(file: Path) -> Path:
    return file.with_name(f'{file.name}.sha256')


def _sha256(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).hexdigest().encode()
