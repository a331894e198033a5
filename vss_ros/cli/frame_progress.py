"""How far a run over many frames is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vss_ros.core.frame import Frame

EVERY_S = 30.0


def say(line: str) -> None:
    """A line on standard error, at once: what is done now."""
    print(line, file=sys.stderr, flush=True)


class FrameProgress:
    """Counts frames on standard error, from `with` to its end.

    Args:
        total: how many there will be, if that is known.
        done: how many of them were done before.
        every_s: seconds from line to line where there is no terminal.
    """

    def __init__(self, total: int | None = None, done: int = 0, every_s: float = EVERY_S) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            Task,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class RateColumn(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(f'{task.speed or 0:.1f} frames/s')

        console = Console(stderr=True)
        columns = [BarColumn(), MofNCompleteColumn(), RateColumn(), TimeElapsedColumn()]
        columns += [TextColumn('left'), TimeRemainingColumn()]
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task('', total=total, completed=done)
        self._every_s, self._told = every_s, time.monotonic()

    def __enter__(self) -> FrameProgress:
        if not self._bar.disable:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._bar.disable:  # rich 12 ends a line that was never begun
            self._bar.stop()

    def advance(self) -> None:
        """One frame more is done."""
        self._bar.advance(self._task)
        if self._bar.disable and time.monotonic() - self._told >= self._every_s:
            self._told = time.monotonic()
            task = self._bar.tasks[0]
            of = f' of {task.total:.0f}' if task.total else ''
            say(f'{task.completed:.0f}{of} frames')

    def through(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The frames, counted as they are taken."""
        for frame in frames:
            yield frame
            self.advance()
