"""Decoders that also tell what a compressed video says of motion (FFmpeg, through PyAV)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vss_ros.core.encodings import MAX_SIDE, check_size
from vss_ros.core.errors import FrameError, MissingLibraryError
from vss_ros.core.frame import CodedPicture

try:
    import av
except ImportError as error:
    raise MissingLibraryError('av', 'video', cause=error) from error

WITH_VECTORS = (
    'h264',
    'mpeg4',
    'mpeg2video',
    'h263',
)  # decoders that hand them out; those of HEVC, VP9 do not
INTRA, PREDICTED = 1, 2  # of FFmpeg's kinds of pictures
LIMITS = {'max_pixels': str(MAX_SIDE * MAX_SIDE)}  # a damaged header must not allocate gigabytes
WAITING = 64  # packets whose pictures are still inside the decoder


def hand_out_vectors(decoder: Any) -> bool:
    """Makes a decoder hand out motion vectors, before its first packet; False if its codec has none.

    Its threads then share a picture instead of taking one each: that would delay pictures, and a decoder of
    that kind can hang when it is closed before its end.
    """
    if decoder.name not in WITH_VECTORS:
        return False
    decoder.thread_type = 'SLICE'
    decoder.options = {**decoder.options, 'flags2': '+export_mvs'}
    return True


class Chronicle:
    """Turns what a decoder says of its pictures, in the order they are shown, into `CodedPicture`.

    Vectors are kept of predicted pictures whose picture before, as shown, is the one before as coded: next to
    B pictures a vector spans several pictures or is missing. In a video of I pictures only none is a start.
    """

    def __init__(self) -> None:
        self._count = 0
        self._kind_before: int | None = None

    def of(self, picture: av.VideoFrame) -> CodedPicture:
        kind, before = int(picture.pict_type), self._kind_before
        number, self._count = self._count, self._count + 1
        damaged = bool(picture.is_corrupt)
        self._kind_before = None if damaged else kind
        size = picture.height, picture.width
        if damaged or picture.interlaced_frame or picture.rotation:
            return CodedPicture(number, size)
        if kind == INTRA:
            return CodedPicture(number, size, is_start=before != INTRA)
        if kind != PREDICTED or before not in (INTRA, PREDICTED):
            return CodedPicture(number, size)
        data = picture.side_data.get('MOTION_VECTORS')
        # A predicted picture without any is one of intra blocks only.
        return CodedPicture(number, size, vectors=NO_VECTORS if data is None else data.to_ndarray())


FIELDS = ('source', 'w', 'h', 'dst_x', 'dst_y', 'motion_x', 'motion_y', 'motion_scale')
NO_VECTORS = np.zeros(0, [(name, np.int32) for name in FIELDS])


class Decoded(NamedTuple):
    """A picture that left the decoder."""

    label: Any  # that of the packet it came in
    picture: av.VideoFrame
    coded: tuple[CodedPicture, ...]  # empty where the codec says nothing of motion

    def to_bgr(self) -> np.ndarray:
        """uint8 (H, W, 3).

        Raises:
            FrameError: a side is longer than MAX_SIDE.
        """
        check_size(self.picture.height, self.picture.width)
        return self.picture.to_ndarray(format='bgr24')


class PacketDecoder:
    """Decodes a video that comes packet by packet and may be joined at any time, as on a topic.

    Args:
        codec: what FFmpeg calls the decoder, such as `h264`.
    Raises:
        FrameError: there is no such decoder.
    """

    def __init__(self, codec: str) -> None:
        self.codec = codec
        self._open()

    def _open(self) -> None:
        try:
            self._decoder: Any = av.CodecContext.create(self.codec, 'r')
        except ValueError as error:
            raise FrameError(f'{self.codec!r} is no video that can be decoded; send h264 or h265') from error
        self._decoder.options = LIMITS
        self._decoder.thread_count = 1  # no picture may wait for the next packet
        self._chronicle = Chronicle() if hand_out_vectors(self._decoder) else None
        self._labels: dict[int, Any] = {}
        self._packets = 0
        self._started = False

    def decode(self, data: bytes, label: Any = None) -> list[Decoded]:
        """The pictures that this packet completes, one as a rule, in the order they are shown.

        Packets before the first key picture complete none.

        Args:
            data: one packet: all of one picture.
            label: comes back with the picture of this packet.
        Raises:
            FrameError: the packet is damaged. The decoder then begins anew, at the next key picture.
        """
        if not data:
            raise FrameError(f'a packet of {self.codec} video is empty')  # it would end the stream
        packet = av.Packet(
            len(data)
        )  # not Packet(data): decoders read beyond the end, and must find zeros there
        packet.update(data)
        packet.pts = packet.dts = self._packets
        self._labels[self._packets] = label
        self._packets += 1
        self._labels.pop(self._packets - WAITING, None)  # it completed no picture
        try:
            pictures = self._decoder.decode(packet)
        except av.FFmpegError as error:
            started = self._started
            self._open()
            if not started:
                return []  # joined between key pictures: what it refers to was never seen
            raise FrameError(
                f'a packet of {self.codec} video is damaged: {error.strerror or error}'
            ) from error
        return [decoded for picture in pictures if (decoded := self._told(picture)) is not None]

    def _told(self, picture: av.VideoFrame) -> Decoded | None:
        label = None if picture.pts is None else self._labels.pop(picture.pts, None)
        if not self._started and not picture.key_frame:
            return None  # made up from nothing
        self._started = True
        coded = () if self._chronicle is None else (self._chronicle.of(picture),)
        return Decoded(label, picture, coded)
