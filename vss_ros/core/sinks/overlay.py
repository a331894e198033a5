"""A video of the images with the masks' colours over them, through PyAV (FFmpeg)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.drawing import overlay_result
from vss_ros.core.errors import MissingLibraryError, SettingsError
from vss_ros.core.files.drafts import Draft
from vss_ros.core.frame import Frame, Segmentation
from vss_ros.core.resize import fit

try:
    import av
    from av.video.reformatter import ColorRange, Colorspace
except ImportError as error:
    raise MissingLibraryError('av', 'video', cause=error) from error

TICKS = 60_000  # per second; MPEG-4 allows at most 65535, and the usual frame rates divide this
MAX_GAP_S = 3600  # MP4 cannot hold more than ten hours, and nobody waits that long for the next picture
CODEC_OPTIONS = {'libx264': {'crf': '20', 'preset': 'veryfast'}, 'mpeg4': {'qmin': '3', 'qmax': '3'}}


class OverlaySink:
    """Writes an overlay video: H.264, or MPEG-4 where this FFmpeg has no encoder for it.

    Frames keep the time between their stamps, up to an hour. A frame of another size than the first is
    resized to it.

    Args:
        path: ends in .mp4 or .mkv.
        alpha: 0 shows only the image, 1 only the colours.

    Raises:
        SettingsError: the file exists and may not be replaced, or alpha is out of range.
    """

    def __init__(self, path: Path, classes: ClassSet, alpha: float = 0.5, overwrite: bool = False) -> None:
        if not 0 <= alpha <= 1:
            raise SettingsError(f'overlay alpha is {alpha}; use a value from 0 (image) to 1 (colours)')
        self._classes = classes
        self._alpha = alpha
        self._draft = Draft(path, overwrite)
        try:
            # Absolute, or what stands before a colon in the name would be taken for a protocol.
            self._container: Any = av.open(str(self._draft.path.absolute()), 'w')
        except BaseException:
            self._draft.discard()
            raise
        self._stream: Any = None
        self._size = (0, 0)  # height, width; of the first frame
        self._first_ns = 0
        self._ticks = -1  # of the frame written last

    def write(self, frame: Frame, segmentation: Segmentation) -> None:
        if self._stream is None:
            self._start(frame)
        picture = overlay_result(frame.image, segmentation, self._classes, self._alpha)
        picture = fit(picture, self._size)
        ticks = round((frame.stamp_ns - self._first_ns) * TICKS / 1e9)
        if not 0 < ticks - self._ticks <= MAX_GAP_S * TICKS:  # back, or years ahead: go on from here
            ticks = self._ticks + TICKS // 25
            self._first_ns = frame.stamp_ns - ticks * 10**9 // TICKS
        self._ticks = ticks
        image = av.VideoFrame.from_ndarray(_planes(picture), format='yuv420p')
        image.pts, image.time_base = ticks, Fraction(1, TICKS)
        self._container.mux(self._stream.encode(image))

    def close(self) -> None:
        """Completes the video. Nothing is written if there was no frame."""
        if self._stream is None:
            self.discard()
            return
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._draft.publish()

    def discard(self) -> None:
        try:
            self._container.close()
        finally:
            self._draft.discard()

    def _start(self, frame: Frame) -> None:
        height, width = frame.size
        codec = _codec()
        stream = self._container.add_stream(codec, rate=25, options=CODEC_OPTIONS[codec])
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = 'yuv420p'
        stream.codec_context.time_base = Fraction(1, TICKS)
        # Players take HD without these for BT.709, and show other colours.
        stream.codec_context.colorspace = Colorspace.ITU601
        stream.codec_context.color_range = ColorRange.MPEG
        self._stream, self._size, self._first_ns = stream, frame.size, frame.stamp_ns


def _codec() -> str:
    for name in CODEC_OPTIONS:
        try:
            av.Codec(name, 'w')
        except ValueError:
            continue
        return name
    raise SettingsError(
        f'this PyAV can encode none of {", ".join(CODEC_OPTIONS)}; install the wheel from PyPI'
    )


def _planes(image: np.ndarray) -> np.ndarray:
    """YUV 4:2:0, by OpenCV: FFmpeg's own conversion makes white slightly green.

    Colour is stored for 2x2 pixels, so the last row and column are repeated where a side is odd.
    """
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)
