"""The node's parameters: every setting is one; they are declared, read and checked here.

A parameter has the name of the setting it fills (the part after the last dot). A set of several is
checked as a whole, and refused with the reason or taken as a whole. Parameters that are not `live`
shape what is made at configure, so they can change only while the node is unconfigured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, cast

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from vss_ros.core.described import Described, Description
from vss_ros.core.errors import SettingsError, VssError
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.ros.settings import NodeSettings, Settings

_TYPES = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
}


DIAGNOSTICS = ('max_allowed_processing_time_ms', 'max_acceptable_consecutive_delay_ms')
READ_ONLY = ('autostart',)


@dataclass(frozen=True)
class Entry:
    """One parameter and the setting it fills."""

    name: str
    owner: type[Described]
    setting: str
    default: Any
    description: Description

    def descriptor(self) -> ParameterDescriptor:
        descriptor = ParameterDescriptor(
            name=self.name,
            type=_TYPES[type(self.default)],
            description=self.description.text,
            read_only=self.name in READ_ONLY,
        )
        limits = self.description.range
        constraints = [self.description.values] if self.description.choices else []
        if self.name in READ_ONLY:
            constraints.append('can be set only at start')
        elif not self.description.live:
            constraints.append('can change only while the node is unconfigured')
        descriptor.additional_constraints = '; '.join(constraints)
        if limits and isinstance(self.default, float):
            low, high = (float(limit) for limit in limits)
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif limits:
            low, high = (int(limit) for limit in limits)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        return descriptor


def _entries(owner: type[Described]) -> Iterator[Entry]:
    for setting in fields(cast(Any, owner)):
        name = setting.name
        if name in DIAGNOSTICS:
            name = f'diagnostics.{name}'
        yield Entry(name, owner, setting.name, setting.default, setting.metadata['description'])


TABLE = tuple(entry for owner in (NodeSettings, EngineSettings, StreamSettings) for entry in _entries(owner))
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
            if not _BY_NAME[name].description.live and value != current[name]:
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

    Threads: the executor's alone.

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
        given = _given_at_start(node)
        given |= {p.name: p for p in _whole_numbers_as_doubles([*given.values()])}
        node.declare_parameters('', [(entry.name, entry.default, entry.descriptor()) for entry in TABLE])
        _warn_of_unknown(node)
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

    def warn_of_unused_overrides(self) -> None:
        """Names the QoS overrides that no topic has taken, once all topics are there."""
        _warn_of_unknown(self._node, of_topics=True)

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


def _warn_of_unknown(node: Node, of_topics: bool = False) -> None:
    """Names the parameters that were given at start and that nobody has declared, the misspelt ones first.

    In one line: an entry for all nodes of a file may bring any number of them.

    Args:
        of_topics: look at the QoS overrides, which are declared with their topics, and not at all others.
    """
    declared = [name for name in node.get_parameters_by_prefix('') if _is_of_topic(name) == of_topics]
    misspelt, others = [], []
    for name in _given_at_start(node):
        if name in declared or _is_of_topic(name) != of_topics:
            continue
        # Names of topics are long and much alike.
        if meant := get_close_matches(name, declared, 1, cutoff=0.9 if of_topics else 0.6):
            misspelt.append(f'{name} (did you mean {meant[0]}?)')
        else:
            others.append(name)
    if misspelt or others:
        what = 'QoS overrides of topics that are not there' if of_topics else 'parameters that are not known'
        names = ', '.join([*sorted(misspelt), *sorted(others)])
        node.get_logger().warning(f'{what} and do nothing: {names}')


def _given_at_start(node: Node) -> dict[str, Parameter]:
    """What the node takes in place of defaults, by name."""
    return getattr(node, '_parameter_overrides', {})  # rclpy has no other way to them


def _is_of_topic(name: str) -> bool:
    return name.startswith('qos_overrides.')


def _ours(parameters: list[Parameter]) -> dict[str, Any]:
    return {parameter.name: parameter.value for parameter in parameters if parameter.name in _BY_NAME}


def _whole_numbers_as_doubles(parameters: list[Parameter]) -> list[Parameter]:
    """Lets `max_rate: 10` in a file mean 10.0, as well as `ros2 param set ... max_rate 10`."""
    return [
        Parameter(p.name, Parameter.Type.DOUBLE, float(p.value))
        if p.type_ == Parameter.Type.INTEGER
        and p.name in _BY_NAME
        and isinstance(_BY_NAME[p.name].default, float)
        else p
        for p in parameters
    ]
