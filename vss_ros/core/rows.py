"""A table before anything draws it: on a terminal, as Markdown, or on a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Rows(NamedTuple):
    """The first columns are words, the others figures.

    Attributes:
        note: a line below.
        together: so many columns of figures in a row belong together.
    """

    title: str
    words: Sequence[str]
    figures: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ''
    together: int = 1
