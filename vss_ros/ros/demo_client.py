"""The robot around the node: camera, operator and audience of a demo, in one process of its own.

Everything goes over real topics and services; nothing here knows the node but by their names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from vss_ros.core.frame import Frame, Segmentation
from vss_ros.ros.conversions import image_message
from vss_ros.ros.node_client import START_S, NodeClient, NodeProcess, values_of

PICTURES = ('mask', 'confidence', 'distortion')
SETTLE_S = 0.3  # until both ends of a topic know each other
LAST_S = 3.0  # the replies to the last images may take this long


@dataclass(eq=False)
class Reply:
    """What came back for one image that was sent.

    Attributes:
        frame: the image, with the stamp it was sent with.
        sent_s: when, by `time.monotonic()`.
        latency_ms: from sending the image to receiving its mask; None while there is none.
        pictures: `mask`, `confidence`, `distortion`, uint8 (H, W), as far as they arrived.
        info: the key-value pairs of `frame_info`.
    """

    frame: Frame
    sent_s: float
    latency_ms: float | None = None
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    info: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return bool(self.info) and all(name in self.pictures for name in PICTURES)

    def segmentation(self) -> Segmentation:
        """The reply as the pipeline would have given it. Only for complete replies."""
        return Segmentation(
            mask=self.pictures['mask'],
            model_confidence=self.pictures['confidence'],
            is_key=self.info['kind'] == 'key',
            age_frames=int(self.info['age_frames']),
            age_ns=round(float(self.info['age_ms']) * 1e6),
            stamp_ns=self.frame.stamp_ns,
            reset_reason=self.info['reset_reason'] or None,
            is_carried=self.info['kind'] == 'carried',
            read_distortion=lambda: self.pictures['distortion'],
        )


class DemoClient(NodeClient):
    """Plays images into a node's camera topic and collects what it publishes.

    Attributes:
        replies: one for every image sent, in order.
    """

    def __init__(self, node: NodeProcess) -> None:
        super().__init__(node)
        self.replies: list[Reply] = []
        self._by_stamp: dict[int, Reply] = {}
        self._images = self._node.create_publisher(
            Image, 'image_raw', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        )
        for name in PICTURES:
            self._node.create_subscription(Image, f'segmentation/{name}', partial(self._on_picture, name), 10)
        self._node.create_subscription(DiagnosticArray, 'segmentation/frame_info', self._on_info, 10)

    def play(self, frames: Sequence[Frame], rate_hz: float, on_sent: Callable[[], None]) -> None:
        """Sends the frames at this rate, stamped with the time of sending, and waits for the last replies.

        Raises:
            VssError: the node does not listen, or ended.
        """
        self._until(lambda: self._images.get_subscription_count() > 0, 'its image subscription', START_S)
        self._spin(SETTLE_S)
        start_s = time.monotonic()
        for number, frame in enumerate(frames):
            self._spin(start_s + number / rate_hz - time.monotonic())
            self._process.check()
            self._send(frame)
            on_sent()
        deadline_s = time.monotonic() + LAST_S
        while not self.replies[-1].is_complete and time.monotonic() < deadline_s:
            self._spin(0.05)

    def _send(self, frame: Frame) -> None:
        stamp_ns = time.time_ns()
        reply = Reply(replace(frame, stamp_ns=stamp_ns), time.monotonic())
        self.replies.append(reply)
        self._by_stamp[stamp_ns] = reply
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        header = Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=frame.camera)
        self._images.publish(image_message(frame.image, 'bgr8', header))

    def _on_picture(self, name: str, message: Image) -> None:
        reply = self._reply(message.header.stamp)
        if reply is None:
            return
        if name == 'mask':
            reply.latency_ms = (time.monotonic() - reply.sent_s) * 1e3
        reply.pictures[name] = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)

    def _on_info(self, message: DiagnosticArray) -> None:
        if (reply := self._reply(message.header.stamp)) is not None:
            reply.info = values_of(message.status[0])

    def _reply(self, stamp: Time) -> Reply | None:
        return self._by_stamp.get(stamp.sec * 10**9 + stamp.nanosec)
