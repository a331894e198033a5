"""The node's parameters: one table, from which they are declared, read and checked.

A parameter has the name of the setting it fills (the part after the last dot). A set of several is
checked as a whole, and refused with the reason or taken as a whole. Parameters that are not `live`
shape what is made at configure, so they can change only while the node is unconfigured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from vss_ros.core.errors import SettingsError, VssError
from vss_ros.core.settings import (
    BUILDS,
    ENGINES,
    MOST_DELAY_FRAMES,
    MOST_THREADS,
    MOTIONS,
    OUTPUT_SIZES,
    PRECISIONS,
    PROVIDERS,
    REGIONS,
    SCHEDULERS,
    EngineSettings,
    StreamSettings,
)
from vss_ros.ros.settings import (
    CONFIDENCE_ENCODINGS,
    DROP_POLICIES,
    IMAGE_TRANSPORTS,
    NodeSettings,
    Settings,
)

_TYPES = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
}


@dataclass(frozen=True)
class Entry:
    """One parameter: the setting it fills and what a user reads about it."""

    name: str
    owner: type[EngineSettings] | type[StreamSettings] | type[NodeSettings]
    text: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    read_only: bool = False

    @property
    def setting(self) -> str:
        return self.name.rpartition('.')[2]

    @property
    def default(self) -> Any:
        return next(field.default for field in fields(self.owner) if field.name == self.setting)

    def descriptor(self) -> ParameterDescriptor:
        descriptor = ParameterDescriptor(
            name=self.name, type=_TYPES[type(self.default)], description=self.text, read_only=self.read_only
        )
        if self.choices:
            descriptor.additional_constraints = f'one of: {", ".join(self.choices)}'
        elif not self.live:
            descriptor.additional_constraints = 'can change only while the node is unconfigured'
        if self.range and isinstance(self.default, float):
            low, high = (float(limit) for limit in self.range)
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif self.range:
            low, high = (int(limit) for limit in self.range)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        return descriptor


TABLE = (
    Entry('model', NodeSettings, 'name of a model under models/, or the path of a model folder'),
    Entry('engine', EngineSettings, 'runtime of the networks', choices=ENGINES),
    Entry('precision', EngineSettings, 'arithmetic of the networks', choices=PRECISIONS),
    Entry('gpu_id', EngineSettings, 'which GPU, from 0', range=(0, 255)),
    Entry('threads', EngineSettings, 'CPU threads of the engine; 0 is one per core', range=(0, MOST_THREADS)),
    Entry(
        'engine_cache', EngineSettings, 'folder of engines built here; empty is the cache folder of the user'
    ),
    Entry('build', EngineSettings, 'whether a TensorRT engine may be built', choices=BUILDS),
    Entry('cuda_graphs', EngineSettings, 'record the launches of a graph once and replay them (GPU)'),
    Entry('provider', EngineSettings, 'how engine onnxruntime computes', choices=PROVIDERS),
    Entry('spinning', EngineSettings, 'let idle threads of ONNX Runtime wait busily for the next graph'),
    Entry('image_transport', NodeSettings, 'how images arrive', choices=IMAGE_TRANSPORTS),
    Entry('output_size', StreamSettings, 'size of the mask', choices=OUTPUT_SIZES),
    Entry('confidence_encoding', NodeSettings, 'mono8: 0..255, 32FC1: 0..1', choices=CONFIDENCE_ENCODINGS),
    Entry(
        'confidence_threshold',
        StreamSettings,
        'pixels less confident than this become 255 (unlabelled)',
        range=(0, 1),
        live=True,
    ),
    Entry('overlay_alpha', NodeSettings, 'weight of the colours in ~/overlay', range=(0, 1), live=True),
    Entry('publish_confidence', NodeSettings, 'publish ~/confidence', live=True),
    Entry(
        'scheduler',
        StreamSettings,
        'how key frames are chosen: at an interval, or where propagating is expected to fail',
        choices=SCHEDULERS,
        live=True,
    ),
    Entry(
        'key_frame_interval',
        StreamSettings,
        'scheduler fixed: every n-th processed frame is computed in full; 1 is every frame',
        range=(1, 100000),
        live=True,
    ),
    Entry(
        'correction_interval',
        StreamSettings,
        'of the frames between key frames each n-th is corrected, the others are only warped; 0: as the '
        'model says',
        range=(0, 100000),
        live=True,
    ),
    Entry(
        'key_frame_threshold',
        StreamSettings,
        'scheduler adaptive: a frame of which a smaller share of pixels is expected to be as if computed in '
        'full is a key frame',
        range=(0, 1),
        live=True,
    ),
    Entry(
        'min_interval',
        StreamSettings,
        'scheduler adaptive: fewest frames from a key frame to the next',
        range=(1, 100000),
        live=True,
    ),
    Entry(
        'max_interval',
        StreamSettings,
        'scheduler adaptive: most frames from a key frame to the next',
        range=(1, 100000),
        live=True,
    ),
    Entry(
        'max_key_share',
        StreamSettings,
        'scheduler adaptive: largest share of key frames in key_share_window frames; 1 is no limit',
        range=(1e-5, 1),
        live=True,
    ),
    Entry(
        'key_share_window',
        StreamSettings,
        'scheduler adaptive: frames in which max_key_share is kept',
        range=(1, 100000),
        live=True,
    ),
    Entry(
        'max_frame_gap_s',
        StreamSettings,
        'a longer gap between stamps starts a new stream, in seconds',
        range=(1e-3, 3600),
        live=True,
    ),
    Entry('motion', StreamSettings, 'where the flow of propagated frames comes from', choices=MOTIONS),
    Entry(
        'background_key_frames',
        StreamSettings,
        'compute key frames on a second thread; until one is there, frames rest on the one before',
    ),
    Entry(
        'background_delay_frames',
        StreamSettings,
        'frames until such a key frame takes effect; 0 is as soon as it is there',
        range=(0, MOST_DELAY_FRAMES),
    ),
    Entry(
        'regions',
        StreamSettings,
        'columns x rows of parts of the image that are segmented and decided on one by one',
        choices=REGIONS,
    ),
    Entry(
        'region_overlap',
        StreamSettings,
        'how much more a region sees, as a share of what it would be without overlap',
        range=(0, 0.5),
    ),
    Entry(
        'drop_policy',
        NodeSettings,
        'latest: the newest image wins (live cameras); queue: images wait, reliably received (replay)',
        choices=DROP_POLICIES,
    ),
    Entry('queue_size', NodeSettings, 'images that may wait with drop_policy queue', range=(1, 10000)),
    Entry('max_rate', NodeSettings, 'most frames per second; 0 is no limit', range=(0, 1000), live=True),
    Entry(
        'label_info_period',
        NodeSettings,
        'seconds between repeats of the labels; 0 publishes them once',
        range=(0, 3600),
    ),
    Entry(
        'input_timeout_s',
        NodeSettings,
        'a longer silence on the image topic is reported, in seconds',
        range=(0.1, 3600),
        live=True,
    ),
    Entry(
        'max_consecutive_bad_frames',
        NodeSettings,
        'from this many bad frames in a row on they are an error',
        range=(1, 100000),
        live=True,
    ),
    Entry(
        'diagnostics.max_allowed_processing_time_ms',
        NodeSettings,
        'slower frames are a warning',
        range=(0, 1e6),
        live=True,
    ),
    Entry(
        'diagnostics.max_acceptable_consecutive_delay_ms',
        NodeSettings,
        'frames slower than allowed for this long are an error',
        range=(0, 1e7),
        live=True,
    ),
    Entry('autostart', NodeSettings, 'configure and activate at start', read_only=True),
)
_BY_NAME = {entry.name: entry for entry in TABLE}


def build(values: Mapping[str, Any]) -> Settings:
    """The settings that parameter values, by name, describe.

    Raises:
        SettingsError: a value cannot be used; the message names it.
    """

    def of(owner: Any) -> Any:
        return owner(**{entry.setting: values[entry.name] for entry in TABLE if entry.owner is owner})

    return Settings(of(EngineSettings), of(StreamSettings), of(NodeSettings))


def defaults() -> dict[str, Any]:
    """The default of every parameter, by name."""
    return {entry.name: entry.default for entry in TABLE}


def checked_change(current: Mapping[str, Any], changes: Mapping[str, Any], configured: bool) -> Settings:
    """The settings after a set of parameters, checked as a whole.

    Where what was given at start cannot be used, the rest counts as the defaults: else none of several could
    be mended.

    Raises:
        SettingsError: the reason for which the whole set is refused.
    """
    if configured:
        for name, value in changes.items():
            if not _BY_NAME[name].live and value != current[name]:
                raise SettingsError(
                    f'{name} can change only while the node is unconfigured; '
                    'deactivate and clean it up, set it, then configure it again'
                )
    try:
        build(current)
    except SettingsError:
        current = defaults()
    return build({**current, **changes})


class Parameters:
    """Declares the parameters on a node and watches over their changes.

    Args:
        is_configured: whether only live parameters may change now.
        check: raises a VssError if the node cannot take these settings.
        on_change: is given the settings after each accepted change.
    """

    def __init__(
        self,
        node: Node,
        is_configured: Callable[[], bool],
        check: Callable[[Settings], None],
        on_change: Callable[[Settings], None],
    ) -> None:
        self._node = node
        self._is_configured = is_configured
        self._check_settings = check
        self._on_change = on_change
        node.declare_parameters('', [(entry.name, entry.default, entry.descriptor()) for entry in TABLE])
        if hasattr(node, 'add_pre_set_parameters_callback'):  # not in Humble
            node.add_pre_set_parameters_callback(_whole_numbers_as_doubles)
        node.add_on_set_parameters_callback(self._check)
        if hasattr(node, 'add_post_set_parameters_callback'):
            node.add_post_set_parameters_callback(self._apply)

    def values(self) -> dict[str, Any]:
        """The value of every parameter, by name."""
        return {entry.name: self._node.get_parameter(entry.name).value for entry in TABLE}

    def read(self) -> Settings:
        """The settings that the parameters describe now.

        Raises:
            SettingsError: a value cannot be used.
        """
        return build(self.values())

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        changes = _ours(parameters)
        if not changes:
            return SetParametersResult(successful=True)
        try:
            settings = checked_change(self.values(), changes, self._is_configured())
            self._check_settings(settings)
        except (VssError, TypeError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        if not hasattr(self._node, 'add_post_set_parameters_callback'):
            self._on_change(settings)
        return SetParametersResult(successful=True)

    def _apply(self, parameters: list[Parameter]) -> None:
        if not _ours(parameters):
            return
        # Others, given at start, may still have to be mended; nothing runs with them.
        with suppress(SettingsError):
            self._on_change(self.read())


def _ours(parameters: list[Parameter]) -> dict[str, Any]:
    return {parameter.name: parameter.value for parameter in parameters if parameter.name in _BY_NAME}


def _whole_numbers_as_doubles(parameters: list[Parameter]) -> list[Parameter]:
    """Lets `ros2 param set ... max_rate 10` mean 10.0."""
    return [
        Parameter(p.name, Parameter.Type.DOUBLE, float(p.value))
        if p.type_ == Parameter.Type.INTEGER
        and p.name in _BY_NAME
        and isinstance(_BY_NAME[p.name].default, float)
        else p
        for p in parameters
    ]
