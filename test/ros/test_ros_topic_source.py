"""The source of a topic that nobody publishes on: messages are handed to its callbacks."""

from __future__ import annotations

import copy
import threading
import time
from collections import deque

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from vss_ros.core.errors import SettingsError
from vss_ros.ros.camera_infos import CameraInfos, described_size, scaled_camera_info
from vss_ros.ros.publishers import SHARED_S, TURNS
from vss_ros.ros.settings import NodeSettings
from vss_ros.ros.statistics import StreamStatistics
from vss_ros.ros.topic_source import TopicSource

SIZE = (48, 64)  # (height, width)


@pytest.fixture
def source(probe):
    source = TopicSource(probe.node, NodeSettings(drop_policy='queue'), StreamStatistics(), pytest.fail)
    yield source
    source.close()


def header(number: int, camera: str = 'front') -> Header:
    return Header(stamp=Time(sec=100 + number), frame_id=camera)


def image(number: int, camera: str = 'front') -> Image:
    height, width = SIZE
    message = Image(height=height, width=width, encoding='mono8', step=width, header=header(number, camera))
    message.data.frombytes(bytes(height * width))
    return message


def camera_info(number: int, camera: str = 'front', size: tuple[int, int] = SIZE) -> CameraInfo:
    return CameraInfo(height=size[0], width=size[1], header=header(number, camera))


def frame_of(source: TopicSource, message: Image):
    source._on_image(message)
    return next(iter(source))


@pytest.mark.parametrize(
    'given', [{}, {'publication_sequence_number': None}, {'publication_sequence_number': 0}]
)
def test_images_are_taken_also_where_the_middleware_does_not_number_them(source, given):
    frames = iter(source)
    for number in range(3):
        source._on_numbered_image(image(number), given)
        assert next(frames).header == header(number)
    assert source._statistics.counts == {'received': 3}


def test_the_time_of_arrival_stands_in_for_a_stamp_that_a_driver_leaves_at_zero(source):
    unstamped = image(0)
    unstamped.header.stamp = Time()
    first = frame_of(source, unstamped)
    time.sleep(0.01)
    second = frame_of(source, unstamped)
    assert second.stamp_ns - first.stamp_ns >= 10_000_000
    assert second.header.stamp == Time()


def test_what_is_missing_in_the_numbers_of_the_publisher_is_counted(source):
    for number in (7, 8, 12, 11):
        source._on_numbered_image(image(number), {'publication_sequence_number': number})
    assert source._statistics.counts == {'received': 4, 'missed': 3}


def test_an_image_gets_the_camera_info_with_its_stamp_and_else_the_newest_of_its_camera_and_size(source):
    frame = frame_of(source, image(3))
    assert frame.find_camera_info() is None
    for info in (
        camera_info(1),
        camera_info(2),
        camera_info(4, size=(480, 640)),
        camera_info(5, camera='rear'),
    ):
        source._camera_infos.keep(info)
    assert frame.find_camera_info() == camera_info(2)
    assert source._statistics.counts['camera_info_unmatched'] == 1
    source._camera_infos.keep(camera_info(3))
    assert frame.find_camera_info() == camera_info(3)
    assert source._statistics.counts['camera_info_unmatched'] == 1


@pytest.mark.parametrize('number', [2, 3], ids=['of another time', 'with the stamp of the image'])
@pytest.mark.parametrize('other', [{'camera': 'rear'}, {'size': (480, 640)}])
def test_the_geometry_of_another_camera_or_another_size_is_never_given_and_that_is_counted(
    source, number, other
):
    source._camera_infos.keep(camera_info(number, **other))
    frame = frame_of(source, image(3))
    assert frame.find_camera_info() is None
    assert source._statistics.counts['camera_info_unmatched'] == 1
    assert 'the images of' in source.camera_info_misfit
    source._camera_infos.keep(camera_info(1))
    assert frame.find_camera_info() == camera_info(1)
    assert source._statistics.counts['camera_info_unmatched'] == 2
    assert source.camera_info_misfit == ''


def test_why_an_image_has_no_camera_info_is_no_news_once_its_own_comes(source):
    source._camera_infos.keep(camera_info(1, camera='rear'))
    frame = frame_of(source, image(3))
    assert frame.find_camera_info() is None
    source._camera_infos.keep(camera_info(3))
    assert frame.find_camera_info() == camera_info(3)
    assert source.camera_info_misfit == ''


def test_a_camera_info_of_before_a_pause_is_there_for_what_is_in_work_and_forgotten_at_the_new_beginning(
    source,
):
    source.subscribe()
    source._camera_infos.keep(camera_info(1))
    frame = frame_of(source, image(1))
    source.unsubscribe()
    assert frame.find_camera_info() == camera_info(1)
    source.subscribe()
    assert frame_of(source, image(2)).find_camera_info() is None


