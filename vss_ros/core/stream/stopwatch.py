"""Where the time of a frame goes."""

from __future__ import annotations

import time


class Stopwatch:
    """Wall time from lap to lap."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps_ms[name] = (now - self._last) * 1e3
        self._last = now
