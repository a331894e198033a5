"""The temporal state of a live stream: what starts a new one, and what is skipped."""

import time

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from echo_model import write_echo_model
from ros_harness import Robot, pixels, values_of
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image


@pytest.fixture
def stream(robot):
    """A started robot whose images all arrive, in order."""
    assert robot.set(drop_policy='queue', queue_size=30) == ''
    robot.listen('mask', Image)
    robot.listen('frame_info', DiagnosticArray)
    robot.start()
    return robot


def show(robot, image=None) -> dict[str, str]:
    """Shows an image and returns what the node says about that frame."""
    image = robot.image() if image is None else image
    robot.show(image)
    return robot.info(image.header)


def kind_and_reason(info) -> tuple[str, str]:
    return info['kind'], info['reset_reason']


def test_key_frames_come_every_fifth_frame_by_default(stream):
    assert ''.join(show(stream)['kind'][0] for _ in range(11)) == 'kppppkppppk'


def test_a_bag_that_loops_starts_a_new_stream(stream):
    for _ in range(3):
        show(stream)
    stream.rewind()
    assert kind_and_reason(show(stream)) == ('key', 'stamp went back')
    assert show(stream)['kind'] == 'propagated'


def test_a_gap_in_the_stamps_starts_a_new_stream(stream):
    show(stream)
    assert stream.set(max_frame_gap_s=5.0) == ''
    image = stream.image()
    stream.stamp(image, step_ns=4 * 10**9)
    assert kind_and_reason(show(stream, image)) == ('propagated', '')
    stream.stamp(image, step_ns=6 * 10**9)
    assert kind_and_reason(show(stream, image)) == ('key', 'gap')


@pytest.mark.parametrize('size', [(96, 128), (30, 50), (48, 63)])
def test_a_new_size_starts_a_new_stream(stream, size):
    show(stream)
    image = stream.image(9, size)
    assert kind_and_reason(show(stream, image)) == ('key', 'size changed')
    mask = pixels(stream.answer(image.header))
    assert mask.shape == size
    assert (mask == 9).all()
    assert show(stream, stream.image(2, size))['kind'] == 'propagated'


def test_a_new_encoding_starts_a_new_stream(stream):
    show(stream)
    assert kind_and_reason(show(stream, stream.image(encoding='rgb8'))) == ('key', 'encoding changed')


def test_another_camera_starts_a_new_stream(stream):
    show(stream)
    image = stream.image()
    image.header.frame_id = 'rear_optical'
    assert kind_and_reason(show(stream, image)) == ('key', 'camera changed')


def test_a_clock_that_jumps_back_starts_a_new_stream(stream):
    clock = stream.probe.node.create_publisher(Clock, '/clock', 10)
    assert stream.set(use_sim_time=True) == ''

    def until_clock_is(seconds):
        def told(status=None):
            clock.publish(Clock(clock=rclpy_time(seconds)))
            stream.probe.spin_for(0.05)
            messages = stream.received['diagnostics']
            return messages and messages[-1].header.stamp.sec == seconds

        stream.probe.until(told, f'diagnostics at {seconds} s')

    until_clock_is(100)
    show(stream)
    assert show(stream)['kind'] == 'propagated'
    until_clock_is(50)
    assert kind_and_reason(show(stream)) == ('key', 'clock jumped')
    stream.probe.node.destroy_publisher(clock)


def rclpy_time(seconds):
    time = Clock().clock
    time.sec = seconds
    return time


def damaged(**changes):
    def damage(image: Image) -> None:
        for name, value in changes.items():
            setattr(image, name, value)

    return damage


def without_data(image: Image) -> None:
    del image.data[:]


def with_less_data(image: Image) -> None:
    del image.data[-1:]


def with_more_data(image: Image) -> None:
    image.data.append(0)


def with_nan(image: Image) -> None:
    image.encoding, image.step = '32FC1', image.width * 4
    del image.data[:]
    image.data.frombytes(np.full((image.height, image.width), np.nan, np.float32).tobytes())


DAMAGE = {
    'no data': without_data,
    'a byte too few': with_less_data,
    'a byte too many': with_more_data,
    'no height': damaged(height=0),
    'no width': damaged(width=0),
    'no size': damaged(height=0, width=0, step=0),
    'no step': damaged(step=0),
    'rows too short': damaged(step=3 * 64 - 1),
    'rows too long': damaged(step=3 * 64 + 1),
    'absurd step': damaged(step=2**32 - 1),
    'absurd height': damaged(height=2**32 - 1),
    'absurd width': damaged(width=2**32 - 1),
    'absurd size': damaged(height=2**31, width=2**31),
    'no encoding': damaged(encoding=''),
    'unknown encoding': damaged(encoding='klingon8'),
    'endless encoding': damaged(encoding='x' * 100_000),
    'more channels than data': damaged(encoding='rgba8'),
    '16 bits in rows of 8': damaged(encoding='mono16', width=97),
    'odd yuv': damaged(encoding='yuv422', width=63),
    'odd nv12': damaged(encoding='nv12', height=47),
    'nv12 without colour': damaged(encoding='nv12'),
    'float with NaN': with_nan,
}


