"""A table for a terminal."""

from __future__ import annotations

from rich.table import Column, Table

from vss_ros.core.rows import Rows


def draw(table: Rows) -> Table:
    """What does not fit is folded, never cut off; the note is below."""
    words = [Column(heading, overflow='fold') for heading in table.words]
    drawn = Table(*words, title=table.title, caption=table.note or None, min_width=len(table.title))
    for heading in table.figures:
        drawn.add_column(heading, justify='right', overflow='fold')
    for row in table.rows:
        drawn.add_row(*row)
    return drawn
