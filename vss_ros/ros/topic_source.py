"""Camera images from a topic, as a blocking iterator of frames for the worker thread.

The subscription's callback only puts the message into the inbox; conversion happens on the worker, so an
image that is dropped costs nothing more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from vss_ros.core.frame import CodedPicture
from vss_ros.ros.camera_infos import CameraInfos, camera_info_names
from vss_ros.ros.conversions import compressed_to_bgr, image_to_bgr
from vss_ros.ros.inbox import Inbox
from vss_ros.ros.publishers import Publishers
from vss_ros.ros.qos_events import create_subscription
from vss_ros.ros.settings import NodeSettings
from vss_ros.ros.statistics import StreamStatistics
from vss_ros.ros.topic_frame import TopicFrame, stamp_ns
from vss_ros.ros.video_topic import PACKETS, VIDEO_TRANSPORTS, VideoTopic, message_type

PAUSE_S = 0.5  # of silence, after which nobody should wait for the next image


class _Waiting(NamedTuple):
    """A message in the inbox."""

    received_s: float  # by `time.monotonic()`
    message: Any
    number: int  # where one is left out there is a hole, and a video cannot go on


class TopicSource:
    """Subscribes to the image topic and its camera_info.

    Threads: the executor's subscribes, takes in and closes; the worker iterates, which converts and decodes.
    Between them are the inbox, the camera_infos, the statistics and how often messages were lost.

    Args:
        on_bad: is told, on the worker thread, about each image that could not be used.
    """

    def __init__(
        self,
        node: Node,
        settings: NodeSettings,
        statistics: StreamStatistics,
        on_bad: Callable[[Exception], None],
    ) -> None:
        self._node = node
        self._settings = settings
        self._statistics = statistics
        self._on_bad = on_bad
        self._is_video = settings.image_transport in VIDEO_TRANSPORTS
        self._video = VideoTopic(settings.image_transport) if self._is_video else None
        # Of a video more than the newest must wait: each packet builds on the one before.
        self._depth = max(PACKETS, settings.capacity) if self._is_video else settings.capacity
        self._inbox: Inbox[_Waiting] = Inbox(self._depth)
        self._next_number = 1  # the executor's alone
        self._losses = 0  # times that messages were lost on the way; the executor's, and the worker looks
        self._goes_on_at = 1, 0  # with which number, at how many losses, a video goes on; the worker's alone
        self.camera_infos = CameraInfos(self._depth, statistics)
        self._info_names = camera_info_names(node)
        self._latched_infos: set[str] = set()  # names of those that are subscribed to as latched
        self._subscriptions: dict[str, Subscription] = {}  # by name
        self._paced_s = -math.inf  # when the image taken last was due, see `_due_s`
        self._begun_s: float | None = None  # when the frame in work was taken
        self._name = image_name(node, settings.image_transport)
        self.topic = node.resolve_topic_name(self._name)
        self.publishers = Publishers(node, self._name)

    def configure(self, settings: NodeSettings) -> None:
        """Takes a new `max_rate`; what shapes the subscription cannot change."""
        self._settings = settings

    @property
    def is_subscribed(self) -> bool:
        return bool(self._subscriptions)

    def subscribe(self) -> None:
        """Starts taking images.

        Raises:
            SettingsError: the messages of the image transport are not installed, or a QoS override cannot be
                used.
        """
        if self._subscriptions:
            return
        try:
            self._subscribe_to_all()
        except Exception:  # half of them would look like all of them
            self.unsubscribe()
            raise

    def _subscribe_to_all(self) -> None:
        transport = self._settings.image_transport
        numbered = hasattr(Subscription, 'CallbackType')  # Humble gives no message info
        self.publishers.start_over()
        self.camera_infos.clear()  # only now: frames that were in work at the end still asked for theirs
        if self._is_video:
            kind = message_type(transport)
        else:
            kind = CompressedImage if transport == 'compressed' else Image
        callback = self.on_image if numbered else lambda message: self.on_image(message, {})
        # A queue is for replay, where every image counts; a live camera wants the newest one.
        queue = self._settings.drop_policy == 'queue'
        reliability = ReliabilityPolicy.RELIABLE if queue else ReliabilityPolicy.BEST_EFFORT
        self._subscribe(kind, self._name, callback, reliability)
        self._latched_infos = set()
        for name in self._info_names:
            self._subscribe_to_infos(name)

    def unsubscribe(self) -> None:
        """Stops taking images and forgets those that wait, which are counted as `discarded`."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions = {}
        self._statistics.count('discarded', self._inbox.clear())
        self._next_number += 1  # what is sent meanwhile is a hole

    def close(self) -> None:
        """Unsubscribes and ends the iteration."""
        self.unsubscribe()
        self._inbox.close()

    @property
    def is_closed(self) -> bool:
        return self._inbox.is_closed

    @property
    def in_work_s(self) -> float:
        """For how long the worker has had its frame."""
        begun_s = self._begun_s
        return 0.0 if begun_s is None else time.monotonic() - begun_s

    @property
    def camera_info_topic(self) -> str:
        """The topic that camera_infos come on; while none has come, those that they may come on."""
        topics = [self._node.resolve_topic_name(name) for name in self._info_names]
        rank = self.camera_infos.rank
        return ', '.join(topics) if rank is None else topics[rank]

    def look_for_publishers(self) -> None:
        """Notes who publishes the images, and counts those that their numbers say are `missed`.

        Also subscribes to camera_infos that are sent only once, for whoever comes later.
        """
        if missed := self.publishers.look():
            self._statistics.count('missed', missed)
        for name in self._info_names if self.is_subscribed else ():
            publishers = [info.qos_profile for info in self._node.get_publishers_info_by_topic(name)]
            latched = all(
                qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
                and qos.reliability == ReliabilityPolicy.RELIABLE
                for qos in publishers
            )
            if publishers and latched != (name in self._latched_infos):
                self._latched_infos ^= {name}
                self._subscribe_to_infos(name)

    def on_image(self, message: Any, info: Mapping[str, Any]) -> None:
        """An image came; it waits for the worker.

        Args:
            info: of the middleware, with the publisher's number of the message where it counts them.
        """
        follows = self.publishers.numbered(info.get('publication_sequence_number') or 0)
        self._statistics.count('received')
        number = self._next_number if follows else self._next_number + 1
        self._next_number = number + 1
        if not self._inbox.put(_Waiting(time.monotonic(), message, number)):
            self._statistics.count('dropped')

    def on_lost(self, count: int) -> None:
        """Images were lost on the way, as the middleware says."""
        self._statistics.count('lost', count)
        # It does not say which: they may have been due before what waits, or before what comes next.
        self._losses += 1
        self._next_number += 1

    def __iter__(self) -> Iterator[TopicFrame | None]:
        """Frames as they come, and None in every pause, also one in which nothing comes that is a frame."""
        given_s = time.monotonic()
        while not self._inbox.is_closed:
            item = self._inbox.take(self._due_s, given_s + PAUSE_S - time.monotonic())
            begun_s = self._begun_s = time.monotonic()
            if item is not None:
                self._pace()
                if (frame := self._converted(item)) is not None:
                    yield frame  # to the worker, who may hang in it
                    self._statistics.took(time.monotonic() - begun_s, self._settings.allowed_s)
                    given_s = time.monotonic()
            if time.monotonic() - given_s >= PAUSE_S:
                yield None  # late results are computed now
                given_s = time.monotonic()
            self._begun_s = None

    def _converted(self, item: _Waiting) -> TopicFrame | None:
        try:
            if self._video is None:
                return self._image_frame(item.message, item.received_s)
            return self._video_frame(self._video, item)
        except Exception as error:  # whatever a message holds, the stream goes on
            self._on_bad(error)
            return None

    def _subscribe_to_infos(self, name: str) -> None:
        rank = self._info_names.index(name)

        def keep(info: CameraInfo) -> None:
            self.camera_infos.keep(info, rank)

        if name in self._latched_infos:
            latched = DurabilityPolicy.TRANSIENT_LOCAL
            self._subscribe(CameraInfo, name, keep, ReliabilityPolicy.RELIABLE, latched)
        else:
            # Best effort connects to every publisher, and one camera_info may stand in for another.
            self._subscribe(CameraInfo, name, keep, ReliabilityPolicy.BEST_EFFORT)

    def _subscribe(
        self,
        kind: type,
        name: str,
        callback: Callable[..., None],
        reliability: ReliabilityPolicy,
        durability: DurabilityPolicy = DurabilityPolicy.VOLATILE,
    ) -> None:
        """Subscribes, in place of the subscription of that name before."""
        if name in self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop(name))
        qos = QoSProfile(
            reliability=reliability,
            durability=durability,
            history=HistoryPolicy.KEEP_LAST,
            depth=self._depth,
        )
        on_lost = self.on_lost if name == self._name else None
        self._subscriptions[name] = create_subscription(
            self._node, kind, name, callback, qos, self._statistics, on_lost
        )

    def _due_s(self) -> float:
        """When the next image may be taken, by the `max_rate` of now."""
        return self._paced_s + self._period_s

    def _pace(self) -> None:
        """Notes that an image was taken, so that `max_rate` holds on average."""
        now = time.monotonic()
        self._paced_s = min(max(self._due_s(), now - self._period_s), now)

    @property
    def _period_s(self) -> float:
        rate = self._settings.max_rate
        return 1 / rate if rate > 0 else 0.0

    def _video_frame(self, video: VideoTopic, oldest: _Waiting) -> TopicFrame | None:
        """The newest picture of the packets that wait, or with drop_policy `queue` that of the oldest."""
        messages: list[Any] = []
        for newest in self._taken_from(oldest):
            number, losses = newest.number, self._losses
            if (number, losses) != self._goes_on_at:
                video.restart()
                messages.clear()
            self._goes_on_at = number + 1, losses
            messages.append(newest.message)
        picture = video.newest(messages)
        if picture is None:
            self._statistics.count('undecoded')
            return None
        return self._frame(picture.header, picture.image, picture.codec, newest.received_s, picture.coded)

    def _taken_from(self, oldest: _Waiting) -> Iterator[_Waiting]:
        """The oldest packet, and with drop_policy `latest` all that wait behind it."""
        yield oldest
        while self._settings.drop_policy == 'latest' and (item := self._inbox.take()) is not None:
            self._statistics.count('dropped')
            yield item

    def _image_frame(self, message: Image | CompressedImage, received_s: float) -> TopicFrame:
        if isinstance(message, CompressedImage):
            image, encoding = compressed_to_bgr(message), message.format
        else:
            image, encoding = image_to_bgr(message), message.encoding
        return self._frame(message.header, image, encoding, received_s)

    def _frame(
        self,
        header: Header,
        image: np.ndarray,
        encoding: str,
        received_s: float,
        coded: tuple[CodedPicture, ...] = (),
    ) -> TopicFrame:
        return TopicFrame(
            image=image,
            stamp_ns=stamp_ns(header, received_s),
            camera=header.frame_id,
            encoding=encoding,
            coded=coded,
            header=header,
            received_s=received_s,
            find_camera_info=partial(self.camera_infos.find, header, image.shape[:2]),
        )


def image_name(node: Node, transport: str) -> str:
    """The name to subscribe by, not yet remapped; a transport's comes after the remapped `image_raw`."""
    return 'image_raw' if transport == 'raw' else f'{node.resolve_topic_name("image_raw")}/{transport}'
