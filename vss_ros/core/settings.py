"""Settings of the runtime. Field names are also the ROS parameters, the YAML keys and, with dashes, the
options of the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from vss_ros.core.described import Described, descriptions, setting
from vss_ros.core.errors import SettingsError

ENGINES = ('auto', 'tensorrt', 'torch', 'openvino', 'onnxruntime')
PRECISIONS = ('fp32', 'fp16', 'bf16', 'int8')
PROVIDERS = ('cpu', 'cuda', 'tensorrt')
BUILDS = ('never', 'if_missing', 'always')
OUTPUT_SIZES = ('input', 'network')
MOTIONS = ('model', 'network', 'dis', 'dis_third', 'dis_half', 'motion_vectors', 'stream')
SCHEDULERS = ('fixed', 'adaptive')
REGIONS = tuple(f'{columns}x{rows}' for rows in range(1, 5) for columns in range(1, 5))
FRAMES = (1, 100_000)

SCHEDULE = (  # of StreamSettings: what says when a frame is a key frame
    'key_frame_interval',
    'scheduler',
    'key_frame_threshold',
    'min_interval',
    'max_interval',
    'max_key_share',
    'key_share_window',
)


@dataclass(frozen=True)
class EngineSettings(Described):
    """Which engine runs the graphs, and how."""

    engine: str = setting('auto', 'runtime of the networks', choices=ENGINES)
    precision: str = setting('fp32', 'arithmetic of the networks', choices=PRECISIONS)
    gpu_id: int = setting(0, 'which GPU, from 0', range=(0, 255))
    threads: int = setting(0, 'CPU threads of the engine; 0: one per core', range=(0, 1024))
    engine_cache: str = setting('', 'folder of engines built here; empty: the cache folder of the user')
    build: str = setting('if_missing', 'whether a TensorRT engine may be built', choices=BUILDS)
    cuda_graphs: bool = setting(False, 'record the launches of a graph once and replay them (GPU)')
    provider: str = setting('cpu', 'execution provider of engine onnxruntime', choices=PROVIDERS)
    spinning: bool = setting(False, 'one pool of threads for ONNX Runtime, waiting busily for the next graph')

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.provider != 'cpu' and self.engine != 'onnxruntime':
            raise SettingsError(
                f'provider is {self.provider!r} and engine is {self.engine!r}; only engine '
                'onnxruntime has providers, set engine to it'
            )


@dataclass(frozen=True)
class StreamSettings(Described):
    """How one camera stream is segmented. Those that are live may change while the stream runs."""

    key_frame_interval: int = setting(
        5,
        'scheduler fixed: every n-th processed frame is computed in full; 1: every frame',
        range=FRAMES,
        live=True,
    )
    scheduler: str = setting(
        'fixed',
        'how key frames are chosen: at an interval, or where propagating is expected to fail',
        choices=SCHEDULERS,
        live=True,
    )
    key_frame_threshold: float = setting(
        0.93,
        'scheduler adaptive: compute a frame in full if a smaller share of its pixels than this is expected '
        'to match what that would give',
        range=(0, 1),
        live=True,
    )
    min_interval: int = setting(
        2, 'scheduler adaptive: fewest frames from a key frame to the next', range=FRAMES, live=True
    )
    max_interval: int = setting(
        15, 'scheduler adaptive: most frames from a key frame to the next', range=FRAMES, live=True
    )
    max_key_share: float = setting(
        1.0,
        'scheduler adaptive: largest share of key frames in any window of frames; 1: no limit',
        range=(1e-5, 1),
        live=True,
    )
    key_share_window: int = setting(
        30,
        'scheduler adaptive: number of consecutive frames over which max_key_share is kept',
        range=FRAMES,
        live=True,
    )
    correction_interval: int = setting(
        0,
        'of the frames between key frames each n-th is corrected, the others are carried; 0: as the model '
        'says',
        range=(0, FRAMES[1]),
        live=True,
    )
    max_frame_gap_s: float = setting(
        0.5, 'a longer gap between stamps starts a new stream, in seconds', range=(1e-3, math.inf), live=True
    )
    confidence_threshold: float = setting(
        0.0, 'pixels less confident than this become 255, unlabelled', range=(0, 1), live=True
    )
    output_size: str = setting('input', 'size of the mask', choices=OUTPUT_SIZES)
    motion: str = setting(
        'model',
        'where the flow of propagated frames comes from; model: as it was made',
        choices=MOTIONS,
    )
    background_key_frames: bool = setting(
        False, 'compute key frames on a second thread; until one is ready, frames build on the one before'
    )
    background_delay_frames: int = setting(
        0, 'frames until such a key frame takes effect; 0: as soon as it is there', range=(0, 60)
    )
    regions: str = setting(
        '1x1',
        'columns x rows of parts of the image that are segmented and decided on one by one',
        choices=REGIONS,
    )
    region_overlap: float = setting(
        0.1,
        'how much larger a region is made, as a share of its size without overlap',
        range=(0, 0.5),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_budget()
        if self.region_count > 1:
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
        kept = [name for name, description in descriptions(self).items() if not description.live]
        return replace(new, **{name: getattr(self, name) for name in kept})

    def _check_budget(self) -> None:
        if self.max_interval < self.min_interval:
            raise SettingsError(
                f'max_interval is {self.max_interval}; use min_interval ({self.min_interval}) or more'
            )
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

    def _check_regions(self) -> None:
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


def engine_settings_for(stream: StreamSettings, engine: EngineSettings) -> EngineSettings:
    """Where graphs of a stream run at once, on threads of their own they would wait for each other busily."""
    return replace(engine, spinning=True) if stream.background_key_frames else engine