@pytest.mark.parametrize('reliability', [ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE])
def test_camera_infos_come_from_a_publisher_of_either_kind_also_where_images_are_reliable(
    source, probe, reliability
):
    source.subscribe()
    qos = QoSProfile(depth=1, reliability=reliability)
    camera = probe.node.create_publisher(CameraInfo, '/camera_info', qos)
    frame = frame_of(source, image(3))

    def comes():
        camera.publish(camera_info(3))
        return frame.find_camera_info()

    assert probe.until(comes, 'the camera_info') == camera_info(3)
    probe.node.destroy_publisher(camera)


def test_a_bag_that_plays_again_and_again_keeps_as_many_camera_infos_as_before():
    kept = CameraInfos(5, StreamStatistics())
    for number in [*range(2000), *range(1000)]:
        kept.keep(camera_info(number))
    assert len(kept._by_stamp) == 5 + 300
    assert kept.find(header(5000), SIZE) == camera_info(999)
    kept.keep(camera_info(900))
    assert kept.find(header(5000), SIZE) == camera_info(900)  # the newest one again


def test_a_camera_info_may_speak_of_a_part_of_the_sensor_and_of_binned_pixels():
    info = camera_info(1, size=(960, 1280))
    assert described_size(info) == (960, 1280)
    info.binning_x = info.binning_y = 2
    assert described_size(info) == (480, 640)
    info.roi.height, info.roi.width = 400, 600
    assert described_size(info) == (200, 300)


def test_an_image_is_converted_as_its_encoding_says(source):
    assert np.array_equal(frame_of(source, image(1)).image, np.zeros((*SIZE, 3), np.uint8))


def test_a_camera_that_sends_nothing_usable_is_a_pause_like_silence(probe):
    """Else late results would be held back for as long as the bad images come."""
    bad = []
    source = TopicSource(probe.node, NodeSettings(drop_policy='queue'), StreamStatistics(), bad.append)
    unusable = image(1)
    unusable.encoding = 'no such encoding'
    frames = iter(source)
    source._on_image(image(0))
    assert next(frames) is not None

    def send_until_paused():
        while not paused.wait(0.02):
            source._on_image(unusable)

    paused = threading.Event()
    camera = threading.Thread(target=send_until_paused)
    camera.start()
    assert next(frames) is None
    paused.set()
    camera.join()
    assert bad
    source.close()


def test_a_source_that_could_subscribe_only_to_a_part_has_not_subscribed(source, monkeypatch):
    def refuse(name):
        raise SettingsError('no such policy')

    with monkeypatch.context() as patch:
        patch.setattr(source, '_subscribe_to_infos', refuse)
        with pytest.raises(SettingsError, match='no such policy'):
            source.subscribe()
    assert not source.is_subscribed
    source.subscribe()
    assert set(source._subscriptions) == {source._name, *source._info_names}


@pytest.mark.parametrize(
    ('drop_policy', 'reliability'),
    [('latest', ReliabilityPolicy.BEST_EFFORT), ('queue', ReliabilityPolicy.RELIABLE)],
)
def test_a_replay_is_heard_reliably_and_a_live_camera_as_it_comes(probe, drop_policy, reliability):
    source = TopicSource(probe.node, NodeSettings(drop_policy=drop_policy), StreamStatistics(), pytest.fail)
    source.subscribe()
    [end] = probe.node.get_subscriptions_info_by_topic('/image_raw')
    assert end.qos_profile.reliability == reliability
    source.close()


def test_a_worker_that_waits_for_an_image_has_none_in_work(source, monkeypatch):
    waited, take = [], source._inbox.take
    monkeypatch.setattr(source._inbox, 'take', lambda *times: waited.append(source.in_work_s) or take(*times))
    frames = iter(source)
    for number in range(2):
        source._on_image(image(number))
        assert next(frames) is not None
        assert source.in_work_s > 0
    assert waited == [0, 0]


def test_what_is_missing_in_the_numbers_of_several_publishers_says_nothing(source):
    source.publishers.names = ['/front (Image, reliable)', '/rear (Image, reliable)']
    for number in (7, 1007, 8, 1008):
        source._on_numbered_image(image(number), {'publication_sequence_number': number})
    assert source._statistics.counts == {'received': 4}


def test_images_of_several_publishers_are_told_by_their_numbers_and_one_that_died_is_none(source):
    source.publishers.names = ['/front (Image, reliable)', '/front (Image, reliable)']
    for number in (7, 8, 1, 2, 3, 4, 5, 6, 7, 8):  # the driver was started again
        source._on_numbered_image(image(number), {'publication_sequence_number': number})
    assert not source.publishers.take_turns
    for number in (1000, 9, 1001, 10, 1002, 11):
        source._on_numbered_image(image(number), {'publication_sequence_number': number})
    publishers = source.publishers
    assert publishers.take_turns
    publishers.names = publishers.names[:1]
    assert not publishers.take_turns
    publishers.names = 2 * publishers.names
    publishers._turns = deque((time_s - SHARED_S for time_s in publishers._turns), maxlen=TURNS)
    assert not publishers.take_turns  # any more


