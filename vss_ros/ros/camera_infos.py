"""The camera_info of an image: the topic it comes on, which one it is, and what it is for a mask."""

from __future__ import annotations

import copy

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from vss_ros.ros.statistics import StreamStatistics

KEPT = 300  # beside those of the images that wait, to find the one of an image; they are small


class CameraInfos:
    """Keeps the newest camera_infos and finds the one of an image.

    Args:
        waiting: how many images may wait at once.
    """

    def __init__(self, waiting: int, statistics: StreamStatistics) -> None:
        self._most = waiting + KEPT
        self._statistics = statistics
        self._by_stamp: dict[tuple[int, int], CameraInfo] = {}  # the newest last

    def keep(self, info: CameraInfo) -> None:
        """Adds the newest one; the oldest makes room for it."""
        stamp = _stamp(info.header)
        self._by_stamp.pop(stamp, None)  # of a bag that starts again
        self._by_stamp[stamp] = info
        if len(self._by_stamp) > self._most:
            del self._by_stamp[next(iter(self._by_stamp))]

    def find(self, header: Header, size: tuple[int, ...]) -> CameraInfo | None:
        """The one with the stamp of an image of (height, width), else the newest of its camera at its size.

        That of another camera or size would be wrong, whatever its stamp. Where some came, but not the
        image's own, that is counted as unmatched, also if none can stand in for it.
        """

        def fits(info: CameraInfo) -> bool:
            return info.header.frame_id == header.frame_id and described_size(info) == size

        matching = self._by_stamp.get(_stamp(header))
        if matching is not None and fits(matching):
            return matching
        infos = list(self._by_stamp.values())
        if infos:
            self._statistics.count('camera_info_unmatched')
        return next(filter(fits, reversed(infos)), None)

    def clear(self) -> None:
        self._by_stamp.clear()


def camera_info_name(node: Node) -> str:
    """The name to subscribe by: beside the image, as in image_transport, unless it is remapped."""
    if node.resolve_topic_name('camera_info') != node.resolve_topic_name('camera_info', only_expand=True):
        return 'camera_info'
    return node.resolve_topic_name('image_raw').rpartition('/')[0] + '/camera_info'


def described_size(info: CameraInfo) -> tuple[int, int]:
    """Height and width of the images that a camera_info is of: all or a part of the sensor, maybe binned."""
    height, width = info.roi.height or info.height, info.roi.width or info.width
    return height // max(info.binning_y, 1), width // max(info.binning_x, 1)


def scaled_camera_info(
    info: CameraInfo, header: Header, image_size: tuple[int, ...], mask_size: tuple[int, ...]
) -> CameraInfo:
    """An image's camera_info in the geometry of its mask, under a header; sizes are (height, width)."""
    info = copy.copy(info)
    info.header = header
    down, right = mask_size[0] / image_size[0], mask_size[1] / image_size[1]
    if (down, right) == (1, 1):
        return info
    info.height, info.width = round(info.height * down), round(info.width * right)
    rows = np.array([[right], [down], [1]])
    info.k = (info.k.reshape(3, 3) * rows).reshape(-1)
    info.p = (info.p.reshape(3, 4) * rows).reshape(-1)
    roi = copy.copy(info.roi)
    roi.x_offset, roi.width = round(roi.x_offset * right), round(roi.width * right)
    roi.y_offset, roi.height = round(roi.y_offset * down), round(roi.height * down)
    info.roi = roi
    return info


def _stamp(header: Header) -> tuple[int, int]:
    return header.stamp.sec, header.stamp.nanosec
