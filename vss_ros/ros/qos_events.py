"""Subscriptions and publishers that say by name what the middleware would keep to itself.

That is: connections refused because the two ends ask for different qualities, and messages lost on the
way. A middleware that knows no such events works too, in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.exceptions import InvalidParameterTypeException
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from vss_ros.core.errors import SettingsError, error_text
from vss_ros.ros.statistics import StreamStatistics

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ImportError:  # Humble
    from rclpy.qos_event import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )

THROTTLE_S = 10.0
MOST_DEPTH = 2**31 - 1  # that rclpy takes
POLICIES = (
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
)
KINDS = {'reliability': ReliabilityPolicy, 'durability': DurabilityPolicy, 'history': HistoryPolicy}


def create_subscription(
    node: Node,
    kind: type,
    name: str,
    callback: Callable[..., None],
    qos: QoSProfile,
    statistics: StreamStatistics,
    on_lost: Callable[[int], None] | None = None,
) -> Subscription:
    """A subscription whose QoS can be overridden by parameters.

    Args:
        name: of the topic, not yet remapped.
        on_lost: is told how many messages were lost on the way.

    Raises:
        SettingsError: a QoS override cannot be used.
    """
    topic = node.resolve_topic_name(name)
    parameters = f'qos_overrides.{topic}.subscription'

    statistics.forget_qos_problem(topic)  # of the subscription before

    def incompatible(event: Any) -> None:
        policy = _policy(event)
        advice = (
            f'set {parameters}.{policy} to what it offers'
            if _can_be_overridden(policy)
            else 'change it there'
        )
        text = f'a publisher on {topic} offers a {policy} that this subscription does not accept, so its '
        _tell(node, statistics, topic, f'{text}messages do not arrive; {advice}')

    def lost(event: Any) -> None:
        if on_lost is not None:
            on_lost(event.total_count_change)

    def create(events: SubscriptionEventCallbacks) -> Subscription:
        _forget_overrides(node, parameters)
        overrides = QoSOverridingOptions(POLICIES)
        return node.create_subscription(
            kind, name, callback, qos, event_callbacks=events, qos_overriding_options=overrides
        )

    with _telling_what_is_wrong(node, topic, parameters):
        try:
            return create(SubscriptionEventCallbacks(incompatible_qos=incompatible, message_lost=lost))
        except UnsupportedEventTypeError:
            return create(SubscriptionEventCallbacks())


def create_lifecycle_publisher(
    node: LifecycleNode, kind: type, name: str, qos: QoSProfile, statistics: StreamStatistics
) -> LifecyclePublisher:
    """A lifecycle publisher whose QoS can be overridden by parameters.

    Raises:
        SettingsError: a QoS override cannot be used.
    """
    return _create_publisher(node.create_lifecycle_publisher, node, kind, name, qos, statistics)


def create_publisher(
    node: Node, kind: type, name: str, qos: QoSProfile, statistics: StreamStatistics
) -> Publisher:
    """The same for one that publishes in every state."""
    return _create_publisher(node.create_publisher, node, kind, name, qos, statistics)


def _create_publisher(
    make: Callable[..., Any],
    node: Node,
    kind: type,
    name: str,
    qos: QoSProfile,
    statistics: StreamStatistics,
) -> Any:
    topic = node.resolve_topic_name(name)
    parameters = f'qos_overrides.{topic}.publisher'

    def incompatible(event: Any) -> None:
        policy = _policy(event)
        advice = f', or set {parameters}.{policy}' if _can_be_overridden(policy) else ''
        text = f'a subscription to {topic} asks for a {policy} that is not offered, so it gets nothing; '
        _tell(node, statistics, topic, f'{text}change it there{advice}')

    def create(events: PublisherEventCallbacks) -> Any:
        overrides = QoSOverridingOptions(POLICIES)
        return make(kind, name, qos, event_callbacks=events, qos_overriding_options=overrides)

    with _telling_what_is_wrong(node, topic, parameters):
        try:
            return create(PublisherEventCallbacks(incompatible_qos=incompatible))
        except UnsupportedEventTypeError:
            return create(PublisherEventCallbacks())


@contextmanager
def _telling_what_is_wrong(node: Node, topic: str, parameters: str) -> Iterator[None]:
    """Raises SettingsError in place of rclpy's errors, which name neither the topic nor the parameter."""
    try:
        yield
    except InvalidParameterTypeException as error:
        raise SettingsError(str(error)) from error
    except Exception as error:
        for policy, kind in KINDS.items():
            value = node.get_parameter_or(f'{parameters}.{policy}').value
            values = [name.lower() for name in kind.__members__ if name == name.upper() != 'UNKNOWN']
            if value is not None and value.lower() not in values:
                raise SettingsError(
                    f"{parameters}.{policy} is '{value}'; use one of {', '.join(values)}"
                ) from error
        depth = node.get_parameter_or(f'{parameters}.depth').value
        if depth is not None and not 0 <= depth <= MOST_DEPTH:
            raise SettingsError(f'{parameters}.depth is {depth}; use 0 to {MOST_DEPTH}') from error
        raise SettingsError(
            f'{topic} cannot be made: {error_text(error)}; if this process has it with another type of '
            'messages, remap one of the two'
        ) from error


def _forget_overrides(node: Node, parameters: str) -> None:
    """Lets a subscription declare its parameters anew.

    Those of the one before it hold the qualities which that one was made with, and would override what
    `drop_policy` and `queue_size` say now. What a user gave at start is found again.
    """
    for policy in POLICIES:
        name = f'{parameters}.{policy.name.lower()}'
        if node.has_parameter(name):
            node.describe_parameter(name).read_only = False  # else it could not be undeclared
            node.undeclare_parameter(name)


def _tell(node: Node, statistics: StreamStatistics, topic: str, text: str) -> None:
    if statistics.qos_problem(topic, text) >= THROTTLE_S:  # rclpy would throttle all topics as one
        node.get_logger().warning(text)


def _policy(event: Any) -> str:
    try:
        return QoSPolicyKind(int(event.last_policy_kind)).name.lower()
    except (TypeError, ValueError):
        return 'QoS policy'


def _can_be_overridden(policy: str) -> bool:
    return policy in (kind.name.lower() for kind in POLICIES)
