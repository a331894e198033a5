"""Cameras that send compressed video, packet by packet, over a topic.

Every packet must be decoded, since each picture builds on the ones before; which pictures become frames is
decided afterwards. With them comes what the video says of motion, for `motion: stream`.

The messages are read by their fields, as their packages define them. This was tested with real packets in
objects that have these fields, not with the packages themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from std_msgs.msg import Header

from vss_ros.core.errors import FrameError, SettingsError
from vss_ros.core.frame import CodedPicture

if TYPE_CHECKING:
    from vss_ros.core.sources.coded_video import PacketDecoder

PACKETS = 300  # that may wait for the worker: ten seconds at 30 Hz
# What codecs, encoders and transports call a video -> FFmpeg's decoder.
DECODERS = {
    '264': 'h264',
    'avc': 'h264',
    '265': 'hevc',
    'hevc': 'hevc',
    'av1': 'av1',
    'vp9': 'vp9',
    'vp8': 'vp8',
    'mpeg4': 'mpeg4',
}


class Packet(NamedTuple):
    """What a message holds."""

    header: Header
    encoding: str
    data: bytes


class Picture(NamedTuple):
    """The newest picture, and what the video said since the one that was taken before it."""

    header: Header
    codec: str
    image: np.ndarray  # uint8 (H, W, 3) BGR
    coded: tuple[CodedPicture, ...]


def _of_ffmpeg(message: Any) -> Packet:
    """ffmpeg_image_transport_msgs/FFMPEGPacket."""
    return Packet(message.header, message.encoding, bytes(message.data))


def _of_foxglove(message: Any) -> Packet:
    """foxglove_msgs/CompressedVideo."""
    header = Header(stamp=message.timestamp, frame_id=message.frame_id)
    return Packet(header, message.format, bytes(message.data))


class Transport(NamedTuple):
    package: str
    message: str
    read: Callable[[Any], Packet]


VIDEO_TRANSPORTS = {
    'ffmpeg': Transport('ffmpeg_image_transport_msgs', 'FFMPEGPacket', _of_ffmpeg),
    'foxglove': Transport('foxglove_msgs', 'CompressedVideo', _of_foxglove),
}


def message_type(transport: str) -> type:
    """The class of the messages.

    Raises:
        SettingsError: their package is not installed.
    """
    package, message, _ = VIDEO_TRANSPORTS[transport]
    try:
        return getattr(import_module(f'{package}.msg'), message)
    except ImportError as error:
        raise SettingsError(
            f'image_transport is {transport!r}, which needs the messages {package}; install '
            f'ros-$ROS_DISTRO-{package.replace("_", "-")}, or republish the images as raw'
        ) from error


def check_installed(transport: str) -> None:
    """Finds out at configure, not with the first image, whether images can come this way.

    Raises:
        SettingsError, MissingLibraryError: the messages or PyAV are not installed.
    """
    if transport in VIDEO_TRANSPORTS:
        message_type(transport)
        import_module('vss_ros.core.sources.coded_video')


def decoder_of(encoding: str) -> str:
    """`h264`, `libx264`, `hevc_nvenc;yuv420p;bgr8` ... -> what FFmpeg calls the decoder.

    Raises:
        FrameError: it is none that is known.
    """
    name = encoding.partition(';')[0].lower()
    for part, decoder in DECODERS.items():
        if part in name:
            return decoder
    known = ', '.join(sorted(set(DECODERS.values())))
    raise FrameError(f'video is {encoding[:40]!r}; expected one of {known}')


class VideoTopic:
    """Decodes the packets of one topic. Threads: the worker alone.

    Args:
        transport: a key of VIDEO_TRANSPORTS.
    """

    def __init__(self, transport: str) -> None:
        self._read = VIDEO_TRANSPORTS[transport].read
        self._decoder: PacketDecoder | None = None
        self._since: list[CodedPicture] = []

    def newest(self, messages: Iterable[Any]) -> Picture | None:
        """Decodes all these messages; gives the last picture, or None where none was completed.

        Raises:
            FrameError: a packet is damaged or of an unknown codec. These messages are lost, so the video goes
                on at the next key picture.
            MissingLibraryError: PyAV is not installed.
        """
        found = None
        try:
            for message in messages:
                packet = self._read(message)
                for decoded in self._decoder_for(packet.encoding).decode(packet.data, packet.header):
                    self._since += decoded.coded
                    found = decoded
        except FrameError:
            self.restart()
            raise
        if found is None:
            return None
        coded, self._since = tuple(self._since), []
        assert self._decoder is not None
        return Picture(found.label, self._decoder.codec, found.to_bgr(), coded)

    def restart(self) -> None:
        """Packets were lost: what follows is of no use until the next key picture."""
        self._decoder = None

    def _decoder_for(self, encoding: str) -> PacketDecoder:
        from vss_ros.core.sources.coded_video import PacketDecoder

        codec = decoder_of(encoding)
        if self._decoder is None or self._decoder.codec != codec:
            self._decoder, self._since = PacketDecoder(codec), []
        return self._decoder
