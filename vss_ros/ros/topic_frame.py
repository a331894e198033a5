"""A frame that came on a topic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from vss_ros.core.frame import Frame


@dataclass(frozen=True, eq=False)
class TopicFrame(Frame):
    """A frame with what its answers need: the message's own header, and when it arrived.

    Threads: the worker alone.

    Attributes:
        header: goes out on every answer, unchanged.
        received_s: arrival in the callback, `time.monotonic()`.
        find_camera_info: gives the camera_info of this image, or None where there is none. Cameras send it
            after the image, so ask as late as possible.
    """

    header: Header = field(default_factory=Header)
    received_s: float = 0.0
    find_camera_info: Callable[[], CameraInfo | None] = lambda: None


def stamp_ns(header: Header, received_s: float) -> int:
    """When the image was taken; when it came, where a driver leaves the stamp at 0: a pause must be seen."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec or int(received_s * 1e9)
