"""Settings of the ROS node beside those of the engine and the stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from vss_ros.core.described import Described, setting
from vss_ros.core.errors import SettingsError
from vss_ros.core.files.share import DEFAULT_MODEL
from vss_ros.core.settings import EngineSettings, StreamSettings

IMAGE_TRANSPORTS = ('raw', 'compressed', 'ffmpeg', 'foxglove')
CONFIDENCE_ENCODINGS = ('mono8', '32FC1')
DROP_POLICIES = ('latest', 'queue')
LEAST_RATE = 1e-3  # frames per second; less is a node that has stopped
LEAST_PERIOD_S = 0.1  # of the labels, which a shorter one would publish without a pause


@dataclass(frozen=True)
class NodeSettings(Described):
    """How the node takes images, what it publishes and when it complains."""

    model: str = setting(DEFAULT_MODEL, 'name of a model under models/, or the path of a model folder')
    image_transport: str = setting('raw', 'how images arrive', choices=IMAGE_TRANSPORTS)
    confidence_encoding: str = setting('mono8', 'mono8: 0..255, 32FC1: 0..1', choices=CONFIDENCE_ENCODINGS)
    publish_confidence: bool = setting(True, 'publish ~/confidence', live=True)
    overlay_alpha: float = setting(0.5, 'weight of the colours in ~/overlay', range=(0, 1), live=True)
    drop_policy: str = setting(
        'latest',
        'latest: the newest image wins (live cameras); queue: images wait, reliably received (replay)',
        choices=DROP_POLICIES,
    )
    queue_size: int = setting(30, 'images that may wait with drop_policy queue', range=(1, 10_000))
    max_rate: float = setting(0.0, 'most frames per second; 0: no limit', range=(0, 1000), live=True)
    label_info_period: float = setting(
        10.0, 'seconds between repeats of the labels; 0: published once', range=(0, 3600)
    )
    autostart: bool = setting(False, 'configure and activate at start')
    input_timeout_s: float = setting(
        2.0, 'a longer silence on the image topic is reported, in seconds', range=(0.1, 3600), live=True
    )
    max_consecutive_bad_frames: int = setting(
        10, 'from this many bad frames in a row on they are an error', range=(1, 100_000), live=True
    )
    max_allowed_processing_time_ms: float = setting(
        200.0, 'slower frames are a warning', range=(0, 1e6), live=True
    )
    max_acceptable_consecutive_delay_ms: float = setting(
        2000.0, 'frames slower than allowed for this long are an error', range=(0, 1e7), live=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise SettingsError('model is empty; use a name under models/ or the path of a model folder')
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
