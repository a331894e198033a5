"""Whether there are enough frames to fit to; most that are too few are known before any is read."""

from __future__ import annotations

from collections.abc import Iterable

from vss_ros.core.errors import SourceError

LEAST_PROPAGATED = 30  # for the scheduler
LEAST_CORRECTED = 20  # for the correction


def check_enough(frames: int, least: int, kind: str = 'propagated') -> None:
    """Raises SourceError where the frames of this kind are too few to fit to."""
    if frames < least:
        raise SourceError(
            f'{frames} {kind} frames are too few to fit to; give more frames with --frames, more '
            f'recordings, or labelled stills with --stills ({least} or more beside the key frames)'
        )


def most_propagated(lengths: Iterable[int], span: int) -> int:
    """How many frames are propagated at most in clips of these lengths, with a key frame every `span`."""
    return sum(length - -(-length // span) for length in lengths)
