"""Names and QoS of what is subscribed to and published, on nodes with arguments of their own."""

from __future__ import annotations

import time

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header, String

import vss_ros.ros.node
from vss_ros.core.classes import load_classes
from vss_ros.core.errors import SettingsError
from vss_ros.ros import labels
from vss_ros.ros.labels import Labels
from vss_ros.ros.node import SegmentationNode
from vss_ros.ros.qos_events import create_lifecycle_publisher, create_subscription
from vss_ros.ros.settings import NodeSettings, Settings
from vss_ros.ros.topic_source import TopicSource


@pytest.fixture
def node_with():
    """Makes nodes `/x/segmentation` with ROS arguments."""
    made = []

    def make(*arguments: str, kind: type = LifecycleNode) -> LifecycleNode:
        context = rclpy.Context()
        arguments = ['--ros-args', '-r', '__ns:=/x', *arguments]
        rclpy.init(args=arguments, context=context, signal_handler_options=SignalHandlerOptions.NO)
        made.append(kind('segmentation', context=context))
        return made[-1]

    yield make
    for node in made:
        node.destroy_node()
        rclpy.try_shutdown(context=node.context)


def spin_until(node, condition, deadline_s: float = 30.0):
    """Spins a node until something is true, and returns it."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    end = time.monotonic() + deadline_s
    try:
        while not (value := condition()):
            assert time.monotonic() < end
            executor.spin_once(timeout_sec=0.02)
        return value
    finally:
        executor.remove_node(node)
        executor.shutdown()


def subscribed(node, settings: NodeSettings, statistics) -> TopicSource:
    source = TopicSource(node, settings, statistics, pytest.fail)
    source.subscribe()
    return source


def topics(node) -> list[str]:
    return [subscription.topic_name for subscription in node.subscriptions]


def test_a_topic_that_remappings_give_two_types_is_named(node_with, statistics):
    node = node_with('-r', 'image_raw:=camera_info')
    with pytest.raises(SettingsError, match=r'/x/camera_info cannot be made: RCLError.*remap one of the two'):
        subscribed(node, NodeSettings(), statistics)


@pytest.mark.parametrize(
    ('transport', 'rules', 'topic'),
    [
        ('raw', ('image_raw:=/y/image', '/y/image:=/y/image_color'), '/y/image'),
        ('raw', ('image_raw:=image', 'image:=other'), '/x/image'),
        ('compressed', ('image_raw:=/y/image', '/y/image:=/y/image_color'), '/y/image/compressed'),
        ('compressed', ('image_raw:=/y/image', '/y/image/compressed:=/jpegs'), '/jpegs'),
    ],
)
def test_the_topic_that_is_named_is_the_one_that_is_subscribed_to(
    node_with, statistics, transport, rules, topic
):
    node = node_with(*(part for rule in rules for part in ('-r', rule)))
    source = subscribed(node, NodeSettings(image_transport=transport), statistics)
    assert source.topic == topics(node)[0] == topic
    assert node.has_parameter(f'qos_overrides.{topic}.subscription.depth')
    kind = next(node.subscriptions).msg_type
    camera = rclpy.create_node('camera', context=node.context, use_global_arguments=False)
    camera.create_publisher(kind, topic, 1)
    spin_until(node, lambda: (source.look_for_publishers(), source.publishers.names)[1])
    assert source.publishers.names[0].startswith('/camera (')
    source.close()
    camera.destroy_node()


@pytest.mark.parametrize(
    ('policy', 'value', 'hint'),
    [
        ('reliability', 'bogus', "is 'bogus'; use one of .*best_effort"),
        ('durability', 'forever', "is 'forever'; use one of .*transient_local"),
        ('history', 'last', "is 'last'; use one of .*keep_last"),
        ('depth', '-3', 'is -3; use 0 to 2147483647'),
        ('depth', '2147483648', 'is 2147483648; use 0 to 2147483647'),
    ],
)
@pytest.mark.parametrize('end', ['subscription', 'publisher'])
def test_an_override_that_cannot_be_used_is_named(node_with, statistics, end, policy, value, hint):
    name = f'qos_overrides./x/topic.{end}.{policy}'
    node = node_with('-p', f'{name}:={value}')
    qos = QoSProfile(depth=1)
    create, callback = create_lifecycle_publisher, ()
    if end == 'subscription':
        create, callback = create_subscription, (ignore,)
    with pytest.raises(SettingsError, match=f'^{name} {hint}'):
        create(node, String, 'topic', *callback, qos, statistics)


def test_an_override_of_a_wrong_kind_is_named_with_the_kind_that_it_should_have(node_with, statistics):
    name = 'qos_overrides./x/topic.subscription.depth'
    node = node_with('-p', f'{name}:=deep')
    text = f"'{name}' to 'deep' of type 'STRING', expecting type 'INTEGER': {name}$"
    with pytest.raises(SettingsError, match=text):
        create_subscription(node, String, 'topic', ignore, QoSProfile(depth=1), statistics)


def ignore(message: String) -> None:
    """Takes a message; rclpy wants a callback with a signature."""


def refusals(node, statistics) -> list[str]:
    return spin_until(node, lambda: statistics.qos_problems(60))


def test_what_is_refused_by_a_quality_that_can_be_overridden_is_told_with_the_override(node_with, statistics):
    node = node_with()
    create_lifecycle_publisher(node, String, 'topic', QoSProfile(depth=1), statistics)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(String, 'topic', ignore, latched)
    [text] = refusals(node, statistics)
    name = 'qos_overrides./x/topic.publisher.durability'
    assert text.endswith(f'change it there, or set {name}')
    assert node.has_parameter(name)


def test_what_is_refused_by_a_quality_that_cannot_be_overridden_is_told_without(node_with, statistics):
    node = node_with()
    create_lifecycle_publisher(node, String, 'topic', QoSProfile(depth=1), statistics)
    node.create_subscription(
        String, 'topic', ignore, QoSProfile(depth=1, deadline=rclpy.duration.Duration(seconds=1))
    )
    [text] = refusals(node, statistics)
    assert text.endswith('asks for a deadline that is not offered, so it gets nothing; change it there')


def test_a_subscription_to_the_labels_that_is_refused_is_told_like_any_other(node_with, statistics):
    name = 'qos_overrides./x/segmentation/label_names.publisher.reliability'
    node = node_with('-p', f'{name}:=best_effort')
    shown = Labels(node, load_classes('camvid11'), Settings(), statistics)
    node.create_subscription(String, '~/label_names', ignore, 1)
    [text] = refusals(node, statistics)
    assert text.endswith(name)
    shown.close()


def test_labels_are_repeated_while_a_simulated_clock_rests(node_with, statistics, monkeypatch):
    node = node_with('-p', 'use_sim_time:=true')
    sent = []
    monkeypatch.setattr(labels.Labels, 'publish', lambda self: sent.append(1))
    shown = Labels(
        node, load_classes('camvid11'), Settings(node=NodeSettings(label_info_period=0.1)), statistics
    )
    spin_until(node, lambda: len(sent) >= 3)
    shown.close()


def test_an_error_of_several_lines_is_told_in_one(node_with, monkeypatch, capfd):
    def refuse(*others):
        raise TypeError('no such arguments:\n    1. self\n')

    monkeypatch.setattr(vss_ros.ros.node, 'Loading', refuse)
    node = node_with(kind=SegmentationNode)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert 'cannot configure: TypeError: no such arguments: 1. self\n' in capfd.readouterr().err


def test_a_configuration_that_an_override_prevents_leaves_no_topic_behind(node_with, echo_model, capfd):
    name = 'qos_overrides./x/segmentation/frame_info.publisher.reliability'
    node = node_with('-p', f'{name}:=bogus', '-p', f'model:={echo_model}', kind=SegmentationNode)
    before = sorted(publisher.topic_name for publisher in node.publishers)
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert f"cannot configure: {name} is 'bogus'; use one of" in capfd.readouterr().err
    assert sorted(publisher.topic_name for publisher in node.publishers) == before
    node.close()


def test_an_activation_that_an_override_prevents_leaves_no_publisher_activated(node_with, echo_model, capfd):
    name = 'qos_overrides./x/image_raw.subscription.reliability'
    node = node_with('-p', f'{name}:=bogus', '-p', f'model:={echo_model}', kind=SegmentationNode)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    publishers = [publisher for publisher in node.publishers if isinstance(publisher, LifecyclePublisher)]
    assert node.trigger_activate() == TransitionCallbackReturn.FAILURE
    assert f"cannot activate: {name} is 'bogus'; use one of" in capfd.readouterr().err
    assert publishers
    assert not any(publisher.is_activated for publisher in publishers)
    node.close()


@pytest.mark.parametrize(
    ('rules', 'expected'),
    [
        ((), ['/x/camera_info']),
        (('image_raw:=/y/image',), ['/y/camera_info', '/x/camera_info']),
        (
            ('image_raw:=/x/rect/image', 'camera_info:=/x/camera_info'),
            ['/x/rect/camera_info', '/x/camera_info'],
        ),
        (('image_raw:=/y/image', 'camera_info:=/z/info'), ['/z/info']),
        (('image_raw:=/y/image', 'camera_info:=/z/info', '/z/info:=/z/other'), ['/z/info']),
    ],
)
def test_camera_infos_are_taken_beside_the_image_and_by_their_own_name(
    node_with, statistics, rules, expected
):
    node = node_with(*(part for rule in rules for part in ('-r', rule)))
    source = subscribed(node, NodeSettings(), statistics)
    assert topics(node)[1:] == expected
    assert source.camera_info_topic == ', '.join(expected)
    source.close()


def found_camera_info(source):
    return source.camera_infos.find(Header(frame_id='front'), (48, 64))


def test_a_camera_info_beside_the_image_goes_before_one_elsewhere(node_with, statistics):
    node = node_with('-r', 'image_raw:=/x/rect/image')
    source = subscribed(node, NodeSettings(), statistics)
    info = CameraInfo(header=Header(frame_id='front'), height=48, width=64)
    elsewhere, beside = (
        node.create_publisher(CameraInfo, topic, 1) for topic in ('camera_info', 'rect/camera_info')
    )
    spin_until(node, lambda: (elsewhere.publish(info), found_camera_info(source))[1])
    assert source.camera_info_topic == '/x/camera_info'
    info.k[0] = 3
    spin_until(node, lambda: (beside.publish(info), found_camera_info(source).k[0] == 3)[1])
    assert source.camera_info_topic == '/x/rect/camera_info'
    info.k[0] = 7
    source.camera_infos.keep(info, rank=1)
    assert found_camera_info(source).k[0] == 3
    source.close()


def test_a_camera_info_that_was_sent_once_for_whoever_comes_later_arrives(node_with, statistics):
    node = node_with()
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    camera = node.create_publisher(CameraInfo, 'camera_info', latched)
    camera.publish(CameraInfo(header=Header(frame_id='front'), height=48, width=64))
    source = subscribed(node, NodeSettings(), statistics)
    spin_until(node, lambda: (source.look_for_publishers(), found_camera_info(source))[1])
    camera = node.create_publisher(CameraInfo, 'camera_info', 1)  # another, which sends it again and again
    info = CameraInfo(header=Header(frame_id='front'), height=48, width=64, distortion_model='new')

    def comes():
        source.look_for_publishers()
        camera.publish(info)
        return found_camera_info(source).distortion_model == 'new'

    spin_until(node, comes)
    assert len(topics(node)) == 2  # none is left over
    source.close()
