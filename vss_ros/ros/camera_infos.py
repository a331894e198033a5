"""The camera_info of an image: the topic it comes on, which one it is, and what it is for a mask."""

from __future__ import annotations

import copy

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from vss_ros.ros.statistics import StreamStatistics

KEPT = 300  # beside those of the images that wait, to find the one of an image
MOST_COEFFICIENTS = 100  # of a distortion model, so that those that are kept are small


class CameraInfos:
    """Keeps the newest camera_infos and finds the one of an image.

    Threads: the executor's keeps and clears; the worker finds, looks at what is kept in one step, and writes
    `misfit`.

    Args:
        waiting: how many images may wait at once.
    """

    def __init__(self, waiting: int, statistics: StreamStatistics) -> None:
        self._most = waiting + KEPT
        self._statistics = statistics
        self.rank: int | None = None  # of the topic that they come on
        self.misfit = ''  # why the image last asked for has none, though some came
        self._by_stamp: dict[tuple[int, int], CameraInfo] = {}  # the newest last

    def keep(self, info: CameraInfo, rank: int = 0) -> None:
        """Adds the newest one; the oldest makes room for it.

        Args:
            info: counted as unmatched and not kept if its distortion has absurdly many coefficients.
            rank: of the topic it came on. Once some come on one of a lower rank, those of others are ignored.
        """
        if self.rank is None or rank < self.rank:
            self._by_stamp.clear()
            self.rank = rank
        elif rank > self.rank:
            return
        self._statistics.count('camera_info_received')
        if len(info.d) > MOST_COEFFICIENTS:
            self._statistics.count('camera_info_unmatched')
            return
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
            self.misfit = ''
            return matching
        infos = list(self._by_stamp.values())
        if infos:
            self._statistics.count('camera_info_unmatched')
        found = next(filter(fits, reversed(infos)), None)
        if infos and found is None:
            newest = infos[-1]
            self.misfit = (
                f'those that come are of {_described(newest.header, described_size(newest))}, the images of '
                f'{_described(header, size)}'
            )
        else:
            self.misfit = ''
        return found

    def clear(self) -> None:
        self._by_stamp.clear()
        self.rank, self.misfit = None, ''


def camera_info_names(node: Node) -> list[str]:
    """The names to subscribe by, by rank: beside the image, as in image_transport, unless it is remapped.

    The plain name is always among them, for nobody can tell a remapping to it from none.
    """
    plain = node.resolve_topic_name('camera_info')
    beside = node.resolve_topic_name('image_raw').rpartition('/')[0] + '/camera_info'
    is_remapped = plain != node.resolve_topic_name('camera_info', only_expand=True)
    if is_remapped or plain == node.resolve_topic_name(beside):
        return ['camera_info']
    return [beside, 'camera_info']


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


def _described(header: Header, size: tuple[int, ...]) -> str:
    return f'frame_id {header.frame_id[:40]!r} and {size[1]} x {size[0]} pixels'
