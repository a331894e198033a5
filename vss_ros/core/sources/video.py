"""Video files, through PyAV (FFmpeg)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vss_ros.core.encodings import MAX_SIDE
from vss_ros.core.errors import MissingLibraryError, SourceError
from vss_ros.core.frame import Frame
from vss_ros.core.sources.coded_video import Chronicle, hand_out_vectors

try:
    import av
except ImportError as error:
    raise MissingLibraryError('PyAV', 'video') from error

_log = logging.getLogger(__name__)


class VideoSource:
    """Frames of a video's first video stream, upright, stamped with their presentation time.

    Those of H.264, MPEG-4, MPEG-2 and H.263 bring what the video says of motion along, `Frame.coded`.

    A video that ends before its header says is read as far as it goes, with a warning.

    Raises:
        SourceError: the file is missing, has no video or is damaged; while iterating, a frame cannot be
            decoded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._container: Any = av.open(str(path), options={'max_pixels': str(MAX_SIDE * MAX_SIDE)})
        except (av.FFmpegError, OSError) as error:
            raise SourceError(f'{path} cannot be read as a video: {error.strerror or error}') from error
        if not self._container.streams.video:
            self.close()
            raise SourceError(f'{path} has no video in it; give a video, a bag or a folder of images')
        self._stream = self._container.streams.video[0]
        self._has_vectors = hand_out_vectors(self._stream.codec_context)
        if not self._has_vectors:
            self._stream.thread_type = 'AUTO'
        width, height = self._stream.codec_context.width, self._stream.codec_context.height
        if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
            self.close()
            raise SourceError(f'{path} is {width}x{height}; expected sides of 1 to {MAX_SIDE} pixels')

    def __length_hint__(self) -> int:
        if self._stream.frames:
            return self._stream.frames
        if self._container.duration and self._stream.average_rate:
            return round(self._container.duration / av.time_base * self._stream.average_rate)
        return 0

    def __iter__(self) -> Iterator[Frame]:
        count, stamp_ns = 0, 0
        chronicle = Chronicle() if self._has_vectors else None
        step_ns = round(1e9 / (self._stream.average_rate or 25))
        try:
            self._container.seek(0)
            for picture in self._container.decode(self._stream):
                has_time = picture.pts is not None
                stamp_ns = round(picture.pts * picture.time_base * 10**9) if has_time else stamp_ns + step_ns
                count += 1
                coded = () if chronicle is None else (chronicle.of(picture),)
                yield Frame(_upright(picture), stamp_ns, coded=coded)
        except av.FFmpegError as error:
            raise SourceError(
                f'{self._path} is damaged after frame {count}: {error.strerror or error}'
            ) from error
        if not count:
            raise SourceError(f'{self._path} holds no frames that can be decoded; it is damaged or cut off')
        if count < self._stream.frames:
            _log.warning('%s ends after %d of %d frames', self._path, count, self._stream.frames)

    def close(self) -> None:
        self._container.close()


def _upright(picture: Any) -> np.ndarray:
    """The picture as BGR, turned as the file's display matrix asks."""
    image = picture.to_ndarray(format='bgr24')
    quarters = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image
