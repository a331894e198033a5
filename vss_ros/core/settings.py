"""Settings of the runtime. Field names are also the ROS parameters and the YAML keys."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from vss_ros.core.errors import SettingsError

ENGINES = ('auto', 'tensorrt', 'torch', 'openvino', 'onnxruntime')
PRECISIONS = ('fp32', 'fp16', 'bf16', 'int8')
PROVIDERS = ('cpu', 'cuda', 'tensorrt')
BUILDS = ('never', 'if_missing', 'always')
OUTPUT_SIZES = ('input', 'network')
MOTIONS = ('model', 'network', 'dis', 'dis_half', 'motion_vectors', 'stream')
SCHEDULERS = ('fixed', 'adaptive')
MOST_THREADS = 1024
MOST_DELAY_FRAMES = 60  # of a key frame in the background
REGIONS = tuple(f'{columns}x{rows}' for rows in range(1, 5) for columns in range(1, 5))
AT_START = (  # of StreamSettings: what cannot change while a stream runs
    'motion',
    'background_key_frames',
    'background_delay_frames',
    'regions',
    'region_overlap',
)

SCHEDULE = (  # of StreamSettings: what says when a frame is a key frame
    'key_frame_interval',
    'scheduler',
    'key_frame_threshold',
    'min_interval',
    'max_interval',
    'max_key_share',
    'key_share_window',
)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises SettingsError unless `value` is one of `choices`."""
    if value not in choices:
        raise SettingsError(f'{name} is {value!r}; use one of {", ".join(choices)}')


@dataclass(frozen=True)
class EngineSettings:
    """Which engine runs the graphs, and how."""

    engine: str = 'auto'
    precision: str = 'fp32'
    gpu_id: int = 0
    threads: int = 0  # 0: one per core that the process may use
    engine_cache: str = ''  # folder of engines built here; empty: vss_ros/ in the user's cache folder
    build: str = 'if_missing'  # whether a TensorRT engine that is not in the cache may be built
    cuda_graphs: bool = False  # record the launches of a graph once and replay them
    provider: str = 'cpu'  # of engine onnxruntime
    spinning: bool = False  # whether idle threads of ONNX Runtime wait busily for the next graph

    def __post_init__(self) -> None:
        check_choice('engine', self.engine, ENGINES)
        check_choice('precision', self.precision, PRECISIONS)
        check_choice('build', self.build, BUILDS)
        check_choice('provider', self.provider, PROVIDERS)
        if self.provider != 'cpu' and self.engine != 'onnxruntime':
            raise SettingsError(
                f'provider is {self.provider!r} and engine is {self.engine!r}; only engine '
                'onnxruntime has providers, set engine to it'
            )
        if self.gpu_id < 0:
            raise SettingsError(f'gpu_id is {self.gpu_id}; use 0 for the first GPU')
        if not 0 <= self.threads <= MOST_THREADS:
            raise SettingsError(f'threads is {self.threads}; use 0 (all cores) to {MOST_THREADS}')


