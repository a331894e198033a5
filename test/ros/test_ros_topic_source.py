"""The source of a topic that nobody publishes on: messages are handed to its callbacks."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from vss_ros.core.errors import SettingsError
from vss_ros.ros import topic_source
from vss_ros.ros.inbox import Inbox
from vss_ros.ros.publishers import SHARED_S
from vss_ros.ros.settings import NodeSettings
from vss_ros.ros.topic_source import PAUSE_S, TopicSource

SIZE = (48, 64)  # (height, width)


@pytest.fixture
def source(probe, statistics):
    source = TopicSource(probe.node, NodeSettings(drop_policy='queue'), statistics, pytest.fail)
    yield source
    source.close()


def header(number: int) -> Header:
    return Header(stamp=Time(sec=100 + number), frame_id='front')


def image(number: int) -> Image:
    height, width = SIZE
    message = Image(height=height, width=width, encoding='mono8', step=width, header=header(number))
    message.data.frombytes(bytes(height * width))
    return message


def camera_info(number: int) -> CameraInfo:
    return CameraInfo(height=SIZE[0], width=SIZE[1], header=header(number))


def numbered(source: TopicSource, *numbers: int) -> None:
    """Hands over images with these numbers of their publisher."""
    for number in numbers:
        source.on_image(image(number), {'publication_sequence_number': number})


def frame_of(source: TopicSource, message: Image):
    source.on_image(message, {})
    return next(iter(source))


@pytest.mark.parametrize(
    'given', [{}, {'publication_sequence_number': None}, {'publication_sequence_number': 0}]
)
def test_images_are_taken_also_where_the_middleware_does_not_number_them(source, statistics, given):
    frames = iter(source)
    for number in range(3):
        source.on_image(image(number), given)
        assert next(frames).header == header(number)
    assert statistics.snapshot().counts == {'received': 3}


def test_the_time_of_arrival_stands_in_for_a_stamp_that_a_driver_leaves_at_zero(source, later):
    unstamped = image(0)
    unstamped.header.stamp = Time()
    first = frame_of(source, unstamped)
    later(10)
    second = frame_of(source, unstamped)
    assert second.stamp_ns - first.stamp_ns >= 10**10
    assert second.header.stamp == Time()


def test_what_is_missing_in_the_numbers_of_the_publisher_is_counted(source, statistics):
    numbered(source, 7, 8, 12, 14)
    for _ in range(2):  # the second time nothing is new
        source.look_for_publishers()
    assert statistics.snapshot().counts == {'received': 4, 'missed': 4}


def test_a_camera_info_of_before_a_pause_is_there_for_what_is_in_work_and_forgotten_at_the_new_beginning(
    source,
):
    source.subscribe()
    source.camera_infos.keep(camera_info(1))
    frame = frame_of(source, image(1))
    source.unsubscribe()
    assert frame.find_camera_info() == camera_info(1)
    source.subscribe()
    assert frame_of(source, image(2)).find_camera_info() is None


def test_who_has_subscribed_already_goes_on_as_before(source, probe):
    source.subscribe()
    source.camera_infos.keep(camera_info(1))
    before = list(probe.node.subscriptions)
    source.subscribe()
    source.look_for_publishers()  # nobody is there
    assert list(probe.node.subscriptions) == before
    assert frame_of(source, image(1)).find_camera_info() == camera_info(1)


def test_an_image_that_waited_behind_many_others_still_gets_its_own_camera_info(probe, statistics):
    settings = NodeSettings(drop_policy='queue', queue_size=400)
    source = TopicSource(probe.node, settings, statistics, pytest.fail)
    for number in range(400):
        source.camera_infos.keep(camera_info(number))
        source.on_image(image(number), {})
    frames = iter(source)
    assert [next(frames).find_camera_info() for _ in range(2)] == [camera_info(0), camera_info(1)]
    source.close()


def test_all_images_that_the_middleware_lost_are_counted_and_no_camera_infos(source, statistics, monkeypatch):
    told, subscribe = {}, topic_source.create_subscription

    def listen(node, kind, *others):
        told[kind] = others[-1]
        return subscribe(node, kind, *others)

    monkeypatch.setattr(topic_source, 'create_subscription', listen)
    source.subscribe()
    assert told[CameraInfo] is None
    for count in (3, 2):
        told[Image](count)
    assert statistics.snapshot().counts['lost'] == 5


@pytest.mark.parametrize('reliability', [ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE])
@pytest.mark.parametrize('durability', [DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL])
def test_camera_infos_come_from_a_publisher_of_any_kind_also_where_images_are_reliable(
    source, probe, reliability, durability
):
    source.subscribe()
    qos = QoSProfile(depth=1, reliability=reliability, durability=durability)
    camera = probe.node.create_publisher(CameraInfo, '/camera_info', qos)
    frame = frame_of(source, image(3))

    def comes():
        source.look_for_publishers()
        camera.publish(camera_info(3))
        return frame.find_camera_info()

    assert probe.until(comes, 'the camera_info') == camera_info(3)
    probe.node.destroy_publisher(camera)


def test_who_looks_for_publishers_while_the_node_is_disabled_subscribes_to_nothing(source, probe):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    camera = probe.node.create_publisher(CameraInfo, '/camera_info', latched)
    probe.until(lambda: probe.node.get_publishers_info_by_topic('/camera_info'), 'the publisher')
    source.look_for_publishers()
    assert not source.is_subscribed
    probe.node.destroy_publisher(camera)


def test_why_a_subscription_got_nothing_is_no_news_once_it_is_made_anew(source, statistics):
    source.subscribe()
    for topic in ('/camera_info', '/segmentation/mask'):
        statistics.qos_problem(topic, f'reliability of {topic}')
    source.unsubscribe()
    source.subscribe()
    assert statistics.qos_problems(60) == ['reliability of /segmentation/mask']


def test_an_image_is_converted_as_its_encoding_says(source):
    assert np.array_equal(frame_of(source, image(1)).image, np.zeros((*SIZE, 3), np.uint8))


def test_a_camera_that_sends_nothing_usable_is_a_pause_like_silence(probe, statistics):
    """Else late results would be held back for as long as the bad images come."""
    bad = []
    source = TopicSource(probe.node, NodeSettings(drop_policy='queue'), statistics, bad.append)
    unusable = image(1)
    unusable.encoding = 'no such encoding'
    frames = iter(source)
    source.on_image(image(0), {})
    assert next(frames) is not None

    def send_until_paused():
        while not paused.wait(0.02):
            source.on_image(unusable, {})

    paused = threading.Event()
    camera = threading.Thread(target=send_until_paused)
    camera.start()
    assert next(frames) is None
    paused.set()
    camera.join()
    assert bad
    source.close()


def topics_of(node) -> list[str]:
    return [subscription.topic_name for subscription in node.subscriptions]


def test_a_source_that_could_subscribe_only_to_a_part_has_not_subscribed(source, probe, monkeypatch):
    subscribe, before = topic_source.create_subscription, topics_of(probe.node)

    def refuse(node, kind, *others):
        if kind is CameraInfo:
            raise SettingsError('no such policy')
        return subscribe(node, kind, *others)

    with monkeypatch.context() as patch:
        patch.setattr(topic_source, 'create_subscription', refuse)
        with pytest.raises(SettingsError, match='no such policy'):
            source.subscribe()
    assert not source.is_subscribed
    assert topics_of(probe.node) == before
    source.subscribe()
    assert source.is_subscribed
    assert topics_of(probe.node) == [*before, '/image_raw', '/camera_info']


@pytest.mark.parametrize(
    ('drop_policy', 'reliability'),
    [('latest', ReliabilityPolicy.BEST_EFFORT), ('queue', ReliabilityPolicy.RELIABLE)],
)
def test_a_replay_is_heard_reliably_and_a_live_camera_as_it_comes(
    probe, statistics, drop_policy, reliability
):
    source = TopicSource(probe.node, NodeSettings(drop_policy=drop_policy), statistics, pytest.fail)
    source.subscribe()
    [end] = probe.node.get_subscriptions_info_by_topic('/image_raw')
    assert end.qos_profile.reliability == reliability
    source.close()


def test_a_worker_that_waits_for_an_image_has_none_in_work(source, monkeypatch):
    waited, take = [], Inbox.take
    monkeypatch.setattr(Inbox, 'take', lambda *given: waited.append(source.in_work_s) or take(*given))
    frames = iter(source)
    for number in range(2):
        source.on_image(image(number), {})
        assert next(frames) is not None
        assert source.in_work_s > 0
    assert waited == [0, 0]


def test_what_is_missing_in_the_numbers_of_several_publishers_says_nothing(source, statistics):
    source.publishers.names = ['/front (Image, reliable)', '/rear (Image, reliable)']
    numbered(source, 7, 1007)
    source.look_for_publishers()
    assert statistics.snapshot().counts == {'received': 2}


def test_images_of_several_publishers_are_told_by_their_numbers_and_one_that_died_is_none(source, later):
    source.publishers.names = ['/front (Image, reliable)', '/front (Image, reliable)']
    numbered(source, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8)  # the driver was started again
    assert not source.publishers.take_turns
    numbered(source, 1000, 9, 1001, 10, 1002, 11)
    publishers = source.publishers
    assert publishers.take_turns
    publishers.names = publishers.names[:1]
    assert not publishers.take_turns
    publishers.names = 2 * publishers.names
    assert publishers.take_turns
    later(SHARED_S)
    assert not publishers.take_turns  # any more
    numbered(source, 3)
    assert not publishers.take_turns  # one time alone


@pytest.mark.parametrize('numbers', [(0, 0, 0), (1, 1, 2, 2, 3, 3)], ids=['without numbers', 'in step'])
def test_where_numbers_do_not_tell_images_apart_several_publishers_are_taken_at_their_word(source, numbers):
    source.publishers.names = ['/front (Image, reliable)', '/rear (Image, reliable)']
    assert not source.publishers.take_turns
    numbered(source, *numbers)
    assert source.publishers.take_turns


def test_images_that_a_new_publisher_sent_before_it_was_heard_are_not_missed(source, probe, statistics):
    def ids():
        infos = probe.node.get_publishers_info_by_topic('/image_raw')
        return [tuple(info.endpoint_gid) for info in infos]

    first = probe.node.create_publisher(Image, '/image_raw', 1)
    probe.until(lambda: len(ids()) == 1, 'the first one')
    before = ids()
    source.look_for_publishers()
    numbered(source, 7, 8)
    probe.node.destroy_publisher(first)
    second = probe.node.create_publisher(Image, '/image_raw', 1)
    probe.until(lambda: len(ids()) == 1 and ids() != before, 'the second one')
    source.look_for_publishers()
    numbered(source, 200, 201, 203)
    source.look_for_publishers()
    assert statistics.snapshot().counts['missed'] == 1
    probe.node.destroy_publisher(second)


def test_nothing_is_missed_between_images_of_two_publishers_also_before_the_second_is_known(
    source, probe, statistics
):
    cameras = [probe.node.create_publisher(Image, '/image_raw', 1)]

    def are_seen(number):
        source.look_for_publishers()
        return len(source.publishers.names) == number

    probe.until(lambda: are_seen(1), 'the first one')
    numbered(source, 7, 8)
    cameras.append(probe.node.create_publisher(Image, '/image_raw', 1))
    numbered(source, 1007, 9, 1008)
    probe.until(lambda: are_seen(2), 'the second one')
    assert statistics.snapshot().counts['missed'] == 0
    for camera in cameras:
        probe.node.destroy_publisher(camera)


def test_the_time_of_a_frame_is_from_its_message_to_its_last_answer(source, statistics, later, monkeypatch):
    taken, convert = [], topic_source.image_to_bgr

    def convert_slowly(message):
        later(5)
        return convert(message)

    monkeypatch.setattr(topic_source, 'image_to_bgr', convert_slowly)
    monkeypatch.setattr(statistics, 'took', lambda *seconds: taken.append(seconds))
    frames = iter(source)
    source.on_image(image(0), {})
    later(100)  # in which it waits
    assert next(frames) is not None
    later(5)  # as with an engine, or a publisher, that is slow
    assert next(frames) is None
    [(seconds, allowed_s)] = taken
    assert 10 <= seconds < 100
    assert allowed_s == NodeSettings().max_allowed_processing_time_ms / 1e3


def test_nothing_is_missed_beside_images_of_a_publisher_that_left_before_anyone_looked(source, statistics):
    """Such as `ros2 topic pub --once`."""
    numbered(source, 507, 508, 1, 509, 510)
    source.look_for_publishers()
    numbered(source, 511, 1)
    source.look_for_publishers()
    numbered(source, 512)
    source.look_for_publishers()
    assert statistics.snapshot().counts['missed'] == 0
    numbered(source, 515)
    source.look_for_publishers()
    assert statistics.snapshot().counts['missed'] == 2


def test_images_sent_while_disabled_are_not_missed(source, statistics):
    source.subscribe()
    numbered(source, 1)
    source.unsubscribe()
    source.subscribe()
    numbered(source, 50)
    source.look_for_publishers()
    assert statistics.snapshot().counts['missed'] == 0


def test_late_results_are_not_held_back_until_a_limited_rate_allows_the_next_image(probe, statistics):
    source = TopicSource(probe.node, NodeSettings(max_rate=0.01), statistics, pytest.fail)
    frames = iter(source)
    for number in range(2):
        source.on_image(image(number), {})
        assert next(frames) is not None
    source.on_image(image(2), {})  # is due in 100 s
    assert next(frames) is None
    source.close()


def test_a_limited_rate_holds_on_average_and_nothing_is_made_up_for_after_a_pause(
    probe, statistics, later, monkeypatch
):
    monkeypatch.setattr(topic_source, 'PAUSE_S', 0.01)
    source = TopicSource(probe.node, NodeSettings(max_rate=0.01), statistics, pytest.fail)
    frames = iter(source)
    for pause_s in (0, 10**6):
        later(pause_s)
        given = 0
        for number in range(45):
            later(100 / 1.5)  # the camera is a little faster
            source.on_image(image(number), {})
            given += next(frames) is not None
        assert 28 <= given <= 32
    source.close()


def test_the_worker_counts_as_busy_in_a_pause_too_where_late_results_are_computed(source, later):
    frames = iter(source)
    assert next(frames) is None
    later(10)
    assert source.in_work_s >= 10


def test_a_pause_is_over_with_an_image_and_comes_again_only_after_as_long_a_silence(source, later):
    frames = iter(source)
    for number in range(3):
        source.on_image(image(number), {})
        assert next(frames) is not None
        later(0.8 * PAUSE_S)
    for _ in range(2):
        start = time.monotonic()
        assert next(frames) is None
        assert time.monotonic() - start > 0.8 * PAUSE_S


@pytest.mark.parametrize(('queue_size', 'expected'), [(2000, 2000), (5, 300)])
def test_a_queue_of_packets_is_as_long_as_asked_for_and_never_too_short_to_decode(
    probe, statistics, monkeypatch, queue_size, expected
):
    monkeypatch.setattr(topic_source, 'message_type', lambda transport: Image)  # those of video have no wheel
    settings = NodeSettings(image_transport='ffmpeg', drop_policy='queue', queue_size=queue_size)
    source = TopicSource(probe.node, settings, statistics, pytest.fail)
    source.subscribe()
    [depth] = [each.qos_profile.depth for each in probe.node.subscriptions if each.topic_name == source.topic]
    assert depth == expected
    for number in range(expected):
        source.on_image(image(number), {})
    assert statistics.snapshot().counts == {'received': expected}
    source.on_image(image(expected), {})
    assert statistics.snapshot().counts['dropped'] == 1
    source.close()
