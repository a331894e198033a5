"""Subscriptions and publishers that say by name what the middleware would keep to itself.

That is: connections refused because the two ends ask for different qualities, and messages lost on the
way. A middleware that knows no such events works too, in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

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


def create_subscription(
    node: Node,
    kind: type,
    topic: str,
    callback: Callable[..., None],
    qos: QoSProfile,
    statistics: StreamStatistics,
    on_lost: Callable[[int], None] | None = None,
) -> Subscription:
    """A subscription whose QoS can be overridden by parameters.

    Args:
        on_lost: is told how many messages were lost on the way.

    Raises:
        rclpy's errors for QoS overrides that cannot be used.
    """

    def incompatible(event: Any) -> None:
        policy = _policy(event)
        _tell(
            node,
            statistics,
            topic,
            f'a publisher on {topic} offers a {policy} that this subscription does not accept, so its '
            f'messages do not arrive; set qos_overrides.{topic}.subscription.{policy} to what it offers',
        )

    def lost(event: Any) -> None:
        if on_lost is not None:
            on_lost(event.total_count_change)

    def create(events: SubscriptionEventCallbacks) -> Subscription:
        overrides = QoSOverridingOptions.with_default_policies()
        _forget_overrides(node, topic, overrides)
        return node.create_subscription(
            kind, topic, callback, qos, event_callbacks=events, qos_overriding_options=overrides
        )

    try:
        return create(SubscriptionEventCallbacks(incompatible_qos=incompatible, message_lost=lost))
    except UnsupportedEventTypeError:
        return create(SubscriptionEventCallbacks())


def create_lifecycle_publisher(
    node: LifecycleNode, kind: type, name: str, qos: QoSProfile, statistics: StreamStatistics
) -> LifecyclePublisher:
    """A lifecycle publisher whose QoS can be overridden by parameters.

    Raises:
        rclpy's errors for QoS overrides that cannot be used.
    """
    topic = node.resolve_topic_name(name)

    def incompatible(event: Any) -> None:
        policy = _policy(event)
        _tell(
            node,
            statistics,
            topic,
            f'a subscription to {topic} asks for a {policy} that is not offered, so it gets nothing; '
            f'change it there, or set qos_overrides.{topic}.publisher.{policy}',
        )

    def create(events: PublisherEventCallbacks) -> LifecyclePublisher:
        overrides = QoSOverridingOptions.with_default_policies()
        return node.create_lifecycle_publisher(
            kind, name, qos, event_callbacks=events, qos_overriding_options=overrides
        )

    try:
        return create(PublisherEventCallbacks(incompatible_qos=incompatible))
    except UnsupportedEventTypeError:
        return create(PublisherEventCallbacks())


def _forget_overrides(node: Node, topic: str, overrides: QoSOverridingOptions) -> None:
    """Lets a subscription declare its parameters anew.

    Those of the one before it hold the qualities which that one was made with, and would override what
    `drop_policy` and `queue_size` say now. What a user gave at start is found again.
    """
    for policy in overrides.policy_kinds:
        name = f'qos_overrides.{topic}.subscription.{policy.name.lower()}'
        if node.has_parameter(name):
            node.describe_parameter(name).read_only = False  # else it could not be undeclared
            node.undeclare_parameter(name)


def _tell(node: Node, statistics: StreamStatistics, topic: str, text: str) -> None:
    statistics.qos_problem(topic, text)
    node.get_logger().warning(text, throttle_duration_sec=THROTTLE_S)


def _policy(event: Any) -> str:
    try:
        return QoSPolicyKind(int(event.last_policy_kind)).name.lower()
    except (TypeError, ValueError):
        return 'QoS policy'