def test_damaged_images_are_skipped_and_the_next_good_one_is_a_key_frame(stream, node):
    show(stream)
    for name, damage in DAMAGE.items():
        image = stream.image()
        damage(image)
        stream.camera.publish(image)
        assert kind_and_reason(show(stream)) == ('key', 'bad frame'), name
        assert show(stream)['kind'] == 'propagated', name
    status = stream.diagnostics(
        lambda status: values_of(status).get('bad') == str(len(DAMAGE)), 'all the bad frames'
    )
    assert values_of(status)['resets.bad frame'] == str(len(DAMAGE))
    assert values_of(status)['last_error']
    assert 'Traceback' not in node.log


def test_damaged_compressed_images_are_skipped_too(robot, node, probe):
    jpeg = cv2.imencode('.jpg', np.full((48, 64, 3), 3, np.uint8))[1].tobytes()
    png = cv2.imencode('.png', np.random.default_rng(0).integers(0, 9, (48, 64, 3), np.uint8))[1].tobytes()
    kinds = {
        'nothing': b'',
        'text': b'this is no image',
        'half a JPEG': jpeg[: len(jpeg) // 2],
        'start of a JPEG': jpeg[:4],
        'half a PNG': png[: len(png) // 2],
        'flipped PNG': png[:60] + bytes(200) + png[260:],
        'PNG of absurd size': png[:16] + b'\xff' * 8 + png[24:],
    }
    assert robot.set(image_transport='compressed', drop_policy='queue') == ''
    other = Robot(probe, node.namespace, compressed=True)
    other.listen('mask', Image)
    other.listen('frame_info', DiagnosticArray)
    other.start()

    def message(data: bytes) -> CompressedImage:
        compressed = CompressedImage(format='jpeg')
        compressed.data.frombytes(data)
        other.stamp(compressed)
        return compressed

    show(other, message(jpeg))
    for name, data in kinds.items():
        other.camera.publish(message(data))
        assert kind_and_reason(show(other, message(jpeg))) == ('key', 'bad frame'), name
    other.close()


def test_many_bad_frames_in_a_row_are_an_error_until_a_good_one_comes(stream):
    assert stream.set(max_consecutive_bad_frames=3) == ''
    for _ in range(4):
        stream.camera.publish(stream.image(encoding='klingon8'))
    status = stream.diagnostics(lambda status: status.level == DiagnosticStatus.ERROR, 'an error')
    assert '4 bad frames in a row' in status.message
    assert 'klingon8' in status.message
    show(stream)
    stream.diagnostics(lambda status: 'in a row' not in status.message, 'the end of the error')


def test_images_that_are_all_bad_and_come_slowly_are_an_error_all_the_time(stream):
    """Also in a second in which none came, though they are too few to be many in a row."""
    assert stream.set(input_timeout_s=1.5) == ''

    def statuses(seconds):
        stream.received['diagnostics'].clear()
        for _ in range(seconds):
            stream.camera.publish(stream.image(encoding='klingon8'))
            stream.probe.spin_for(1.2)
        return [s for m in stream.received['diagnostics'] for s in m.status if stream.name[1:] in s.name]

    statuses(3)
    assert {status.level for status in statuses(5)} == {DiagnosticStatus.ERROR}
    status = stream.diagnostics(lambda status: 'no image on' in status.message, 'the end of them')
    assert 'images come' not in status.message


def test_a_queue_loses_nothing_and_keeps_the_order(robot, slow_model):
    assert robot.set(model=str(slow_model), engine='onnxruntime', drop_policy='queue', queue_size=30) == ''
    robot.listen('mask', Image)
    robot.start()
    images = [robot.image(n % 11) for n in range(20)]
    for image in images:
        robot.camera.publish(image)
    robot.probe.until(lambda: len(robot.received['mask']) == 20, 'all twenty masks')
    assert [m.header for m in robot.received['mask']] == [image.header for image in images]
    assert [pixels(m)[0, 0] for m in robot.received['mask']] == [n % 11 for n in range(20)]


def test_a_queue_that_overflows_says_so(robot, slow_model):
    assert (
        robot.set(
            model=str(slow_model),
            engine='onnxruntime',
            drop_policy='queue',
            queue_size=2,
            key_frame_interval=1,
        )
        == ''
    )
    robot.start()
    for _ in range(12):
        robot.camera.publish(robot.image())
        robot.probe.spin_for(0.01)
    status = robot.diagnostics(lambda status: 'queue was full' in status.message, 'the overflow')
    assert 'raise queue_size' in status.message


def test_a_live_camera_gets_the_newest_image_and_the_rest_is_counted(robot, slow_model):
    assert robot.set(model=str(slow_model), engine='onnxruntime', key_frame_interval=1) == ''
    robot.listen('mask', Image)
    robot.start()
    images = [robot.image() for _ in range(12)]
    for image in images:
        robot.camera.publish(image)
        robot.probe.spin_for(0.01)
    robot.answer(images[-1].header)  # the newest is never dropped
    status = robot.diagnostics(
        lambda status: values_of(status).get('published') == str(len(robot.received['mask'])), 'the counts'
    )
    counts = {name: int(values_of(status)[name]) for name in ('received', 'dropped', 'published')}
    assert counts['published'] < 12
    assert counts['received'] == counts['dropped'] + counts['published']


def test_frames_that_take_too_long_are_a_warning_and_then_an_error(stream):
    assert stream.set(diagnostics__max_allowed_processing_time_ms=0.0) == ''
    show(stream)
    text = 'took longer than 0 ms'
    status = stream.diagnostics(lambda status: text in status.message, 'the slowness')
    assert status.level == DiagnosticStatus.WARN
    assert stream.set(diagnostics__max_acceptable_consecutive_delay_ms=0.0) == ''
    show(stream)
    stream.diagnostics(lambda s: text in s.message and s.level == DiagnosticStatus.ERROR, 'an error')
    assert stream.set(diagnostics__max_allowed_processing_time_ms=1e6) == ''
    show(stream)
    stream.diagnostics(lambda status: text not in status.message, 'the end of it')


def test_frames_that_all_come_too_late_after_one_another_to_be_propagated_are_a_warning(stream):
    for _ in range(4):
        image = stream.image()
        stream.stamp(image, step_ns=10**9)
        assert kind_and_reason(show(stream, image))[0] == 'key'
    text = 'came more than 0.5 s after the one before'
    status = stream.diagnostics(lambda status: text in status.message, 'the gaps')
    assert status.level == DiagnosticStatus.WARN
    assert 'raise max_frame_gap_s' in status.message
    show(stream)
    stream.diagnostics(lambda status: text not in status.message, 'the end of it')


def test_frames_that_all_begin_a_new_stream_for_other_reasons_are_a_warning_with_the_reasons(stream):
    for number in range(4):
        image = stream.image()
        image.header.frame_id = f'camera {number % 2}'
        assert kind_and_reason(show(stream, image))[0] == 'key'
    text = 'each began a new stream: camera changed'
    status = stream.diagnostics(lambda status: text in status.message, 'the new streams')
    assert status.level == DiagnosticStatus.WARN
    assert 'let one camera publish' in status.message


def test_a_second_publisher_on_the_topic_is_a_warning_as_long_as_it_is_there(stream):
    second = stream.probe.node.create_publisher(Image, stream.camera.topic_name, 1)
    status = stream.diagnostics(lambda status: '2 publishers are on' in status.message, 'the second one')
    assert status.level == DiagnosticStatus.WARN
    assert 'give each its own topic' in status.message
    stream.probe.node.destroy_publisher(second)
    stream.diagnostics(lambda status: 'publishers are on' not in status.message, 'the end of it')


def test_an_error_of_the_engine_costs_one_frame_and_the_next_one_is_a_key_frame(robot, tmp_path):
    model = write_echo_model(tmp_path / 'model', fails_at=100)
    settings = {'model': str(model), 'engine': 'onnxruntime', 'drop_policy': 'queue', 'queue_size': 30}
    assert robot.set(**settings) == ''
    robot.listen('mask', Image)
    robot.listen('frame_info', DiagnosticArray)
    robot.start()
    show(robot)
    failing = robot.image(200)
    robot.camera.publish(failing)
    assert kind_and_reason(show(robot)) == ('key', 'error')
    assert show(robot)['kind'] == 'propagated'
    assert failing.header not in [mask.header for mask in robot.received['mask']]
    status = robot.diagnostics(lambda status: values_of(status).get('failed') == '1', 'the failure')
    values = values_of(status)
    assert "graph 'correction' failed in ONNX Runtime" in values['last_error']
    assert (values['received'], values['published'], values['resets.error']) == ('4', '3', '1')


def test_a_frame_that_is_in_work_for_too_long_is_an_error_before_it_is_done(robot, slow_model):
    settings = {'model': str(slow_model), 'engine': 'onnxruntime', 'key_frame_interval': 1}
    limits = {
        'diagnostics__max_allowed_processing_time_ms': 1.0,
        'diagnostics__max_acceptable_consecutive_delay_ms': 5.0,
    }
    assert robot.set(**settings, **limits) == ''
    robot.start()

    def told():
        robot.camera.publish(robot.image())
        robot.probe.spin_for(0.05)
        statuses = [s for m in robot.received['diagnostics'] for s in m.status if robot.name[1:] in s.name]
        return [s.level for s in statuses if 'a frame has been in work for' in s.message]

    assert set(robot.probe.until(told, 'an error')) == {DiagnosticStatus.ERROR}


def restart(robot) -> None:
    assert robot.change('deactivate')
    assert robot.change('activate')


def enable_again(robot) -> None:
    assert robot.enable(False).success
    assert robot.enable(True).success


@pytest.mark.parametrize('begin', [restart, enable_again])
def test_what_was_wrong_before_a_new_beginning_is_no_news_after_it(stream, begin):
    assert stream.set(diagnostics__max_allowed_processing_time_ms=0.0, max_consecutive_bad_frames=3) == ''
    show(stream)
    for _ in range(4):
        stream.camera.publish(stream.image(encoding='klingon8'))
    stream.diagnostics(lambda status: 'bad frames in a row' in status.message, 'the bad frames')
    begin(stream)
    stream.received['diagnostics'].clear()
    stream.diagnostics(lambda status: True, 'what is new')
    messages = [
        s.message for m in stream.received['diagnostics'] for s in m.status if stream.name[1:] in s.name
    ]
    assert set(messages) == {'active'}


def test_a_node_that_is_disabled_or_gets_nothing_is_not_called_slow(stream):
    assert stream.set(diagnostics__max_allowed_processing_time_ms=0.0, input_timeout_s=0.5) == ''
    show(stream)
    status = stream.diagnostics(lambda status: 'no image on' in status.message, 'the silence')
    assert 'took longer' not in status.message
    assert stream.enable(False).success
    stream.diagnostics(lambda status: status.message == 'active, disabled', 'nothing wrong')
    assert stream.enable(True).success


def test_the_rate_can_be_limited(stream):
    assert stream.set(max_rate=10.0) == ''
    show(stream)
    images = [stream.image() for _ in range(5)]
    for image in images:
        stream.camera.publish(image)
    start = stream.probe.node.get_clock().now()
    stream.answer(images[-1].header)
    assert (stream.probe.node.get_clock().now() - start).nanoseconds > 3 * 10**8


def test_a_higher_rate_does_not_wait_for_the_time_of_the_lower_one(stream):
    show(stream)
    assert stream.set(max_rate=0.001) == ''
    image = stream.image()
    stream.camera.publish(image)
    stream.probe.spin_for(0.3)  # the worker waits for a time that is a thousand seconds away
    assert stream.received['mask'][-1].header != image.header
    assert stream.set(max_rate=0.0) == ''
    stream.answer(image.header)


def test_every_image_is_accounted_for_also_when_the_node_is_disabled_while_some_wait(stream):
    show(stream)
    assert stream.set(max_rate=0.001) == ''
    for _ in range(5):
        stream.camera.publish(stream.image())
    stream.diagnostics(lambda status: values_of(status)['received'] == '6', 'the images')
    assert stream.enable(False).success
    stream.diagnostics(lambda status: values_of(status)['discarded'] == '5', 'what was forgotten')
    assert stream.enable(True).success
    assert stream.set(max_rate=0.0) == ''
    stream.until_connected()
    show(stream)


def test_no_frame_waits_for_a_key_frame_that_is_computed_in_the_background(robot, slow_model):
    settings = {'background_key_frames': True, 'drop_policy': 'queue', 'engine': 'onnxruntime'}
    assert robot.set(model=str(slow_model), **settings) == ''
    robot.listen('mask', Image)
    robot.listen('frame_info', DiagnosticArray)
    robot.start()
    infos = [show(robot)]
    while int(infos[-1]['age_frames']) >= len(infos) - 1:  # until a younger key frame has taken effect
        time.sleep(0.01)  # one that takes 60 frames is given up, and those answered at once would be soon
        infos.append(show(robot))
        assert len(infos) < 200
    assert [info['kind'] for info in infos] == ['key'] + ['propagated'] * (len(infos) - 1)
    assert all('segmenter_ms' not in info for info in infos[1:])
    assert int(infos[-1]['age_frames']) == len(infos) - 1 - 5
    status = robot.diagnostics(
        lambda status: values_of(status).get('background_key_frames', '0') != '0', 'the key frame'
    )
    assert values_of(status)['background_failures'] == '0'
