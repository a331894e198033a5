"""A stream that is segmented region by region, so that only where it is needed a frame is computed in full.

DVSNet cuts frames into regions that overlap a little and decides on each by itself. Here each region has a
segmenter of its own, with its own state and scheduler, which sees its part of the image at the model's size;
all share one engine. So this works with every method whose results are not late, and none knows of it.

A pixel of an overlap belongs to the region whose centre is nearer: regions are worst at their borders, where
they see one side only. It is not the more confident one that is taken, because scores that were propagated
for long may be as sure as fresh ones, and the seam would jump about from frame to frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vss_ros.core.errors import FrameError, ModelError
from vss_ros.core.frame import Answer, Frame, Segmentation
from vss_ros.core.settings import StreamSettings
from vss_ros.core.stream.requests import Requests
from vss_ros.core.stream.resets import ERROR, REQUESTED, SIZE_CHANGED
from vss_ros.core.stream.stopwatch import Stopwatch

if TYPE_CHECKING:
    from vss_ros.core.stream.background import BackgroundKeyFrames
    from vss_ros.core.stream.segmenter import VideoSegmenter


class RegionSegmenter(AbstractContextManager['RegionSegmenter']):
    """Segments one camera stream region by region; is used like a `VideoSegmenter`.

    `step`, or `answers` and `flush`, belong to one thread, which alone tells the segmenters of the regions
    what was asked. `reset`, `request_key_frame` and `configure` may be used from any other.

    Args:
        segmenters: one for each region, row by row, with the same model and settings.

    Raises:
        ModelError: the model gives its results late.
    """

    background: BackgroundKeyFrames | None = None  # settings allow none beside regions
    given_up = 0  # nothing is ever owed
    closes_engine = False  # see `VideoSegmenter`

    def __init__(self, segmenters: Sequence[VideoSegmenter]) -> None:
        first = segmenters[0]
        self.model, self.engine, self.settings = first.model, first.engine, first.settings
        if self.model.delay_frames:
            raise ModelError(
                f'{self.model.name} gives its results {self.model.delay_frames} frames late and cannot be '
                'run in regions; set regions to 1x1'
            )
        if self.model.flow_of(self.settings.motion) == 'stream':
            raise ModelError(
                f'{self.model.name} takes the motion vectors of a video, which are those of whole images; '
                'set regions to 1x1 or motion to dis'
            )
        self._segmenters = segmenters
        self._size: tuple[int, int] | None = None
        self._requests = Requests()  # which all regions take with the same frame

    @property
    def resets(self) -> Counter[str]:
        """How often a new stream began, by reason; it begins in all regions at once."""
        return self._segmenters[0].resets

    def check(self, settings: StreamSettings) -> None:
        """Raises ModelError if `configure` could not take these settings."""
        self._segmenters[0].check(settings)

    def configure(self, settings: StreamSettings) -> None:
        """Takes new settings for the frames to come, see `VideoSegmenter.configure`."""
        settings = self.settings.changed_to(settings)
        self.check(settings)
        self._requests.ask(settings=settings)

    def reset(self, reason: str = REQUESTED) -> None:
        """Makes the next frame the first of a new stream."""
        self._requests.ask(reset_reason=reason)

    def close(self) -> None:
        """The segmenter is not used afterwards."""
        for segmenter in self._segmenters:
            segmenter.close()
        if self.closes_engine:
            self.engine.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def request_key_frame(self) -> None:
        """Makes the next frame a key frame in all regions."""
        self._requests.ask(key_frame=True)

    def answers(self, frame: Frame) -> Iterator[Answer]:
        """Segments the next frame of the stream and gives its answer."""
        yield Answer(frame, self.step(frame))

    def flush(self) -> Iterator[Answer]:
        """Nothing is ever owed."""
        yield from ()

    def step(self, frame: Frame) -> Segmentation:
        """Segments the next frame of the stream.

        An error leaves the segmenter usable: the next frame starts a new stream.

        Raises:
            FrameError: there are more regions than rows or columns of pixels.
        """
        clock = Stopwatch()
        try:
            regions = split(frame.size, self.settings)
            self._hand_on(frame.size)
            crops = [_crop(frame, region) for region in regions]
            clock.lap('resize')
            parts = [segmenter.step(crop) for segmenter, crop in zip(self._segmenters, crops, strict=True)]
        except Exception:
            self.reset(ERROR)  # some regions may have gone on, others have not
            raise
        return _merged(parts, regions, clock)

    def _hand_on(self, size: tuple[int, int]) -> None:
        """Tells every region what was asked of the stream since the frame before."""
        asked = self._requests.take()
        reason = asked.reset_reason
        if reason is None and self._size not in (None, size):
            reason = SIZE_CHANGED  # regions of images of different sizes may be of one size
        self._size, self.settings = size, asked.settings or self.settings
        for segmenter in self._segmenters:
            if asked.settings is not None:
                segmenter.configure(asked.settings)
            if reason is not None:
                segmenter.reset(reason)
            if asked.key_frame:
                segmenter.request_key_frame()


class Region(NamedTuple):
    """Rows and columns of the image that a region sees, and those of them that it answers for."""

    seen: tuple[slice, slice]
    kept: tuple[slice, slice]


def split(size: tuple[int, int], settings: StreamSettings) -> list[Region]:
    """The regions of an image of (height, width), row by row, all of one size.

    Raises:
        FrameError: there are more regions than rows or columns of pixels.
    """
    rows, columns = settings.region_grid
    height, width = size
    if height < rows or width < columns:
        raise FrameError(
            f'image is {width}x{height}, too small for {settings.regions} regions; set regions to 1x1'
        )
    down = _spans(height, rows, settings.region_overlap)
    across = _spans(width, columns, settings.region_overlap)
    return [
        Region((seen_rows, seen_columns), (kept_rows, kept_columns))
        for seen_rows, kept_rows in down
        for seen_columns, kept_columns in across
    ]


def merge(parts: Sequence[np.ndarray], regions: Sequence[Region]) -> np.ndarray:
    """The whole map, (H, W), of what the regions see, each pixel from the region that answers for it."""
    bottom, right = (kept.stop for kept in regions[-1].kept)
    whole = np.empty((bottom, right), parts[0].dtype)
    for part, (seen, kept) in zip(parts, regions, strict=True):
        rows, columns = (
            slice(inner.start - outer.start, inner.stop - outer.start)
            for inner, outer in zip(kept, seen, strict=True)
        )
        whole[kept] = part[rows, columns]
    return whole


def _spans(length: int, parts: int, overlap: float) -> list[tuple[slice, slice]]:
    """For each part of a row of pixels: where it is seen, and from seam to seam, where it is kept."""
    side = min(length, max(-(-length // parts), round(length * (1 + overlap) / parts)))
    starts = [number * (length - side) // max(parts - 1, 1) for number in range(parts)]
    between = [(before + side + after) // 2 for before, after in pairwise(starts)]
    seams = [0, *between, length]
    return [
        (slice(start, start + side), slice(seam, after))
        for start, (seam, after) in zip(starts, pairwise(seams), strict=True)
    ]


def _crop(frame: Frame, region: Region) -> Frame:
    """What a region sees, as a frame; without motion vectors of a video, which are those of whole images."""
    return Frame(frame.image[region.seen], frame.stamp_ns, frame.camera, frame.encoding)


def _merged(parts: Sequence[Segmentation], regions: Sequence[Region], cropping: Stopwatch) -> Segmentation:
    """One answer for the frame out of those of its regions.

    Args:
        cropping: with the time of it, as part of `resize`.
    """
    merging = Stopwatch()
    mask = merge([part.mask for part in parts], regions)
    confidence = merge([part.confidence for part in parts], regions)
    merging.lap('output')
    timings: Counter[str] = Counter()
    for laps in (cropping.laps_ms, *(part.timings_ms for part in parts), merging.laps_ms):
        timings.update(laps)
    reads_distortion = any(part.read_distortion is not None for part in parts)
    return Segmentation(
        mask=mask,
        model_confidence=confidence,
        is_key=all(part.is_key for part in parts),
        is_carried=all(part.is_carried for part in parts),
        age_frames=max(part.age_frames for part in parts),
        age_ns=max(part.age_ns for part in parts),
        stamp_ns=parts[0].stamp_ns,
        reset_reason=parts[0].reset_reason,
        timings_ms=dict(timings),
        corrected_share=_mean([part.corrected_share for part in parts], of_key=0.0),
        expected_accuracy=_mean([part.expected_accuracy for part in parts], of_key=1.0),
        read_distortion=(
            (lambda: merge([part.distortion() for part in parts], regions)) if reads_distortion else None
        ),
        key_regions=tuple(part.is_key for part in parts),
    )


def _mean(shares: Sequence[float | None], of_key: float) -> float | None:
    """The share of the whole frame; None if no region has one.

    Args:
        of_key: that of a region that was computed in full.
    """
    if all(share is None for share in shares):
        return None
    return float(np.mean([of_key if share is None else share for share in shares]))
