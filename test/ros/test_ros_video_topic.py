"""Topics of compressed video: real packets in messages that have the fields of the packages' own."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from fractions import Fraction
from importlib.util import find_spec
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from vss_ros.core.errors import FrameError, SettingsError
from vss_ros.ros import topic_source
from vss_ros.ros.inbox import Inbox
from vss_ros.ros.settings import NodeSettings
from vss_ros.ros.topic_source import TopicSource
from vss_ros.ros.video_topic import VIDEO_TRANSPORTS, VideoTopic, decoder_of, message_type

av = pytest.importorskip('av')

GOP = 5


@pytest.fixture(scope='module')
def images():
    """Twelve images of a texture that moves four pixels to the right from one to the next."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 28, 3), dtype=np.uint8)
    texture = cv2.resize(noise, (224, 160), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(texture[24:120, 60 - 4 * n : 188 - 4 * n]) for n in range(12)]


@pytest.fixture(scope='module')
def packets(images):
    """Their MPEG-4 packets."""
    encoder = av.CodecContext.create('mpeg4', 'w')
    encoder.height, encoder.width = images[0].shape[:2]
    encoder.pix_fmt, encoder.framerate, encoder.gop_size = 'yuv420p', Fraction(25), GOP
    encoder.options = {'qmin': '3', 'qmax': '3'}
    found = []
    for number, image in enumerate(images):
        picture = av.VideoFrame.from_ndarray(image, format='bgr24').reformat(format='yuv420p')
        picture.pts = number
        found += [bytes(packet) for packet in encoder.encode(picture)]
    return found


def stamp(number):
    return Time(sec=100 + number)


def message(transport, number, data, encoding='mpeg4'):
    """What a publisher of this transport sends."""
    values = np.frombuffer(data, np.uint8)
    if transport == 'ffmpeg':
        header = Header(stamp=stamp(number), frame_id='front')
        return SimpleNamespace(
            header=header, width=128, height=96, encoding=encoding, pts=number, flags=0, data=values
        )
    return SimpleNamespace(timestamp=stamp(number), frame_id='front', format=encoding, data=values)


def messages(transport, packets, first=0):
    return [message(transport, first + number, data) for number, data in enumerate(packets)]


@pytest.mark.parametrize('transport', VIDEO_TRANSPORTS)
def test_every_message_gives_its_picture_with_its_own_header(transport, packets, images):
    topic = VideoTopic(transport)
    for number, each in enumerate(messages(transport, packets)):
        picture = topic.newest([each])
        assert (picture.header.stamp, picture.header.frame_id) == (stamp(number), 'front')
        assert np.abs(picture.image.astype(int) - images[number]).mean() < 8
        assert [one.number for one in picture.coded] == [number]
        assert picture.coded[0].is_start == (number % GOP == 0)


def test_of_several_messages_the_newest_picture_is_taken_and_the_motion_of_all(packets, images):
    topic = VideoTopic('ffmpeg')
    topic.newest(messages('ffmpeg', packets[:1]))
    picture = topic.newest(messages('ffmpeg', packets[1:4], first=1))
    assert picture.header.stamp == stamp(3)
    assert np.abs(picture.image.astype(int) - images[3]).mean() < 8
    assert [one.number for one in picture.coded] == [1, 2, 3]
    assert all(one.vectors is not None for one in picture.coded)


def test_after_lost_packets_nothing_comes_until_the_next_key_picture(packets):
    topic = VideoTopic('foxglove')
    topic.newest(messages('foxglove', packets[:2]))
    topic.restart()
    found = [topic.newest([each]) for each in messages('foxglove', packets[3:], first=3)]
    assert [picture is not None for picture in found] == [False, False] + 7 * [True]
    assert found[2].coded[0].is_start


def test_a_video_of_an_unknown_codec_is_refused(packets):
    with pytest.raises(FrameError, match="video is 'theora'; expected one of av1, h264, hevc"):
        VideoTopic('foxglove').newest([message('foxglove', 0, packets[0], encoding='theora')])


