"""The temporal state of a live stream: what starts a new one, and what is skipped."""

import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from echo_model import write_echo_model
from ros_harness import kind_and_reason, pixels, show, values_of
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image


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
        robot.probe.spin_for(0.01)  # a camera that is faster than the model
    status = robot.diagnostics(lambda status: 'queue was full' in status.message, 'the overflow')
    assert 'raise queue_size' in status.message


def test_a_live_camera_gets_the_newest_image_and_the_rest_is_counted(robot, slow_model):
    assert robot.set(model=str(slow_model), engine='onnxruntime', key_frame_interval=1) == ''
    robot.listen('mask', Image)
    robot.start()
    images = [robot.image() for _ in range(12)]
    for image in images:
        robot.camera.publish(image)
        robot.probe.spin_for(0.01)  # a camera that is faster than the model
    robot.answer(images[-1].header)  # the newest is never dropped
    status = robot.diagnostics(
        lambda status: values_of(status).get('published') == str(len(robot.received['mask'])), 'the counts'
    )
    counts = {name: int(values_of(status)[name]) for name in ('received', 'dropped', 'published')}
    assert counts['published'] < 12
    assert counts['received'] == counts['dropped'] + counts['published']


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
    stream.diagnostics(lambda status: values_of(status).get('received') == '6', 'the images')
    assert stream.enable(False).success
    stream.diagnostics(lambda status: values_of(status).get('discarded') == '5', 'what was forgotten')
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
