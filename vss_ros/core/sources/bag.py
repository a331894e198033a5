"""Recorded bags, through rosbags: needs no ROS.

Reads rosbag2 folders, single .mcap and .db3 files, and ROS 1 .bag files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vss_ros.core.encodings import decode_compressed, decode_labels, to_bgr, to_labels
from vss_ros.core.errors import FrameError, MissingLibraryError, SourceError
from vss_ros.core.frame import Frame

try:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore
except ImportError as error:
    raise MissingLibraryError('rosbags', 'bags') from error

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
HEADER: dict[str, type] = {'header.stamp.sec': int, 'header.stamp.nanosec': int, 'header.frame_id': str}
SHAPE: dict[str, type] = {'height': int, 'width': int, 'step': int, 'is_bigendian': int}
FIELDS = {
    IMAGE: {**HEADER, **SHAPE, 'encoding': str, 'data': np.ndarray},
    COMPRESSED: {**HEADER, 'format': str, 'data': np.ndarray},
}
MOST_MESSAGES = 2**48  # of a topic; more are no count
Moment = tuple[int, int]  # see `_Recorded.moment`
_log = logging.getLogger(__name__)


class BagSource:
    """Frames of one image topic, with the stamp and the frame_id of their headers.

    Where a driver left the stamp at 0, the time of recording stands in for it, so that a pause is seen.
    A damaged message is skipped, as the live node does; of the first it is told, at the end of how many.

    Args:
        path: a bag.
        topic: the image topic; None takes the only one there is.
        mask_topic: topic of mono8 masks, as they are or as PNG, in order of their stamps; a mask is the truth
            of the image with the same stamp, or of the image recorded at the same time where both have none.
            One that cannot be used is left out, which is told in the same way; at the end it is told how many
            belong to no image.

    Raises:
        SourceError: the bag is missing or damaged, the topic is missing or must be chosen; while
            iterating, two masks have one stamp; after the last message, if none of them could be used.
    """

    def __init__(self, path: Path, topic: str | None = None, mask_topic: str | None = None) -> None:
        self._path = path
        self._reader = open_bag(path)
        try:
            self.topic = self._choose(topic, mask_topic)
            self._masks = None if mask_topic is None else _Masks(path, self._check(mask_topic))
        except SourceError:
            self._reader.close()
            raise

    def __len__(self) -> int:
        return sum(connection.msgcount for connection in _connections(self._reader, self.topic))

    def __iter__(self) -> Iterator[Frame]:
        used, skipped, last_error = 0, 0, None
        if self._masks is not None:
            self._masks.rewind()
        for number, recorded in enumerate(_messages(self._path, self._reader, self.topic), start=1):
            try:
                frame = self._frame(recorded)
            except FrameError as error:
                last_error = error
                skipped += 1
                if skipped == 1:
                    _log.warning('%s: message %d of %s is skipped: %s', self._path, number, self.topic, error)
                continue
            used += 1
            yield frame
        if skipped > 1:
            _log.warning('%s: %d messages of %s were skipped', self._path, skipped, self.topic)
        if self._masks is not None:
            self._masks.tell_left_out()
        if last_error is not None and not used:
            raise SourceError(f'{self._path}: no message of {self.topic} can be used: {last_error}')

    def close(self) -> None:
        self._reader.close()
        if self._masks is not None:
            self._masks.close()

    def _frame(self, recorded: _Recorded) -> Frame:
        message = recorded.message
        if isinstance(message, FrameError):
            raise message
        if message.__msgtype__ == COMPRESSED:
            image, encoding = decode_compressed(message.data, message.format), message.format
        else:
            image, encoding = to_bgr(*_fields(message), bool(message.is_bigendian)), message.encoding
        frame = Frame(image, recorded.stamp_ns, message.header.frame_id, encoding)
        return frame if self._masks is None else self._masks.label(frame, recorded.moment)

    def _choose(self, topic: str | None, mask_topic: str | None) -> str:
        if topic is not None:
            return self._check(topic)
        topics = [name for name in _image_topics(self._reader) if name != mask_topic]
        if len(topics) == 1:
            return topics[0]
        if not topics:
            raise SourceError(
                f'{self._path} has no image topic; expected messages of {IMAGE} or {COMPRESSED}'
            )
        raise SourceError(
            f'{self._path} has several image topics; choose one with --topic: {", ".join(topics)}'
        )

    def _check(self, topic: str) -> str:
        topics = _image_topics(self._reader)
        if topic not in topics:
            known = ', '.join(topics) or 'none'
            raise SourceError(f'{self._path} has no image topic {topic}; its image topics are: {known}')
        return topic


class _Recorded(NamedTuple):
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


class _Masks:
    """Finds the mask of a stamp while images and masks are read side by side, each in order of its stamps.

    A mask that is out of order may find its image passed by; that is told once.
    """

    def __init__(self, path: Path, topic: str) -> None:
        self._path = path
        self._topic = topic
        self._reader = open_bag(path)  # its own: a reader keeps one place in the file

    def rewind(self) -> None:
        """Begins with the first mask; called before `label`."""
        self._messages = _messages(self._path, self._reader, self._topic)
        self._latest: dict[str, Moment] = {}
        self._count = self._left_out = self._unused = 0
        self._first_unused: Moment = 0, 0  # if there is one
        self._in_order = self._all_stamped = self._all_differ = True
        self._ahead = self._next()  # the first mask not yet passed by
        self._is_used = False  # the same one
        self._after = self._next()

    def label(self, frame: Frame, moment: Moment) -> Frame:
        """The frame of an image recorded so with its mask as truth, if there is one that can be used."""
        try:
            truth = self._at(moment)
            return frame if truth is None else replace(frame, truth=truth)
        except FrameError as error:
            self._leave_out(frame.stamp_ns, error)
            return frame

    def tell_left_out(self) -> None:
        """Tells how many masks could not be used, where it is not told yet, and how many have no image."""
        while self._ahead is not None:
            self._pass_by()
        if self._left_out > 1:
            _log.warning('%s: %d masks of %s were left out', self._path, self._left_out, self._topic)
        if self._unused:
            _log.warning(
                '%s: %d of %d masks of %s were used for no image, that at %s s for example; a mask is found '
                'by the stamp of its image, to the nanosecond',
                self._path,
                self._unused,
                self._count,
                self._topic,
                _seconds(self._first_unused),
            )

    def _at(self, moment: Moment) -> np.ndarray | None:
        """The mask of this moment, uint8 (H, W), or None. Moments are asked for in rising order."""
        self._check_order('images', moment)
        while self._ahead is not None and self._ahead.moment < moment:
            self._pass_by()
        if self._ahead is None or self._ahead.moment != moment:
            self._tell_unstamped(moment)
            return None
        if self._after is not None and self._after.moment == moment:
            raise SourceError(
                f'{self._path}: two masks of {self._topic} have the stamp {sum(moment) / 1e9:.3f} s, '
                'by which that of an image is found; leave out --mask-topic, or record with the stamps of a '
                'camera'
            )
        if self._is_used:
            self._tell_same(moment)
        self._is_used = True
        mask = self._ahead.message
        if mask.__msgtype__ == COMPRESSED:
            return decode_labels(mask.data)
        return to_labels(*_fields(mask))

    def close(self) -> None:
        self._reader.close()

    def _pass_by(self) -> None:
        """Goes on to the next mask; one that was used for no image is counted."""
        if self._ahead is not None and not self._is_used:
            if not self._unused:
                self._first_unused = self._ahead.moment
            self._unused += 1
        self._ahead, self._after, self._is_used = self._after, self._next(), False

    def _leave_out(self, at_ns: int, error: FrameError) -> None:
        self._left_out += 1
        if self._left_out == 1:
            _log.warning(
                '%s: the mask of %s at %.3f s is left out: %s', self._path, self._topic, at_ns / 1e9, error
            )

    def _tell_same(self, moment: Moment) -> None:
        if self._all_differ:
            self._all_differ = False
            _log.warning(
                '%s: two images have the stamp %s s, and the mask of %s with it counts as the truth of '
                'both, though it may be that of one; record with the stamps of a camera',
                self._path,
                _seconds(moment),
                self._topic,
            )

    def _tell_unstamped(self, moment: Moment) -> None:
        stamp_ns, _ = moment
        if self._all_stamped and not stamp_ns:
            self._all_stamped = False
            _log.warning(
                '%s: an image has no stamp, by which its mask of %s would be found; without, only a mask '
                'recorded at the very same time is its truth',
                self._path,
                self._topic,
            )

    def _next(self) -> _Recorded | None:
        """The next mask that can be read, or None."""
        for mask in self._messages:
            self._count += 1
            if not isinstance(mask.message, FrameError):
                self._check_order(self._topic, mask.moment)
                return mask
            self._leave_out(mask.at_ns, mask.message)
        return None

    def _check_order(self, what: str, moment: Moment) -> None:
        if self._in_order and moment < self._latest.get(what, moment):
            self._in_order = False
            _log.warning(
                '%s: %s are not recorded in order of their stamps, so some images are without their mask; '
                'give the masks as a folder of PNGs named by stamp (--labels), or sort the bag',
                self._path,
                what,
            )
        self._latest[what] = moment


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


def _messages(path: Path, reader: AnyReader, topic: str) -> Iterator[_Recorded]:
    """Messages of a topic in order of recording."""
    recorded = reader.messages(connections=_connections(reader, topic))
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
        yield _Recorded(message, at_ns)


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


def _connections(reader: AnyReader, topic: str) -> list[Any]:
    return [entry for entry in _image_connections(reader) if entry.topic == topic]


def _image_connections(reader: AnyReader) -> list[Any]:
    return [entry for entry in reader.connections if entry.msgtype in (IMAGE, COMPRESSED)]


def _image_topics(reader: AnyReader) -> list[str]:
    return sorted({entry.topic for entry in _image_connections(reader)})


def _seconds(moment: Moment) -> str:
    """To the nanosecond, which no float holds."""
    return '{}.{:09d}'.format(*divmod(sum(moment), 10**9))


def _fields(message: Any) -> tuple[str, np.ndarray, int, int, int]:
    return message.encoding, message.data, message.height, message.width, message.step
