"""What other threads ask of a stream, kept until its own thread begins the next frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from vss_ros.core.settings import StreamSettings


@dataclass(frozen=True)
class Asked:
    """What was asked of a stream since the frame before.

    Attributes:
        settings: those from now on; None: as they are.
        reset_reason: why a new stream begins; None: it does not.
        key_frame: whether the frame is to be computed in full.
    """

    settings: StreamSettings | None = None
    reset_reason: str | None = None
    key_frame: bool = False


class Requests:
    """Any thread asks; the stream's own takes all of it at once, so nothing is lost or taken twice."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._asked = Asked()

    def ask(self, **wanted: Any) -> None:
        """Adds to what is asked, by the names of `Asked`; of two things of one name the later one counts."""
        with self._lock:
            self._asked = replace(self._asked, **wanted)

    def take(self) -> Asked:
        """What was asked since it was taken last."""
        with self._lock:
            asked, self._asked = self._asked, Asked()
        return asked
