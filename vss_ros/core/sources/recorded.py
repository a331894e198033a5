"""Messages of recorded bags, through rosbags: needs no ROS.

Reads rosbag2 folders, single .mcap and .db3 files, and ROS 1 .bag files.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vss_ros.core.errors import FrameError, MissingLibraryError, SourceError

try:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore
except ImportError as error:
    raise MissingLibraryError('rosbags', 'bags', cause=error) from error

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
HEADER: dict[str, type] = {'header.stamp.sec': int, 'header.stamp.nanosec': int, 'header.frame_id': str}
SHAPE: dict[str, type] = {'height': int, 'width': int, 'step': int, 'is_bigendian': int}
FIELDS = {
    IMAGE: {**HEADER, **SHAPE, 'encoding': str, 'data': np.ndarray},
    COMPRESSED: {**HEADER, 'format': str, 'data': np.ndarray},
}
MOST_MESSAGES = 2**48  # of a topic; more are no count
Moment = tuple[int, int]  # see `Recorded.moment`


class Recorded(NamedTuple):
    """A message of a bag, or a FrameError for one that cannot be read, and when it was recorded."""

    message: Any
    at_ns: int

    @property
    def moment(self) -> Moment:
        """The stamp, and what tells messages apart that have none, or 0; by these masks are found.

        Not by `stamp_ns`: where stamps begin at 0, the first message would come after all others.
        """
        stamp = self.message.header.stamp
        stamp_ns = stamp.sec * 10**9 + stamp.nanosec
        return stamp_ns, 0 if stamp_ns else self.at_ns

    @property
    def stamp_ns(self) -> int:
        """The stamp, or the time of recording where a driver left it at 0."""
        return sum(self.moment)


def open_bag(path: Path) -> AnyReader:
    """Opens a bag of any kind; the caller closes it.

    Raises:
        SourceError: it is missing or damaged.
    """
    if path.is_dir() and path.suffix == '.bag':
        raise SourceError(f'{path} is a folder named like a bag of ROS 1, which is a file; rename it')
    reader = None
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
        reader.open()
    except Exception as error:  # rosbags lets through what the storage raises, sqlite3 to struct
        reason = ' '.join(str(error).split()) or type(error).__name__  # that of YAML has several lines
        raise SourceError(f'{path} cannot be read as a bag: {reason}{_advice(path, reason)}') from error
    for connection in reader.connections:
        count = connection.msgcount
        if not isinstance(count, int) or not 0 <= count <= MOST_MESSAGES:
            reader.close()
            raise SourceError(
                f'{path} is damaged: it says that {connection.topic} has {count!r} messages; '
                'run `ros2 bag reindex` first'
            )
    return reader


def _advice(path: Path, reason: str) -> str:
    """What mends a recording that was cut off, as far as rosbags says that it is one."""
    if 'end magic' not in reason:
        return ''
    again = ', then `ros2 bag reindex` on the folder' if path.is_dir() else ''
    return f'; it was cut off, run `mcap recover` on the file first{again}'


def messages_of(path: Path, reader: AnyReader, topic: str) -> Iterator[Recorded]:
    """Messages of a topic in order of recording."""
    recorded = reader.messages(connections=connections_of(reader, topic))
    while True:
        try:
            connection, at_ns, data = next(recorded)
        except StopIteration:
            return
        except Exception as error:  # as in open_bag
            raise SourceError(f'{path} is damaged: {error or type(error).__name__}') from error
        try:
            message = reader.deserialize(data, connection.msgtype)
        except Exception as error:  # so do its generated decoders
            message = FrameError(f'it cannot be decoded: {error or type(error).__name__}')
        else:
            message = _known(message)
        yield Recorded(message, at_ns)


def _known(message: Any) -> Any:
    """The message, or a FrameError where its bag brings a definition along that is not that of ROS."""
    for name, kind in FIELDS[message.__msgtype__].items():
        try:
            fits = isinstance(attrgetter(name)(message), kind)
        except AttributeError:
            fits = False
        if not fits:
            return FrameError(f'it is no {message.__msgtype__} as ROS knows it: {name} is no {kind.__name__}')
    return message


def connections_of(reader: AnyReader, topic: str) -> list[Any]:
    return [entry for entry in _image_connections(reader) if entry.topic == topic]


def _image_connections(reader: AnyReader) -> list[Any]:
    return [entry for entry in reader.connections if entry.msgtype in (IMAGE, COMPRESSED)]


def image_topics(reader: AnyReader) -> list[str]:
    return sorted({entry.topic for entry in _image_connections(reader)})


def pixels_of(message: Any) -> tuple[str, np.ndarray, int, int, int]:
    return message.encoding, message.data, message.height, message.width, message.step
