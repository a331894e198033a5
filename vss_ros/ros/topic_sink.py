"""Publishes segmentations. What nobody looks at is not made."""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from vss_ros.core.classes import ClassSet
from vss_ros.core.drawing import overlay, painted
from vss_ros.core.frame import Frame, Segmentation
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.model.steps import HOST_FLOWS
from vss_ros.core.resize import fit
from vss_ros.ros.camera_infos import scaled_camera_info
from vss_ros.ros.conversions import image_message, png_message
from vss_ros.ros.qos_events import create_lifecycle_publisher
from vss_ros.ros.settings import Settings
from vss_ros.ros.statistics import StreamStatistics
from vss_ros.ros.topic_frame import TopicFrame


class TopicSink:
    """The node's output topics. Every message carries the input's header, byte for byte.

    The mask goes first; whatever else is wanted follows and does not delay it.
    Threads: the worker writes; the executor's replaces the settings, and closes it once the worker has ended.

    Args:
        on_failed: is told, on the worker thread, about each answer that could not be published.
    """

    def __init__(
        self,
        node: LifecycleNode,
        model: ModelFolder,
        settings: Settings,
        statistics: StreamStatistics,
        on_failed: Callable[[Exception, Frame], None],
    ) -> None:
        self._node = node
        self._model = model
        self._settings = settings.node
        self._statistics = statistics
        self._on_failed = on_failed
        self._on_engine = stages_on_engine(model, settings.stream.motion)
        self._publishers: list[LifecyclePublisher] = []
        try:
            self._mask = self._create('mask', Image)
            self._confidence = self._create('confidence', Image)
            self._camera_info = self._create('camera_info', CameraInfo)
            self._color_mask = self._create('color_mask', Image)
            self._overlay = self._create('overlay', Image)
            self._distortion = self._create('distortion', Image)
            self._png = self._create('mask/compressed', CompressedImage)
            self._frame_info = self._create('frame_info', DiagnosticArray, depth=10)
        except Exception:  # QoS overrides that cannot be used
            self.close()
            raise

    def configure(self, settings: Settings) -> None:
        """Takes new settings for the frames to come."""
        self._settings = settings.node

    def write(self, frame: Frame, segmentation: Segmentation) -> None:
        assert isinstance(frame, TopicFrame)  # source and sink of the node belong together
        try:
            self._publish(frame, segmentation)
        except Exception as error:  # let through, it would end the frame whose first answer this may be
            self._on_failed(error, frame)

    def _publish(self, frame: TopicFrame, segmentation: Segmentation) -> None:
        mask, header = segmentation.mask, frame.header
        self._mask.publish(image_message(mask, 'mono8', header))
        latency_ms = (time.monotonic() - frame.received_s) * 1e3
        dropped = self._statistics.good_frame(latency_ms, segmentation.reset_reason)
        if self._settings.publish_confidence and _wanted(self._confidence):
            self._confidence.publish(self._confidence_message(frame, segmentation))
        info = frame.find_camera_info()
        if info is not None:
            self._camera_info.publish(scaled_camera_info(info, header, frame.size, mask.shape))
        if _wanted(self._frame_info):
            self._frame_info.publish(
                frame_info(frame, segmentation, self._model.classes, self._on_engine, latency_ms, dropped)
            )
        if _wanted(self._color_mask):
            colours = painted(mask, self._model.classes.palette)
            self._color_mask.publish(image_message(colours, 'rgb8', header))
        if _wanted(self._overlay):
            self._overlay.publish(self._overlay_message(frame, mask))
        if _wanted(self._distortion):
            self._distortion.publish(image_message(segmentation.distortion(), 'mono8', header))
        if _wanted(self._png):
            self._png.publish(png_message(mask, header))

    def close(self) -> None:
        """Removes the topics. The worker that writes must have ended."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = []

    def _create(self, name: str, kind: type, depth: int = 1) -> LifecyclePublisher:
        qos = QoSProfile(depth=depth)  # reliable, which serves both kinds of subscriber
        publisher = create_lifecycle_publisher(self._node, kind, f'~/{name}', qos, self._statistics)
        self._publishers.append(publisher)
        return publisher

    def _confidence_message(self, frame: TopicFrame, segmentation: Segmentation) -> Image:
        confidence = segmentation.confidence
        if self._settings.confidence_encoding == '32FC1':
            return image_message(confidence * np.float32(1 / 255), '32FC1', frame.header)
        return image_message(confidence, 'mono8', frame.header)

    def _overlay_message(self, frame: TopicFrame, mask: np.ndarray) -> Image:
        image = fit(frame.image, mask.shape)
        picture = overlay(image, mask, self._model.classes, self._settings.overlay_alpha)
        return image_message(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), 'rgb8', frame.header)


def stages_on_engine(model: ModelFolder, motion: str) -> Set[str]:
    """Those that are graphs; flow is none where `motion` lets the host compute it in place of a network."""
    return model.graphs.keys() - ({'flow'} if model.flow_of(motion) in HOST_FLOWS else set())


def frame_info(
    frame: TopicFrame,
    segmentation: Segmentation,
    classes: ClassSet,
    on_engine: Set[str],
    latency_ms: float,
    dropped: int,
) -> DiagnosticArray:
    """What is to be known about one frame, as key-value pairs under the image's header.

    Keys: `kind` (key, propagated, carried, mixed), `regions` and `key_regions` (how many there are, and were
    computed in full; only with regions), `age_frames`, `age_ms`, `reset_reason`, `latency_ms` (arrival of the
    image to published mask), `engine_ms` (of the stages `on_engine`), `<stage>_ms` of each stage,
    `corrected_share`, `expected_accuracy`, `dropped` (frames since the last answer), `mean_confidence`
    (0..1), `share.<class>` and `share.unlabelled` (0..1).
    """
    counts = cv2.calcHist([segmentation.mask], [0], None, [256], [0, 256]).ravel() / segmentation.mask.size
    timings = segmentation.timings_ms
    values: dict[str, Any] = {
        'kind': segmentation.kind,
        'age_frames': segmentation.age_frames,
        'age_ms': f'{segmentation.age_ns / 1e6:.3f}',
        'reset_reason': segmentation.reset_reason or '',
        'latency_ms': f'{latency_ms:.3f}',
        'engine_ms': f'{sum(ms for stage, ms in timings.items() if stage in on_engine):.3f}',
        **{f'{stage}_ms': f'{ms:.3f}' for stage, ms in timings.items()},
        'dropped': dropped,
        'mean_confidence': f'{cv2.mean(segmentation.model_confidence)[0] / 255:.4f}',
    }
    if segmentation.key_regions:
        values['regions'] = len(segmentation.key_regions)
        values['key_regions'] = sum(segmentation.key_regions)
    if segmentation.corrected_share is not None:
        values['corrected_share'] = f'{segmentation.corrected_share:.5f}'
    if segmentation.expected_accuracy is not None:
        values['expected_accuracy'] = f'{segmentation.expected_accuracy:.5f}'
    for name, share in zip(classes.names, counts, strict=False):
        values[f'share.{name}'] = f'{share:.5f}'
    values['share.unlabelled'] = f'{counts[255]:.5f}'
    status = DiagnosticStatus(
        name='frame',
        message=values['kind'],
        hardware_id=frame.camera,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    return DiagnosticArray(header=frame.header, status=[status])


def _wanted(publisher: LifecyclePublisher) -> bool:
    return publisher.get_subscription_count() > 0
