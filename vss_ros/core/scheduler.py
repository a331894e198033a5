"""When a frame is computed in full."""

from __future__ import annotations

from typing import Protocol


class Scheduler(Protocol):
    """Says whether the next frame of a stream is a key frame. Holds no images, only counts."""

    def is_key(self, age_frames: int) -> bool:
        """Whether a frame that would be `age_frames` behind the last key frame is a key frame itself."""
        ...


class FixedInterval:
    """Every n-th processed frame is a key frame; the classic schedule of EVSS, DAVSS and DFF.

    Args:
        frames: 1 makes every frame a key frame.
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def is_key(self, age_frames: int) -> bool:
        return age_frames >= self.frames
