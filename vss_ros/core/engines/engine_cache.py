"""Engines that were built on this machine, kept for the next start.

An engine is native code that fits one GPU, one runtime version and one ONNX file. It is a copy that can be
made again at any time, so the cache trusts nothing: beside every engine lies a JSON file that says what it
was built from, its sha256 and how it did in the self-check, and all of that is compared before an engine
is loaded. The sha256 finds damage; against strangers it is the folder that protects, which belongs to its
user alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from vss_ros.core.errors import EngineError, SettingsError
from vss_ros.core.files.drafts import PREFIX
from vss_ros.core.files.paths import user_path
from vss_ros.core.files.share import version
from vss_ros.core.files.user_cache import cache_path, held, is_held

FORMAT = 1  # of the sidecars; another number makes every older engine stale
SUFFIX = '.engine'
ABANDONED_S = 3600.0  # after which a draft is taken for one that nobody completes
_STEM = re.compile(r'[^-]+-[^-]+-\d+x\d+-[^-]+-[0-9a-f]{12}')  # see `EngineKey.stem`


@dataclass(frozen=True)
class EngineKey:
    """Everything that a built engine depends on. Two engines of one key are interchangeable.

    Attributes:
        size: (height, width) in pixels of the images that the model takes.
        onnx_sha256: of the file that the engine was built from; it holds shapes, precision and weights.
        runtime: exact version of the runtime, `tensorrt 10.13.3.9`.
        architecture: of the GPU, `sm_87`.
        gpu: its name; GPUs of one architecture differ in what is fastest on them.
        platform: operating system and processor, `linux-aarch64`.
        options: the other choices of the builder.
    """

    model: str
    graph: str
    size: tuple[int, int]
    precision: str
    onnx_sha256: str
    runtime: str
    architecture: str
    gpu: str
    platform: str
    options: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), 'size': list(self.size)}

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()

    @property
    def stem(self) -> str:
        """The name of the engine's file without its suffix."""
        return f'{self.slot}-{self.digest[:12]}'

    @property
    def slot(self) -> str:
        """What engines have in common of which only the newest is wanted."""
        model, graph = (re.sub(r'[^A-Za-z0-9_.]', '_', name) for name in (self.model, self.graph))
        return f'{model}-{graph}-{self.size[0]}x{self.size[1]}-{self.precision}'


@dataclass(frozen=True)
class CachedEngine:
    """One engine of the cache, as its sidecar describes it."""

    file: Path
    key: Mapping[str, Any]
    sha256: str
    size_bytes: int
    facts: Mapping[str, Any]  # build seconds, time of building, our version: told, not compared
    self_check: Mapping[str, Any] | None = None

    @property
    def sidecar(self) -> Path:
        return self.file.with_suffix('.json')

    def differences(self, key: EngineKey) -> list[str]:
        """The fields of the key in which this engine is another one, in words."""
        wanted = key.as_json()
        return [
            f'{name} is {self.key.get(name)!r}, wanted {wanted[name]!r}'
            for name in wanted
            if self.key.get(name) != wanted[name]
        ]