def test_where_images_are_not_numbered_several_publishers_are_taken_at_their_word(source):
    source.publishers.names = ['/front (Image, reliable)', '/rear (Image, reliable)']
    assert not source.publishers.take_turns
    for number in range(3):
        source._on_unnumbered_image(image(number))
    assert source.publishers.take_turns


def test_images_that_a_new_publisher_sent_before_it_was_heard_are_not_missed(source, probe):
    def send(*numbers):
        for number in numbers:
            source._on_numbered_image(image(number), {'publication_sequence_number': number})

    def is_another():
        source.look_for_publishers()
        return len(source.publishers.names) == 1 and source.publishers._ids != ids

    ids = source.publishers._ids
    first = probe.node.create_publisher(Image, '/image_raw', 1)
    probe.until(is_another, 'the first one')
    ids = source.publishers._ids
    send(7, 8)
    probe.node.destroy_publisher(first)
    second = probe.node.create_publisher(Image, '/image_raw', 1)
    probe.until(is_another, 'the second one')
    send(200, 201, 203)
    assert source._statistics.counts['missed'] == 1
    probe.node.destroy_publisher(second)


def test_the_time_of_a_frame_is_from_its_message_to_its_last_answer(source, monkeypatch):
    taken, convert = [], source._image_frame

    def convert_slowly(*arguments):
        time.sleep(0.05)
        return convert(*arguments)

    monkeypatch.setattr(source, '_image_frame', convert_slowly)
    monkeypatch.setattr(source._statistics, 'took', lambda *seconds: taken.append(seconds))
    frames = iter(source)
    source._on_image(image(0))
    assert next(frames) is not None
    time.sleep(0.05)  # as an engine, or a publisher
    assert next(frames) is None
    [(seconds, allowed_s)] = taken
    assert seconds >= 0.1
    assert allowed_s == source._settings.max_allowed_processing_time_ms / 1e3


def test_frames_are_slow_for_as_long_as_each_one_is():
    statistics = StreamStatistics()
    for seconds, is_slow in ((0.1, False), (0.3, True), (0.3, True), (0.2, False), (0.21, True)):
        statistics.took(seconds, 0.2)
        assert (statistics.slow_for_s is not None) == is_slow


def test_images_sent_while_disabled_are_not_missed(source):
    source.subscribe()
    source._on_numbered_image(image(0), {'publication_sequence_number': 1})
    source.unsubscribe()
    source.subscribe()
    source._on_numbered_image(image(1), {'publication_sequence_number': 50})
    assert source._statistics.counts['missed'] == 0


def test_a_camera_info_in_the_geometry_of_the_mask_leaves_the_kept_one_as_it_was():
    kept = camera_info(1, size=(96, 128))
    kept.k = np.array([100, 0, 64, 0, 200, 48, 0, 0, 1.0])
    kept.p = np.array([100, 0, 64, 5, 0, 200, 48, 0, 0, 0, 1, 0.0])
    kept.roi.x_offset, kept.roi.width, kept.roi.y_offset, kept.roi.height = 8, 100, 4, 80
    before = copy.deepcopy(kept)
    for _ in range(2):
        scaled = scaled_camera_info(kept, header(2), (96, 128), (24, 64))  # a quarter as high, half as wide
        assert kept == before
    assert scaled.header == header(2)
    assert (scaled.height, scaled.width) == (24, 64)
    assert list(scaled.k) == [50, 0, 32, 0, 50, 12, 0, 0, 1]
    assert list(scaled.p) == [50, 0, 32, 2.5, 0, 50, 12, 0, 0, 0, 1, 0]
    roi = scaled.roi
    assert (roi.x_offset, roi.width, roi.y_offset, roi.height) == (4, 50, 1, 20)
    assert scaled_camera_info(kept, header(2), (96, 128), (96, 128)).header == header(2)
    assert kept == before


def test_late_results_are_not_held_back_until_a_limited_rate_allows_the_next_image(probe):
    settings = NodeSettings(max_rate=0.01)
    source = TopicSource(probe.node, settings, StreamStatistics(), pytest.fail)
    frames = iter(source)
    for number in range(2):
        source._on_image(image(number))
        assert next(frames) is not None
    source._on_image(image(2))  # is due in 100 s
    assert next(frames) is None
    source.close()


def test_the_worker_counts_as_busy_in_a_pause_too_where_late_results_are_computed(source):
    frames = iter(source)
    assert next(frames) is None
    time.sleep(0.01)
    assert source.in_work_s > 0


@pytest.mark.parametrize(('queue_size', 'expected'), [(2000, 2000), (5, 300)])
def test_a_queue_of_packets_is_as_long_as_asked_for_and_never_too_short_to_decode(
    probe, queue_size, expected
):
    settings = NodeSettings(image_transport='ffmpeg', drop_policy='queue', queue_size=queue_size)
    source = TopicSource(probe.node, settings, StreamStatistics(), pytest.fail)
    assert source._inbox.capacity == source._depth == expected
    source.close()