@pytest.mark.parametrize(
    ('encoding', 'decoder'),
    [
        ('h264', 'h264'),
        ('libx264', 'h264'),
        ('h264_nvenc', 'h264'),
        ('hevc;yuv420p;bgr8;bgr8', 'hevc'),
        ('h265', 'hevc'),
        ('libsvtav1', 'av1'),
        ('vp9', 'vp9'),
        ('VP8', 'vp8'),
        ('avc1', 'h264'),
    ],
)
def test_codecs_and_encoders_are_known_by_the_names_that_publishers_give(encoding, decoder):
    assert decoder_of(encoding) == decoder


@pytest.mark.parametrize('transport', VIDEO_TRANSPORTS)
def test_messages_that_are_not_installed_are_named_with_their_package(transport):
    package = VIDEO_TRANSPORTS[transport].package
    if find_spec(package):
        pytest.skip(f'{package} is installed')
    with pytest.raises(SettingsError, match=f'install ros-.ROS_DISTRO-{package.replace("_", "-")}'):
        message_type(transport)


@pytest.fixture
def source(probe, statistics):
    """Makes the source of a topic that nobody subscribed to: messages are handed to its callback."""
    made = []

    def make(**settings):
        errors = []
        settings = NodeSettings(image_transport='ffmpeg', **settings)
        made.append(TopicSource(probe.node, settings, statistics, errors.append))
        return made[-1], errors

    yield make
    for each in made:
        each.close()


def test_a_worker_that_is_late_gets_the_newest_frame_with_all_motion_since_its_last(
    source, packets, statistics
):
    topic, errors = source()
    frames = iter(topic)
    topic.on_image(message('ffmpeg', 0, packets[0]), {})
    assert next(frames).coded[0].is_start
    for number in (1, 2, 3):
        topic.on_image(message('ffmpeg', number, packets[number]), {})
    frame = next(frames)
    assert (frame.stamp_ns, frame.camera, frame.encoding) == (103 * 10**9, 'front', 'mpeg4')
    assert [one.number for one in frame.coded] == [1, 2, 3]
    assert frame.header.stamp == stamp(3)
    assert frame.received_s <= time.monotonic()
    assert errors == []
    assert statistics.snapshot().counts['dropped'] == 2


