"""Results as a ROS 2 bag, through rosbags: needs no ROS."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import FrameError, MissingLibraryError
from vss_ros.core.files.drafts import Draft
from vss_ros.core.frame import Frame, Segmentation

try:
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore
except ImportError as error:
    raise MissingLibraryError('rosbags', 'bags', cause=error) from error

SUFFIX = '.mcap'
NODE = '/segmentation'
IMAGE_TOPIC = '/image_raw'
SECONDS = 2**31  # a stamp's seconds are an int32
_STORE = get_typestore(Stores.ROS2_JAZZY)


class BagSink:
    """Writes mask, confidence and label names as the live node publishes them, and the image if asked.

    Stamps, frame_ids and sizes are those of the frames; the time of recording is the stamp, or 0 for stamps
    before that.

    Args:
        path: ends in .mcap for one file; anything else becomes a rosbag2 folder.
        images: whether the images are copied, to `/image_raw`.

    Raises:
        SettingsError: the bag exists and may not be replaced.
    """

    def __init__(self, path: Path, classes: ClassSet, images: bool = False, overwrite: bool = False) -> None:
        self._draft = Draft(path, overwrite)
        self._single_file = path.suffix == SUFFIX
        folder = self._draft.path.with_suffix('') if self._single_file else self._draft.path
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        try:
            self._writer.open()
        except BaseException:
            self._draft.discard()
            raise
        self._label_names = classes.as_yaml()
        self._labels = self._topic(f'{NODE}/label_names', 'std_msgs/msg/String', latched=True)
        self._mask = self._topic(f'{NODE}/mask', 'sensor_msgs/msg/Image')
        self._confidence = self._topic(f'{NODE}/confidence', 'sensor_msgs/msg/Image')
        self._image = self._topic(IMAGE_TOPIC, 'sensor_msgs/msg/Image') if images else None
        self._is_labelled = False

    def write(self, frame: Frame, segmentation: Segmentation) -> None:
        if not -SECONDS <= frame.stamp_ns // 10**9 < SECONDS:
            raise FrameError(
                f'a frame has the stamp {frame.stamp_ns / 1e9:.0f} s, which a ROS message cannot hold; '
                f'expected less than {SECONDS} s, write masks or a video instead'
            )
        if not self._is_labelled:
            self._put(self._labels, frame.stamp_ns, _STORE.types['std_msgs/msg/String'](self._label_names))
            self._is_labelled = True
        if self._image is not None:
            self._put(self._image, frame.stamp_ns, _image(frame, 'bgr8', frame.image))
        self._put(self._mask, frame.stamp_ns, _image(frame, 'mono8', segmentation.mask))
        self._put(self._confidence, frame.stamp_ns, _image(frame, 'mono8', segmentation.confidence))

    def close(self) -> None:
        """Completes the bag. Nothing is written if there was no frame."""
        if not self._is_labelled:
            self.discard()
            return
        self._writer.close()
        if self._single_file:
            folder = self._writer.path
            os.replace(folder / f'{folder.name}.mcap', self._draft.path)
        self._draft.publish()

    def discard(self) -> None:
        try:
            self._writer.abort()
        finally:
            self._draft.discard()

    def _topic(self, name: str, kind: str, latched: bool = False) -> Any:
        durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
        forever = QosTime(0, 0)
        qos = Qos(
            QosHistory.KEEP_LAST,
            1,
            QosReliability.RELIABLE,
            durability,
            forever,
            forever,
            QosLiveliness.AUTOMATIC,
            forever,
            False,
        )
        return self._writer.add_connection(name, kind, typestore=_STORE, offered_qos_profiles=[qos])

    def _put(self, topic: Any, stamp_ns: int, message: Any) -> None:
        self._writer.write(topic, max(stamp_ns, 0), _STORE.serialize_cdr(message, topic.msgtype))


def _image(frame: Frame, encoding: str, pixels: np.ndarray) -> Any:
    types = _STORE.types
    seconds, nanoseconds = divmod(frame.stamp_ns, 10**9)
    stamp = types['builtin_interfaces/msg/Time'](seconds, nanoseconds)
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).reshape(-1)
    return types['sensor_msgs/msg/Image'](
        types['std_msgs/msg/Header'](stamp, frame.camera),
        height,
        width,
        encoding,
        0,
        data.size // height,
        data,
    )
