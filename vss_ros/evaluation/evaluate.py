"""The loop: every frame of every clip through every protocol, with what was counted saved after each clip."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from vss_ros.core.errors import SettingsError
from vss_ros.core.files.drafts import write_file
from vss_ros.core.frame import Frame
from vss_ros.evaluation.clips import Clip
from vss_ros.evaluation.protocols import ScoringProtocol

FILM = 'film'


class Checkpoint:
    """What was counted up to the end of a clip, in one .npz file (no pickle).

    Args:
        settings: everything that the counts depend on, as JSON takes it.
        resume: whether to take up what the file holds.

    Raises:
        SettingsError: the file cannot be read, or was made with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], resume: bool) -> None:
        self._path = path
        self._settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self.clips_done = 0
        self._arrays: dict[str, np.ndarray] = {}
        if resume and path.exists():
            self._read()

    def restore(self, protocols: Sequence[ScoringProtocol]) -> None:
        """Hands what the file held to those who counted it.

        Raises:
            SettingsError: something of it is missing, or of another shape.
        """
        if not self.clips_done:
            return
        try:
            for protocol in protocols:
                counts = self._of(protocol.name)
                if lost := sorted(protocol.arrays().keys() - counts.keys()):
                    raise ValueError(f'{protocol.name}/{lost[0]} is missing')
                protocol.add(counts)
                if protocol.film is not None:
                    protocol.film.restore(self._of(f'{FILM}-{protocol.name}'))
        except (LookupError, TypeError, ValueError) as error:
            raise self._damaged(error) from error
        self._arrays = {}

    def save(self, clips_done: int, protocols: Sequence[ScoringProtocol]) -> None:
        """Writes the file anew."""
        arrays: dict[str, Any] = {}
        for protocol in protocols:
            arrays |= _under(protocol.name, protocol.arrays())
            if protocol.film is not None:
                arrays |= _under(f'{FILM}-{protocol.name}', protocol.film.arrays())
        buffer = io.BytesIO()
        # A zip holds names in UTF-8, which that of a model's folder need not be.
        named = {quote(name, errors='surrogateescape'): values for name, values in arrays.items()}
        np.savez(buffer, settings=np.array(self._settings), clips_done=np.array(clips_done), **named)
        write_file(self._path, buffer.getvalue())

    def remove(self) -> None:
        """Once the report is written nobody needs it."""
        self._path.unlink(missing_ok=True)

    def _of(self, owner: str) -> dict[str, np.ndarray]:
        start = f'{owner}/'
        return {key[len(start) :]: value for key, value in self._arrays.items() if key.startswith(start)}

    def _damaged(self, reason: Exception | str) -> SettingsError:
        return SettingsError(f'{self._path} is damaged ({reason}); remove it and start again')

    def _read(self) -> None:
        try:
            with np.load(self._path, allow_pickle=False) as file:
                self._arrays = {unquote(name, errors='surrogateescape'): file[name] for name in file}
            settings, self.clips_done = str(self._arrays['settings']), int(self._arrays['clips_done'])
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise self._damaged(error) from error
        if self.clips_done < 0:
            raise self._damaged(f'{self.clips_done} clips are done')
        if settings != self._settings:
            raise SettingsError(
                f'{self._path} was made with other models, data or settings; give those again, '
                'or leave --resume out to start again'
            )


def evaluate(
    clips: Sequence[Clip],
    protocols: Sequence[ScoringProtocol],
    checkpoint: Checkpoint | None = None,
    on_frame: Callable[[Frame], None] = lambda _: None,
) -> None:
    """Scores all clips. Memory does not grow with their number or length.

    Args:
        checkpoint: its clips are not read again; it is saved after every clip.
        on_frame: is given every frame, once it is scored.
    """
    contexts = [protocol.context for protocol in protocols]
    before = None if None in contexts else max(context for context in contexts if context is not None)
    after = max(protocol.following for protocol in protocols)
    done = 0
    if checkpoint is not None:
        checkpoint.restore(protocols)
        done = checkpoint.clips_done
    for index in range(done, len(clips)):
        for protocol in protocols:
            protocol.start_clip(clips[index].name, index)
        for number, frame in clips[index].frames(before, after):
            for protocol in protocols:
                protocol.take(number, frame)
            on_frame(frame)
        for protocol in protocols:
            protocol.end_clip()
        if checkpoint is not None:
            checkpoint.save(index + 1, protocols)


def _under(owner: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f'{owner}/{name}': values for name, values in arrays.items()}