def test_with_a_queue_every_packet_gives_a_frame(source, packets):
    topic, errors = source(drop_policy='queue')
    frames = iter(topic)
    for number in range(4):
        topic.on_image(message('ffmpeg', number, packets[number]), {})
    assert [next(frames).stamp_ns // 10**9 for _ in range(4)] == [100, 101, 102, 103]
    assert errors == []


def test_a_packet_that_is_no_video_is_reported_and_the_stream_goes_on(source, packets):
    topic, errors = source(drop_policy='queue')
    frames = iter(topic)
    sent = [packets[0], packets[1], *packets[5:7]]
    for number, data in enumerate(sent):
        topic.on_image(message('ffmpeg', number, data, encoding='theora' if number == 1 else 'mpeg4'), {})
    assert [next(frames).stamp_ns // 10**9 for _ in range(3)] == [100, 102, 103]
    assert [type(error) for error in errors] == [FrameError]


@pytest.mark.parametrize('damaged', [0, 2])
def test_what_came_in_one_batch_with_a_packet_that_is_no_video_is_not_built_upon(packets, damaged):
    topic = VideoTopic('ffmpeg')
    topic.newest(messages('ffmpeg', packets[:1]))
    batch = messages('ffmpeg', packets[1:4], first=1)
    batch[damaged].data = np.zeros(0, np.uint8)
    with pytest.raises(FrameError, match='a packet of mpeg4 video is empty'):
        topic.newest(batch)
    found = [topic.newest([each]) for each in messages('ffmpeg', packets[4:7], first=4)]
    assert [picture is not None for picture in found] == [False, True, True]
    assert [one.is_start for one in found[1].coded] == [True]


def numbered(topic, packets, numbers):
    """Hands packets over with the publisher's numbers: {packet: number}."""
    for packet, number in numbers.items():
        info = {'publication_sequence_number': number}
        topic.on_image(message('ffmpeg', packet, packets[packet]), info)


def seen(topic, packets, images):
    """The packets whose pictures came until none did; each must be whole."""
    found = []
    for frame in iter(topic):
        if frame is None:
            return found
        found.append(frame.header.stamp.sec - 100)
        assert np.abs(frame.image.astype(int) - images[found[-1]]).mean() < 8
    return found


def test_a_hole_behind_packets_that_wait_is_not_built_upon_either(source, packets, images, statistics):
    topic, errors = source(drop_policy='queue')
    numbered(topic, packets, {n: n + 1 for n in (0, 1, 3, 4, 5, 6)})
    assert seen(topic, packets, images) == [0, 1, 5, 6]
    assert errors == []
    topic.look_for_publishers()
    counts = statistics.snapshot().counts
    assert (counts['missed'], counts['received'], counts['undecoded']) == (1, 6, 2)


def test_of_a_batch_with_a_hole_only_what_comes_after_it_counts(source, packets, images):
    topic, errors = source(drop_policy='latest')
    numbered(topic, packets, {n: n + 1 for n in (0, 1, 3, 4)})
    assert seen(topic, packets, images) == []
    numbered(topic, packets, {n: n + 1 for n in (5, 6)})
    assert seen(topic, packets, images) == [6]
    assert errors == []


def test_behind_a_hole_that_ends_with_a_key_picture_no_further_packet_is_left_out(source, packets, images):
    topic, errors = source(drop_policy='queue')
    numbered(topic, packets, {n: n + 1 for n in (0, 1, 5, 6, 7)})
    assert seen(topic, packets, images) == [0, 1, 5, 6, 7]
    assert errors == []


@pytest.mark.parametrize('goes_on_at', [20_000, 1], ids=['a long silence', 'another publisher'])
def test_where_the_numbers_make_no_sense_a_new_video_begins(source, packets, images, statistics, goes_on_at):
    topic, errors = source(drop_policy='queue')
    numbered(topic, packets, {0: 10, 1: 11})
    numbered(topic, packets, {n: goes_on_at + n for n in (3, 4, 5, 6)})
    assert seen(topic, packets, images) == [0, 1, 5, 6]
    assert errors == []
    topic.look_for_publishers()
    assert statistics.snapshot().counts['missed'] == 0


@pytest.fixture
def worker():
    """Starts threads, each of which takes what a source gives until that is closed."""
    started = []

    def start(topic):
        thread = threading.Thread(target=deque, args=(topic, 0))
        started.append((topic, thread))
        thread.start()

    yield start
    for topic, thread in started:
        topic.close()
        thread.join()


def test_a_video_that_is_not_understood_any_more_after_a_damaged_packet_is_an_error(
    source, packets, probe, statistics, diagnostics_of, worker, later
):
    settings = {'input_timeout_s': 60.0, 'drop_policy': 'queue'}
    topic, errors = source(**settings)
    watched = diagnostics_of(topic, NodeSettings(image_transport='ffmpeg', **settings))
    worker(topic)
    for number, encoding in enumerate(['theora', 'mpeg4', 'mpeg4'], 1):
        topic.on_image(message('ffmpeg', number, packets[number], encoding=encoding), {})
    probe.until(lambda: statistics.snapshot().counts['undecoded'] == 2, 'the packets')
    [error] = errors
    statistics.bad_frame('bad', str(error))  # as the stream does
    [(level, text)] = watched.problems()
    assert (level, text.partition(',')[0]) == (DiagnosticStatus.WARN, '1 frames skipped')
    for number in range(3, 5):  # nothing but such packets comes
        later(100)
        topic.on_image(message('ffmpeg', number, packets[number]), {})
        probe.until(lambda n=number: statistics.snapshot().counts['undecoded'] == n, 'the packet')
        (_, reason), (level, text) = watched.problems()
        assert reason.startswith('1 frames skipped')
        assert level == DiagnosticStatus.ERROR
        assert re.search(rf'no mask has for {number - 2}\d\d s', text)


def test_a_video_whose_key_picture_does_not_come_is_an_error_that_is_told(
    source, packets, probe, statistics, diagnostics_of, worker, later
):
    topic, _ = source(input_timeout_s=60.0)
    watched = diagnostics_of(topic, NodeSettings(image_transport='ffmpeg', input_timeout_s=60.0))
    worker(topic)
    numbered(topic, packets, {n: n for n in (1, 2, 3)})
    later(100)
    numbered(topic, packets, {4: 4})
    probe.until(lambda: waiting(statistics) == 0, 'the packets')
    (level, text), *others = watched.problems()
    assert (level, others) == (DiagnosticStatus.ERROR, [])
    assert re.search(r'image_raw/ffmpeg, and no mask has for 1\d\d s', text)
    assert 'let the encoder send them more often' in text
    statistics.good_frame(1.0, None)
    assert watched.problems() == []


def waiting(statistics) -> int:
    """How many packets nothing has become of yet."""
    counts = statistics.snapshot().counts
    return counts['received'] - counts['dropped'] - counts['undecoded']


def test_a_packet_that_a_full_queue_dropped_is_not_built_upon(source, packets, images, monkeypatch):
    monkeypatch.setattr(topic_source, 'PACKETS', 2)
    topic, errors = source(drop_policy='queue', queue_size=2)
    topic.on_image(message('ffmpeg', 0, packets[0]), {})
    assert seen(topic, packets, images) == [0]
    for number in range(1, 4):
        topic.on_image(message('ffmpeg', number, packets[number]), {})
    assert seen(topic, packets, images) == []  # 2 and 3, without what they build upon
    for number in (5, 6):
        topic.on_image(message('ffmpeg', number, packets[number]), {})
    assert seen(topic, packets, images) == [5, 6]
    assert errors == []


def test_a_worker_that_takes_a_packet_at_the_moment_a_full_queue_drops_one_does_not_build_upon_it(
    source, packets, images, statistics, monkeypatch
):
    monkeypatch.setattr(topic_source, 'PACKETS', 2)
    topic, errors = source(drop_policy='queue', queue_size=2)
    found, put = [], Inbox.put

    def put_and_take(inbox, item):
        fits = put(inbox, item)
        if not fits:
            found.extend(seen(topic, packets, images))
        return fits

    topic.on_image(message('ffmpeg', 0, packets[0]), {})
    assert seen(topic, packets, images) == [0]
    monkeypatch.setattr(Inbox, 'put', put_and_take)
    for number in range(1, 4):
        topic.on_image(message('ffmpeg', number, packets[number]), {})
    assert found == []  # 2 and 3, without 1
    assert statistics.snapshot().counts['dropped'] == 1
    for number in (5, 6):
        topic.on_image(message('ffmpeg', number, packets[number]), {})
    assert seen(topic, packets, images) == [5, 6]
    assert errors == []


@pytest.mark.parametrize(
    ('waiting', 'later', 'pictures'),
    [((2,), (3, 5, 6), [5, 6]), ((5,), (7, 10, 11), [5, 10, 11])],
    ids=['before what waits', 'before what comes next'],
)
def test_wherever_a_packet_was_lost_nothing_is_built_upon_the_hole(
    source, packets, images, waiting, later, pictures
):
    topic, errors = source(drop_policy='queue')
    topic.on_image(message('ffmpeg', 0, packets[0]), {})
    assert seen(topic, packets, images) == [0]
    for number in waiting:
        topic.on_image(message('ffmpeg', number, packets[number]), {})
    topic.on_lost(1)
    for number in later:
        topic.on_image(message('ffmpeg', number, packets[number]), {})
    assert seen(topic, packets, images) == pictures
    assert errors == []


def test_a_video_frame_has_its_camera_info_and_the_arrival_of_its_own_packet(source, packets):
    topic, _ = source()
    frames = iter(topic)
    for number in range(2):
        before_s = time.monotonic()
        topic.on_image(message('ffmpeg', number, packets[number]), {})
    frame = next(frames)
    assert frame.received_s >= before_s
    info = CameraInfo(height=96, width=128, header=frame.header)
    topic.camera_infos.keep(info)
    assert frame.find_camera_info() == info


def hole(topic: TopicSource) -> None:
    topic.unsubscribe()  # as `~/enable` does


@pytest.mark.parametrize(
    'happens', [hole, lambda topic: topic.on_lost(1)], ids=['disabled', 'lost on the way']
)
def test_pictures_are_not_built_upon_a_hole_in_the_video(source, packets, happens):
    topic, errors = source(drop_policy='queue')
    frames = iter(topic)
    topic.on_image(message('ffmpeg', 0, packets[0]), {})
    assert next(frames).stamp_ns // 10**9 == 100
    happens(topic)
    for number in range(3, 7):
        topic.on_image(message('ffmpeg', number, packets[number]), {})
    assert [next(frames).stamp_ns // 10**9 for _ in range(2)] == [105, 106]
    assert errors == []
