"""When a frame is computed in full."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from vss_ros.core.settings import StreamSettings


class Scheduler(Protocol):
    """Says whether a frame of a stream is a key frame. Holds no images, only counts."""

    def is_key(self, age_frames: int, expected_accuracy: float | None = None) -> bool:
        """Whether a frame that would be `age_frames` behind the last key frame is a key frame itself.

        May be asked more than once about a frame, as more becomes known of it.

        Args:
            expected_accuracy: share (0..1) of the pixels that are expected to get the class that
                computing the frame in full would give them, if the frame is propagated; None: not known.
        """
        ...

    def took(self, is_key: bool) -> None:
        """Is told of every frame of the stream, whoever decided on it."""
        ...


class FixedInterval:
    """Every n-th processed frame is a key frame; the classic schedule of EVSS, DAVSS and DFF.

    Args:
        frames: 1 makes every frame a key frame.
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def is_key(self, age_frames: int, expected_accuracy: float | None = None) -> bool:
        return age_frames >= self.frames

    def took(self, is_key: bool) -> None:
        """Every frame is decided on by its age alone."""


class Adaptive:
    """A key frame when a propagated one is expected to be too far from it (DVSNet).

    Of any `key_share_window` consecutive frames at most `max_key_share` are key frames. Those that
    `max_interval`, a new stream or a request demand are exempt, but count.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._before: deque[bool] = deque(maxlen=settings.key_share_window - 1)

    def is_key(self, age_frames: int, expected_accuracy: float | None = None) -> bool:
        settings = self._settings
        if age_frames >= settings.max_interval:
            return True
        if age_frames < settings.min_interval or expected_accuracy is None:
            return False
        # `not >=`, so that an expectation that is no number makes a key frame, too.
        return not expected_accuracy >= settings.key_frame_threshold and self._within_budget()

    def took(self, is_key: bool) -> None:
        self._before.append(is_key)

    def _within_budget(self) -> bool:
        settings = self._settings
        return 1 + sum(self._before) <= settings.max_key_share * settings.key_share_window


def make_scheduler(settings: StreamSettings) -> Scheduler:
    """The scheduler of one stream."""
    if settings.scheduler == 'adaptive':
        return Adaptive(settings)
    return FixedInterval(settings.key_frame_interval)
