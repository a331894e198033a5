"""Camera images of a recorded bag."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from vss_ros.core.encodings import decode_compressed, to_bgr
from vss_ros.core.errors import FrameError, SourceError
from vss_ros.core.frame import Frame
from vss_ros.core.sources.bag_masks import BagMasks
from vss_ros.core.sources.recorded import (
    COMPRESSED,
    IMAGE,
    Recorded,
    connections_of,
    image_topics,
    messages_of,
    open_bag,
    pixels_of,
)

_log = logging.getLogger(__name__)


class BagSource:
    """Frames of one image topic, with the stamp and the frame_id of their headers, named by the stamp.

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
            self._masks = None if mask_topic is None else BagMasks(path, self._check(mask_topic))
        except SourceError:
            self._reader.close()
            raise
        self.is_labelled = mask_topic is not None

    def __len__(self) -> int:
        return sum(connection.msgcount for connection in connections_of(self._reader, self.topic))

    def __iter__(self) -> Iterator[Frame]:
        used, skipped, last_error = 0, 0, None
        if self._masks is not None:
            self._masks.rewind()
        for number, recorded in enumerate(messages_of(self._path, self._reader, self.topic), start=1):
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

    def _frame(self, recorded: Recorded) -> Frame:
        message = recorded.message
        if isinstance(message, FrameError):
            raise message
        if message.__msgtype__ == COMPRESSED:
            image, encoding = decode_compressed(message.data, message.format), message.format
        else:
            image, encoding = to_bgr(*pixels_of(message), bool(message.is_bigendian)), message.encoding
        stamp_ns = recorded.stamp_ns
        frame = Frame(image, stamp_ns, message.header.frame_id, encoding, name=f'{stamp_ns:019d}')
        return frame if self._masks is None else self._masks.label(frame, recorded.moment)

    def _choose(self, topic: str | None, mask_topic: str | None) -> str:
        if topic is not None:
            return self._check(topic)
        topics = [name for name in image_topics(self._reader) if name != mask_topic]
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
        topics = image_topics(self._reader)
        if topic not in topics:
            known = ', '.join(topics) or 'none'
            raise SourceError(f'{self._path} has no image topic {topic}; its image topics are: {known}')
        return topic
