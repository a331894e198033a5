"""Tables for a terminal, and for files that its output goes to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

if TYPE_CHECKING:
    from vss_ros.core.rows import Rows

UNLIMITED = 1000  # columns; where nobody watches, nothing need be folded
LEAST_WORDS = 20  # columns that a name keeps before figures go to a table below
AROUND = 3  # columns that a cell takes beside its text


def make_console() -> Console:
    """A console that prints texts as they are, as wide as the terminal, or as COLUMNS says."""
    is_limited = sys.stdout.isatty() or 'COLUMNS' in os.environ
    return Console(highlight=False, markup=False, width=None if is_limited else UNLIMITED)


def show(table: Rows, console: Console) -> None:
    """Prints a table: names are folded where there is no room, figures never.

    Where it is too wide all the same, columns without any figure are left out, and what still has no room is
    printed as a table of its own below, with the names again.
    """
    parts = list(_parts(table, console.width))
    for number, columns in enumerate(parts):
        console.print(_drawn(table, columns, has_title=number == 0, has_note=number == len(parts) - 1))


def _drawn(table: Rows, columns: Sequence[int], has_title: bool, has_note: bool) -> Table:
    words = [Column(heading, overflow='fold') for heading in table.words]
    title, note = table.title if has_title else None, table.note if has_note else None
    drawn = Table(*words, title=title, caption=note or None, min_width=len(title or ''))
    for column in columns:
        drawn.add_column(table.figures[column], justify='right', no_wrap=True)
    for row in table.rows:
        figures = row[len(table.words) :]
        drawn.add_row(*row[: len(table.words)], *(figures[column] for column in columns))
    return drawn


def _parts(table: Rows, width: int) -> Iterator[list[int]]:
    """Numbers of the columns of figures that fit beside the names, in one table or in several."""
    count = len(table.words)
    widths = [
        AROUND + _width(cells) for cells in zip((*table.words, *table.figures), *table.rows, strict=True)
    ]
    room = width - 1 - sum(min(each, LEAST_WORDS) for each in widths[:count])
    figures = list(range(len(table.figures)))
    if sum(widths[count:]) > room:
        figures = [each for each in figures if any(row[count + each] != '-' for row in table.rows)]
    part: list[int] = []
    for group in sorted({each // table.together for each in figures}):
        columns = [each for each in figures if each // table.together == group]
        if part and sum(widths[count + each] for each in (*part, *columns)) > room:
            yield part
            part = []
        part += columns
    yield part


def _width(cells: Sequence[str]) -> int:
    return max(len(line) for cell in cells for line in (cell.splitlines() or ['']))