@dataclass(frozen=True)
class StreamSettings:
    """How one camera stream is segmented. All but AT_START may change while the stream runs."""

    key_frame_interval: int = 5  # scheduler fixed: 1 makes every frame a key frame
    scheduler: str = 'fixed'  # key frames at an interval, or where propagating is expected to fail
    key_frame_threshold: float = 0.93  # adaptive: least expected share of pixels as if computed in full
    min_interval: int = 2  # adaptive: from a key frame to the next, in frames
    max_interval: int = 15  # adaptive: the same
    max_key_share: float = 1.0  # adaptive: the compute budget, largest share of key frames ...
    key_share_window: int = 30  # adaptive: ... in so many frames in a row
    correction_interval: int = 0  # of the frames between, each n-th is corrected; 0: as the model says
    max_frame_gap_s: float = 0.5  # a longer silence starts a new stream
    confidence_threshold: float = 0.0  # below it the mask says 255
    output_size: str = 'input'  # of the mask: that of the camera image, or that of the network
    motion: str = 'model'  # where the flow comes from; `model` takes what the model was made for
    background_key_frames: bool = False  # no frame waits for a key frame; it is computed on a second thread
    background_delay_frames: int = 0  # until it takes effect; 0: as soon as it is there
    regions: str = '1x1'  # columns x rows of parts of the image that are decided on one by one
    region_overlap: float = 0.1  # how much more a region sees, as a share of what it would be without

    def __post_init__(self) -> None:
        if self.key_frame_interval < 1:
            raise SettingsError(
                f'key_frame_interval is {self.key_frame_interval}; use 1 (every frame is a key frame) or more'
            )
        self._check_adaptive()
        if self.correction_interval < 0:
            raise SettingsError(
                f'correction_interval is {self.correction_interval}; use 0 (as the model says), 1 (every '
                'frame between key frames is corrected) or more'
            )
        if not self.max_frame_gap_s > 0:
            raise SettingsError(f'max_frame_gap_s is {self.max_frame_gap_s}; use a time above 0')
        if not 0 <= self.confidence_threshold <= 1:
            raise SettingsError(
                f'confidence_threshold is {self.confidence_threshold}; use a value from 0 to 1'
            )
        check_choice('output_size', self.output_size, OUTPUT_SIZES)
        check_choice('motion', self.motion, MOTIONS)
        if not 0 <= self.background_delay_frames <= MOST_DELAY_FRAMES:
            raise SettingsError(
                f'background_delay_frames is {self.background_delay_frames}; '
                f'use 0 (as soon as possible) to {MOST_DELAY_FRAMES}'
            )
        self._check_regions()

    @property
    def region_grid(self) -> tuple[int, int]:
        """Rows and columns of regions."""
        columns, rows = map(int, self.regions.split('x'))
        return rows, columns

    @property
    def region_count(self) -> int:
        return math.prod(self.region_grid)

    @property
    def schedule(self) -> tuple[object, ...]:
        """The values of SCHEDULE."""
        return tuple(getattr(self, name) for name in SCHEDULE)

    def changed_to(self, new: StreamSettings) -> StreamSettings:
        """New settings, as far as a stream that runs with these can take them."""
        return replace(new, **{name: getattr(self, name) for name in AT_START})

    def _check_regions(self) -> None:
        check_choice('regions', self.regions, REGIONS)
        if not 0 <= self.region_overlap <= 0.5:
            raise SettingsError(f'region_overlap is {self.region_overlap}; use a share from 0 to 0.5')
        if self.region_count == 1:
            return
        for name, value, reason in (
            ('motion', 'stream', 'the motion vectors of a video are those of whole images'),
            ('output_size', 'network', 'each region has the size of the network, the whole has none'),
            ('background_key_frames', True, 'only one stream has a second thread'),
        ):
            if getattr(self, name) == value:
                raise SettingsError(
                    f'{name} is {str(value).lower()} and regions is {self.regions}, which do not go '
                    f'together: {reason}; set regions to 1x1 or change {name}'
                )

    def _check_adaptive(self) -> None:
        check_choice('scheduler', self.scheduler, SCHEDULERS)
        if not 0 <= self.key_frame_threshold <= 1:
            raise SettingsError(f'key_frame_threshold is {self.key_frame_threshold}; use a share from 0 to 1')
        if self.min_interval < 1:
            raise SettingsError(
                f'min_interval is {self.min_interval}; use 1 (key frames may follow each other) or more'
            )
        if self.max_interval < self.min_interval:
            raise SettingsError(
                f'max_interval is {self.max_interval}; use min_interval ({self.min_interval}) or more'
            )
        if not 0 < self.max_key_share <= 1:
            raise SettingsError(f'max_key_share is {self.max_key_share}; use a share above 0, up to 1')
        if not self.max_key_share * self.key_share_window >= 1:
            least = math.ceil(1 / self.max_key_share)
            raise SettingsError(
                f'key_share_window is {self.key_share_window}; use {least} frames or more, in fewer a share '
                f'of {self.max_key_share} is no key frame at all'
            )
        if self.max_key_share * self.max_interval < 1:
            raise SettingsError(
                f'max_key_share is {self.max_key_share}, and max_interval {self.max_interval} alone makes '
                f'one frame in {self.max_interval} a key frame; raise one of them'
            )
