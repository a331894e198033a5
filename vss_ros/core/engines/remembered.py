"""A result that is found out once on a machine, and kept in the cache of engines."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vss_ros.core.engines.engine_cache import EngineCache, write_private
from vss_ros.core.errors import VssError

Result = TypeVar('Result')
RESULT = re.compile(r'.+-(trial|check)-[0-9a-f]{12}\.json')  # files of results
_log = logging.getLogger(__name__)


def forget_all(cache: Path) -> list[Path]:
    """Removes all such results from a folder of engines: they will be found out anew. Gives the files."""
    files = [file for file in cache.glob('*.json') if RESULT.fullmatch(file.name)]
    for file in files:
        file.unlink()
    return files


class Remembered:
    """Where such a result lies. A robot with a read-only disk finds it out at every start.

    Args:
        cache: `engine_cache` of the settings.
        name: of the kind of result, for the file; it ends in `-trial` or `-check`.
        facts: all that the result depends on.
        what: it is, in words.
    """

    def __init__(self, cache: str, name: str, facts: Sequence[Any], what: str) -> None:
        self._what = what
        self._file: Path | None = None
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
        try:
            self._file = EngineCache(cache).folder / f'{name}-{key}.json'
        except VssError as error:
            _log.warning('%s; %s is not remembered', error, what)

    def read(self, understood: Callable[[Any], Result]) -> Result | None:
        """What `understood` makes of the result; None if there is none, or it cannot be understood."""
        if self._file is None:
            return None
        try:
            return understood(json.loads(self._file.read_text()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def write(self, result: Any) -> None:
        if self._file is None:
            return
        try:
            write_private(self._file, json.dumps(result, indent=1).encode())
        except OSError as error:
            _log.warning('%s cannot be written (%s); %s is not remembered', self._file, error, self._what)
