"""Video files, through PyAV (FFmpeg)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vss_ros.core.encodings import check_size
from vss_ros.core.errors import FrameError, MissingLibraryError, SourceError
from vss_ros.core.frame import Frame
from vss_ros.core.sources.coded_video import LIMITS, Chronicle, hand_out_vectors

try:
    import av
except ImportError as error:
    raise MissingLibraryError('av', 'video', cause=error) from error

LEAST_MISSING = 1.0  # seconds that a video without a count of frames may end early: its sound may be longer
MOST_FRAMES = 10_000_000  # that a header is believed to have; Python makes room for them in advance
# Titles may be in any encoding. PyAV 19 has no such option, and replaces what it cannot read by itself.
METADATA: dict[str, Any] = (
    {'metadata_errors': 'replace'} if int(av.__version__.partition('.')[0]) < 19 else {}
)
_log = logging.getLogger(__name__)
# Files that hold a video themselves. A playlist names others, on the network too, and may wait without end.
FORMATS = (
    'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,h264,hevc,av1,obu,ivf,m4v,mjpeg,flv,ogg,'
    'asf,gif,nut,mxf,yuv4mpegpipe,dv,apng'
)


class VideoSource:
    """Frames of a video's first video stream, upright, stamped with their presentation time.

    Those of H.264, MPEG-4, MPEG-2 and H.263 bring what the video says of motion along, `Frame.coded`.

    A video that ends before its header says is read as far as it goes, with a warning.

    Raises:
        SourceError: the file is missing, has no video or is damaged; while iterating, a frame cannot be
            decoded.
    """

    is_labelled = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._was_read = self._is_cut_off = False
        try:
            self._container: Any = av.open(
                str(path.absolute()),  # or what stands before a colon in the name is taken for a protocol
                **METADATA,
                container_options={'format_whitelist': FORMATS},
            )
        except (av.FFmpegError, OSError) as error:
            raise SourceError(f'{path} cannot be read as a video: {error.strerror or error}') from error
        if not self._container.streams.video:
            self.close()
            raise SourceError(f'{path} has no video in it; give a video, a bag or a folder of images')
        self._stream = self._container.streams.video[0]
        if self._stream.codec_context is None:
            self.close()
            raise SourceError(f'{path} is damaged, or its codec cannot be decoded here; convert it to H.264')
        self._stream.codec_context.options = LIMITS
        self._has_vectors = hand_out_vectors(self._stream.codec_context)
        if not self._has_vectors:
            self._stream.thread_type = 'AUTO'
        try:
            check_size(self._stream.codec_context.height, self._stream.codec_context.width)
        except FrameError as error:
            self.close()
            raise SourceError(f'{path} cannot be used: {error}') from error

    def __length_hint__(self) -> int:
        frames, seconds = self._stream.frames, self._end_s - self._start_s
        if not frames and seconds > 0 and self._stream.average_rate:
            frames = round(seconds * self._stream.average_rate)
        return min(max(frames, 0), MOST_FRAMES)

    def __iter__(self) -> Iterator[Frame]:
        count, stamp_ns = 0, 0
        chronicle = Chronicle() if self._has_vectors else None
        step_ns = round(1e9 / (self._stream.average_rate or 25))
        try:
            if self._was_read:  # some files cannot be read but from their beginning, so not without need
                self._container.seek(0)
            self._was_read = True
            for picture in self._pictures():
                has_time = picture.pts is not None
                stamp_ns = round(picture.pts * picture.time_base * 10**9) if has_time else stamp_ns + step_ns
                count += 1
                coded = () if chronicle is None else (chronicle.of(picture),)
                yield Frame(_upright(picture), stamp_ns, coded=coded)
        except (av.FFmpegError, FrameError) as error:
            reason = getattr(error, 'strerror', None) or error
            raise SourceError(f'{self._path} is damaged after frame {count}: {reason}') from error
        if not count:
            raise SourceError(f'{self._path} holds no frames that can be decoded; it is damaged or cut off')
        self._warn_of_missing_end(count, (stamp_ns + step_ns) / 1e9)

    def _pictures(self) -> Iterator[Any]:
        """Decoded pictures. Only behind the last packet an error is the end: a file is cut off anywhere."""
        failure: av.FFmpegError | None = None
        for packet in self._container.demux(self._stream):
            if failure is not None and packet.size:
                raise failure
            try:
                pictures = packet.decode()
            except av.FFmpegError as error:
                failure = error
            else:
                yield from pictures
        self._is_cut_off = failure is not None

    def _warn_of_missing_end(self, count: int, end: float) -> None:
        frames = self._stream.frames
        if count < frames:
            _log.warning('%s ends after %d of %d frames', self._path, count, frames)
        elif not frames and end < self._end_s - LEAST_MISSING:
            _log.warning('%s ends after %.1f of %.1f seconds', self._path, end, self._end_s)
        elif self._is_cut_off:
            _log.warning('%s ends within a picture, after %d', self._path, count)

    @property
    def _start_s(self) -> float:
        return (self._container.start_time or 0) / av.time_base

    @property
    def _end_s(self) -> float:
        """As the header says; 0 if it does not. Matroska counts from 0, others from the first frame."""
        duration = (self._container.duration or 0) / av.time_base
        return duration if 'matroska' in self._container.format.name else duration + self._start_s

    def close(self) -> None:
        self._container.close()


def _upright(picture: Any) -> np.ndarray:
    """The picture as BGR, turned as the file's display matrix asks."""
    check_size(picture.height, picture.width)  # which may change in the middle of a video
    image = picture.to_ndarray(format='bgr24')
    quarters = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image