class EngineCache:
    """A folder of engines that only its user can read and write.

    Args:
        folder: the default is `vss_ros/engines` in the user's cache folder.
    Raises:
        EngineError: the folder cannot be made, or belongs to or can be written by somebody else.
        SettingsError: no folder is given, and the user has no home.
    """

    def __init__(self, folder: str | Path = '') -> None:
        self.folder = user_path(folder).absolute() if folder else default_folder()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EngineError(
                f'the engine cache {self.folder} cannot be made: {error.strerror}; '
                'set engine_cache to a folder that can be written'
            ) from error
        _check_private(self.folder)

    def find(self, key: EngineKey) -> CachedEngine | None:
        """The engine of this key, not yet verified; None if there is none or its sidecar tells of another."""
        found = _read(self.folder / f'{key.stem}{SUFFIX}')
        return found if found and not found.differences(key) else None

    def why_stale(self, key: EngineKey) -> list[str]:
        """In what the engines at hand for the same graph differ from the key; empty if there are none."""
        return [text for entry in self.entries(key.slot) for text in entry.differences(key)[:1]]

    def read(self, engine: CachedEngine) -> bytes:
        """An engine's bytes, once they are known to be those that were stored.

        Raises:
            EngineError: the file is missing, damaged, or could have been changed by somebody else.
        """
        try:
            _check_private(engine.file)
            data = engine.file.read_bytes()
        except OSError as error:
            raise EngineError(f'engine {engine.file} cannot be read: {error.strerror}') from error
        if hashlib.sha256(data).hexdigest() != engine.sha256:
            raise EngineError(
                f'engine {engine.file} is damaged: its sha256 is not the one it was stored with'
            )
        return data

    def store(self, key: EngineKey, data: bytes, facts: Mapping[str, Any]) -> CachedEngine:
        """Writes an engine and its sidecar, each complete or not at all."""
        file = self.folder / f'{key.stem}{SUFFIX}'
        made = {'created': datetime.now(timezone.utc).isoformat(timespec='seconds'), 'vss_ros': version()}
        engine = CachedEngine(
            file, key.as_json(), hashlib.sha256(data).hexdigest(), len(data), {**made, **facts}
        )
        engine.sidecar.unlink(missing_ok=True)  # an engine without its sidecar is not found
        write_private(file, data)
        _write_sidecar(engine)
        return engine

    def record_self_check(
        self, engine: CachedEngine, result: Mapping[str, Any], on_wait: Callable[[], None] | None = None
    ) -> None:
        """Writes the result of a self-check into the sidecar, unless that is of a newer engine by now."""
        with self.lock(engine.file.stem, on_wait):
            found = _read(engine.file)
            if found and found.sha256 == engine.sha256:
                _write_sidecar(replace(found, self_check=dict(result)))

    def entries(self, slot: str = '') -> list[CachedEngine]:
        """The engines at hand, newest first; those of one slot if it is given."""
        pattern = f'{slot}-*{SUFFIX}' if slot else f'*{SUFFIX}'
        found = [entry for file in self.folder.glob(pattern) if (entry := _read(file))]
        return sorted(found, key=lambda entry: str(entry.facts.get('created')), reverse=True)

    def prune(self, keep: Callable[[CachedEngine], bool]) -> list[Path]:
        """Removes the engines that are not to be kept, and those without a readable sidecar.

        What building measured goes where no engine is left that was built with it. So do sidecars and locks
        without an engine, and what was being written when the power failed.

        Returns:
            what was removed.
        """
        kept = {entry.file for entry in self.entries() if keep(entry)}
        removed = []
        for file in sorted(self.folder.glob(f'*{SUFFIX}')):
            if file not in kept:
                self.remove(file)
                removed.append(file)
        used = {self.timing_cache(entry.key) for entry in self.entries()}
        unused = set(self.folder.glob('*.timing')) - used
        for file in sorted(unused.union(self._without_engine(), self._unfinished())):
            file.unlink(missing_ok=True)
            removed.append(file)
        return removed

    def _without_engine(self) -> Iterator[Path]:
        """Sidecars and locks that are of no engine. The lock of one that is just being built is held."""
        for file in self.folder.iterdir():
            is_alone = _STEM.fullmatch(file.stem) and not file.with_suffix(SUFFIX).exists()
            with suppress(FileNotFoundError):  # another process has just removed it
                if is_alone and (file.suffix == '.json' or (file.suffix == '.lock' and not is_held(file))):
                    yield file

    def _unfinished(self) -> Iterator[Path]:
        """Drafts that nobody has written to for long, also beside what other runtimes keep here."""
        for file in self.folder.rglob(f'{PREFIX}*'):
            with suppress(FileNotFoundError):  # another process has just completed it
                if file.is_file() and time.time() - file.stat().st_mtime > ABANDONED_S:
                    yield file

    def remove(self, file: Path) -> None:
        """Removes one engine, its sidecar and its lock, should they still be there."""
        for path in (file.with_suffix('.json'), file, file.with_suffix('.lock')):
            path.unlink(missing_ok=True)

    def lock(self, name: str, on_wait: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """Holds one name for this process, see `held`."""
        return held(self.folder / f'{name}.lock', on_wait)

    def timing_cache(self, key: Mapping[str, Any]) -> Path:
        """Where the builder's measurements lie; they hold for one runtime version on one GPU."""
        where = json.dumps([key[name] for name in ('runtime', 'architecture', 'gpu', 'platform')])
        return self.folder / f'{hashlib.sha256(where.encode()).hexdigest()[:12]}.timing'


def default_folder() -> Path:
    """`vss_ros/engines` in the user's cache folder.

    Raises:
        SettingsError: the user has no home.
    """
    try:
        return cache_path('engines')
    except SettingsError as error:
        raise SettingsError('there is no home folder for the engine cache; set engine_cache') from error


def _check_private(path: Path) -> None:
    """Raises EngineError unless the path belongs to this user and nobody else may write it."""
    status = path.stat()
    if status.st_uid != os.getuid():
        raise EngineError(
            f'{path} belongs to another user; an engine is native code, use a folder of your own'
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineError(
            f'{path} can be written by other users, and an engine is native code; run: chmod go-w {path}'
        )


def write_private(file: Path, data: bytes) -> None:
    """Writes a file that only its user can read, complete on the disk or not at all."""
    handle, draft = tempfile.mkstemp(prefix=PREFIX, dir=file.parent)  # mode 0600
    try:
        with os.fdopen(handle, 'wb') as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _write_sidecar(engine: CachedEngine) -> None:
    content = {
        'key': dict(engine.key),
        'sha256': engine.sha256,
        'size_bytes': engine.size_bytes,
        'facts': dict(engine.facts),
        'self_check': engine.self_check,
    }
    write_private(engine.sidecar, json.dumps(content, indent=1).encode())


def _read(file: Path) -> CachedEngine | None:
    """The engine that a file and its sidecar make, or None if they make none."""
    try:
        content = json.loads(file.with_suffix('.json').read_text())
        return CachedEngine(
            file,
            {field.name: content['key'][field.name] for field in fields(EngineKey)},
            str(content['sha256']),
            int(content['size_bytes']),
            dict(content['facts']),
            _self_check_of(content['self_check']),
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _self_check_of(content: Any) -> dict[str, Any] | None:
    """The result of a self-check if it is one; what is none has to be checked again."""
    if not isinstance(content, dict):
        return None
    kinds = {'passed': bool, 'agreement': float, 'error': float, 'worst': str}
    beside = content.get('beside', {})  # graphs that no engine was built of
    is_one = all(type(content.get(name)) is kind for name, kind in kinds.items())
    is_one &= isinstance(beside, dict) and all(_self_check_of(entry) for entry in beside.values())
    return content if is_one else None
