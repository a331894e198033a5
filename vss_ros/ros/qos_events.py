"""Says by name what the middleware would keep to itself: refused connections and lost messages."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind

from vss_ros.ros.statistics import StreamStatistics

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks


def subscription_events(
    node: Node, topic: str, statistics: StreamStatistics, counts: bool
) -> SubscriptionEventCallbacks:
    """Callbacks for a subscription.

    Args:
        counts: whether lost messages of this topic are lost frames.
    """

    def incompatible(event: Any) -> None:
        policy = _policy(event)
        text = (
            f'a publisher on {topic} offers a {policy} that this subscription does not accept, so its '
            f'messages do not arrive; set qos_overrides.{topic}.subscription.{policy} to what it offers'
        )
        statistics.qos_problems[topic] = text
        node.get_logger().warning(text, throttle_duration_sec=10.0)

    def lost(event: Any) -> None:
        if counts:
            statistics.count('lost', event.total_count_change)

    return SubscriptionEventCallbacks(incompatible_qos=incompatible, message_lost=lost)


def publisher_events(node: Node, topic: str, statistics: StreamStatistics) -> PublisherEventCallbacks:
    """Callbacks for a publisher."""

    def incompatible(event: Any) -> None:
        policy = _policy(event)
        text = (
            f'a subscription to {topic} asks for a {policy} that is not offered, so it gets nothing; '
            f'change it there, or set qos_overrides.{topic}.publisher.{policy}'
        )
        statistics.qos_problems[topic] = text
        node.get_logger().warning(text, throttle_duration_sec=10.0)

    return PublisherEventCallbacks(incompatible_qos=incompatible)


def _policy(event: Any) -> str:
    try:
        return QoSPolicyKind(int(event.last_policy_kind)).name.lower()
    except (TypeError, ValueError):
        return 'QoS policy'
