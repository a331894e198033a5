"""Class names and colours as latched messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header, String

from vss_ros.core.classes import ClassSet
from vss_ros.ros.qos_events import create_publisher
from vss_ros.ros.settings import Settings
from vss_ros.ros.statistics import StreamStatistics

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:  # no wheel of vision_msgs exists; a ROS installation has it
    LabelInfo = VisionClass = None


def fill_label_info(
    message: Any, make_class: Callable[[], Any], classes: ClassSet, threshold: float, header: Any
) -> Any:
    """Fills a vision_msgs/LabelInfo, whose classes `make_class` makes; 255 stays the unlabelled id."""
    message.header = header
    message.threshold = float(threshold)
    message.class_map = []
    for i, name in enumerate(classes.names):
        entry = make_class()
        entry.class_id, entry.class_name = i, name
        message.class_map.append(entry)
    return message


class Labels:
    """Publishes the classes at once, for late joiners, and again every `label_info_period` seconds.

    The repeats serve bags that are played from the middle, which skips latched messages.
    Threads: the executor's alone.
    """

    def __init__(
        self, node: Node, classes: ClassSet, settings: Settings, statistics: StreamStatistics
    ) -> None:
        self._node = node
        self._classes = classes
        self._threshold = settings.stream.confidence_threshold
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._names = create_publisher(node, String, '~/label_names', latched, statistics)
        self._info: Publisher | None = None
        if LabelInfo is None:
            node.get_logger().info('vision_msgs is not installed: labels go to ~/label_names only')
        else:
            self._info = create_publisher(node, LabelInfo, '~/label_info', latched, statistics)
        self.publish()
        period_s = settings.node.label_info_period
        # The steady clock: the repeats go on where a simulated one rests.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(period_s, self.publish, clock=steady) if period_s > 0 else None

    def publish(self) -> None:
        self._names.publish(String(data=self._classes.as_yaml()))
        if self._info is not None:
            header = Header(stamp=self._node.get_clock().now().to_msg())
            self._info.publish(
                fill_label_info(LabelInfo(), VisionClass, self._classes, self._threshold, header)
            )

    def configure(self, settings: Settings) -> None:
        """Tells the subscribers about a new threshold."""
        if settings.stream.confidence_threshold != self._threshold:
            self._threshold = settings.stream.confidence_threshold
            self.publish()

    def close(self) -> None:
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._names)
        if self._info is not None:
            self._node.destroy_publisher(self._info)
