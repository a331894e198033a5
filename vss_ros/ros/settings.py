"""Settings of the ROS node beside those of the engine and the stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from vss_ros.core.errors import SettingsError
from vss_ros.core.settings import EngineSettings, StreamSettings, check_choice
from vss_ros.core.share import DEFAULT_MODEL

IMAGE_TRANSPORTS = ('raw', 'compressed', 'ffmpeg', 'foxglove')
CONFIDENCE_ENCODINGS = ('mono8', '32FC1')
DROP_POLICIES = ('latest', 'queue')
LEAST_RATE = 1e-3  # frames per second; less is a node that has stopped
LEAST_PERIOD_S = 0.1  # of the labels, which a shorter one would publish without a pause


@dataclass(frozen=True)
class NodeSettings:
    """How the node takes images, what it publishes and when it complains."""

    model: str = DEFAULT_MODEL  # a name under models/ or a path
    image_transport: str = 'raw'
    confidence_encoding: str = 'mono8'
    publish_confidence: bool = True
    overlay_alpha: float = 0.5  # 0 shows the camera image, 1 the colours
    drop_policy: str = 'latest'
    queue_size: int = 30  # frames that may wait with drop_policy: queue
    max_rate: float = 0.0  # frames per second; 0 is no limit
    label_info_period: float = 10.0  # seconds; 0 publishes the labels only at configure
    autostart: bool = False
    input_timeout_s: float = 2.0  # a longer silence on the image topic is reported
    max_consecutive_bad_frames: int = 10  # from here on a bad frame is an error, not a warning
    max_allowed_processing_time_ms: float = 200.0
    max_acceptable_consecutive_delay_ms: float = 2000.0

    def __post_init__(self) -> None:
        check_choice('image_transport', self.image_transport, IMAGE_TRANSPORTS)
        check_choice('confidence_encoding', self.confidence_encoding, CONFIDENCE_ENCODINGS)
        check_choice('drop_policy', self.drop_policy, DROP_POLICIES)
        if not self.model:
            raise SettingsError('model is empty; use a name under models/ or the path of a model folder')
        if not 0 <= self.overlay_alpha <= 1:
            raise SettingsError(f'overlay_alpha is {self.overlay_alpha}; use a value from 0 to 1')
        for name in ('queue_size', 'max_consecutive_bad_frames'):
            if getattr(self, name) < 1:
                raise SettingsError(f'{name} is {getattr(self, name)}; use 1 or more')
        for name in (
            'max_rate',
            'label_info_period',
            'input_timeout_s',
            'max_allowed_processing_time_ms',
            'max_acceptable_consecutive_delay_ms',
        ):
            if not getattr(self, name) >= 0:
                raise SettingsError(f'{name} is {getattr(self, name)}; use 0 or more')
        for name, least in (('max_rate', LEAST_RATE), ('label_info_period', LEAST_PERIOD_S)):
            if 0 < getattr(self, name) < least:
                raise SettingsError(f'{name} is {getattr(self, name)}; use 0, or {least} and more')

    @property
    def allowed_s(self) -> float:
        """How long a frame may take."""
        return self.max_allowed_processing_time_ms / 1e3

    @property
    def capacity(self) -> int:
        """How many frames may wait for the worker."""
        return self.queue_size if self.drop_policy == 'queue' else 1


@dataclass(frozen=True)
class Settings:
    """Everything the parameters of the node say."""

    engine: EngineSettings = field(default_factory=EngineSettings)
    stream: StreamSettings = field(default_factory=StreamSettings)
    node: NodeSettings = field(default_factory=NodeSettings)
