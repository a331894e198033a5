"""Sources give frames: image folders, videos, bags, synthetic streets, topics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from vss_ros.core.frame import Frame


class Source(Protocol):
    """Gives frames in order. `operator.length_hint` tells how many, where that is known.

    Attributes:
        is_labelled: whether frames may come with their truth.
    """

    @property
    def is_labelled(self) -> bool: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None: ...
