"""Whether there are enough frames to fit to; most that are too few are known before any is read."""

from __future__ import annotations

from collections.abc import Iterable

from vss_ros.core.errors import SourceError

LEAST_PROPAGATED = 30  # for the scheduler
LEAST_CORRECTED = 20  # for the correction
LEAST_PIXELS = 3000  # with labels, for the confidence, and for each age with a temperature of its own


def check_enough(frames: int, least: int, kind: str = 'propagated') -> None:
    """Raises SourceError where the frames of this kind are too few to fit to."""
    if frames < least:
        raise SourceError(
            f'{frames} {kind} frames are too few to fit to; give more frames with --frames, more '
            f'recordings, or labelled stills with --stills ({least} or more beside the key frames)'
        )


def check_labelled(pixels: int) -> None:
    """Raises SourceError where so many labelled pixels are too few to fit the confidence to."""
    if pixels < LEAST_PIXELS:
        raise SourceError(
            'there are too few labelled pixels to fit the confidence to; give clips with labels '
            '(--labels, --mask-topic, synthetic:SEEDxFRAMES), or labelled stills with --stills'
        )


def most_propagated(lengths: Iterable[int], span: int) -> int:
    """How many frames are propagated at most in clips of these lengths, with a key frame every `span`."""
    return sum(length - -(-length // span) for length in lengths)
