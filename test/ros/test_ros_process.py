"""Start and end of the process, and what is settled at start: each test starts a node of its own."""

import re
import signal
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from echo_model import write_echo_model
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from ros_harness import DEADLINE_S, Gate, NodeProcess, changed, orphans, pixels, values_of
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from vss_ros.core.files.share import DEFAULT_MODEL
from vss_ros.core.frame import Frame
from vss_ros.core.open_segmenter import open_segmenter
from vss_ros.ros.conversions import image_message


@pytest.mark.parametrize('signals', [[signal.SIGTERM], [signal.SIGINT] * 3], ids=['SIGTERM', '3 SIGINT'])
def test_a_signal_while_a_frame_is_in_work_ends_the_process_cleanly(tmp_path, slow_model, robot_in, signals):
    with NodeProcess(
        tmp_path, 'ending', model=slow_model, engine='onnxruntime', key_frame_interval=1
    ) as node:
        robot = robot_in('ending')
        robot.listen('mask', Image)
        robot.start()
        images = [robot.image() for _ in range(4)]
        for image in images:  # after the first of them another one waits, and is taken at once
            robot.camera.publish(image)
        robot.probe.until(lambda: robot.received['mask'], 'the first mask')
        for sent in signals:
            node.process.send_signal(sent)
        assert node.process.wait(DEADLINE_S) == 0
        assert 'Traceback' not in node.log
        assert 'terminate' not in node.log


def test_an_engine_that_hangs_neither_freezes_the_node_nor_keeps_it_from_being_ended(tmp_path, robot_in):
    model = write_echo_model(tmp_path / 'model', rounds=10**9, black_is_quick=True)
    with NodeProcess(tmp_path, 'hanging', model=model, engine='onnxruntime') as node:
        robot = robot_in('hanging')
        robot.start()
        robot.camera.publish(robot.image())
        robot.diagnostics(lambda status: 'a frame has been in work' in status.message, 'what is wrong')
        assert not robot.change('deactivate')
        text = 'cannot deactivate: a frame was not finished within 5 s'
        assert text in node.log
        assert robot.enable(False).success
        refused = robot.enable(True)  # nobody would take the images
        assert (refused.success, 'deactivate the node again' in refused.message) == (False, True)
        status = robot.diagnostics(lambda status: text in status.message, 'what went wrong')
        assert status.level == DiagnosticStatus.ERROR
        memory = node.shared_memory
        assert memory
        assert node.end(signal.SIGTERM) == 0
        assert orphans(memory) == []


def test_a_deactivation_that_failed_leaves_a_node_that_says_so_until_it_is_deactivated_again(
    tmp_path, echo_model, robot_in
):
    gate = Gate(tmp_path)
    impatient = changed('stream.STOP_S = 0.1', *gate.lines)
    with NodeProcess(tmp_path, 'deaf', program=impatient, model=echo_model, engine='onnxruntime') as node:
        robot = robot_in('deaf')
        robot.listen('mask', Image)
        robot.start()
        gate.shut()
        robot.camera.publish(image := robot.image())
        robot.diagnostics(lambda status: values_of(status).get('received') == '1', 'the image')
        assert not robot.change('deactivate')
        gate.open()
        robot.answer(image.header)  # the frame came to its end after all
        robot.received['diagnostics'].clear()
        status = robot.diagnostics(lambda status: status.level == DiagnosticStatus.ERROR, 'an error')
        assert 'takes no more images; deactivate it again' in status.message
        refused = robot.enable(True)
        assert (refused.success, 'deactivate the node again' in refused.message) == (False, True)
        assert robot.change('deactivate')
        assert robot.change('activate')
        robot.until_connected()
        robot.show()
        assert node.is_alive


def test_a_key_frame_that_does_not_come_out_of_the_background_is_an_error(tmp_path, echo_model, robot_in):
    hanging = changed(
        'from vss_ros.core.stream.background import BackgroundKeyFrames',
        'run = BackgroundKeyFrames._run',
        'class Hanging:',
        '    name = "hanging"',
        '    def run(self, graph, tensors): threading.Event().wait()',
        'def hang(self, tensors):',
        '    self._engine = Hanging()',
        '    return run(self, tensors)',
        'BackgroundKeyFrames._run = hang',
    )
    options = {'model': echo_model, 'engine': 'onnxruntime', 'background_key_frames': True}
    limits = {'key_frame_interval': 2, 'diagnostics__max_acceptable_consecutive_delay_ms': 100.0}
    node = NodeProcess(tmp_path, 'hung', program=hanging, **options, **limits)
    robot = robot_in('hung')
    robot.listen('mask', Image)
    robot.start()
    for _ in range(3):
        robot.show()  # frames are answered all the same
    status = robot.diagnostics(lambda status: 'in the background for' in status.message, 'what is wrong')
    assert status.level == DiagnosticStatus.ERROR
    node.process.kill()
    node.wait()


def test_a_node_whose_worker_has_ended_cannot_be_enabled(tmp_path, echo_model, robot_in):
    broken = changed('stream.pipeline.run = None')
    with NodeProcess(tmp_path, 'broken', program=broken, model=echo_model, engine='onnxruntime'):
        robot = robot_in('broken')
        robot.start()
        robot.diagnostics(lambda status: 'worker thread has ended' in status.message, 'the mistake')
        refused = robot.enable(True)
        assert (refused.success, 'deactivate the node again' in refused.message) == (False, True)


def test_a_worker_that_cannot_be_started_fails_the_activation_which_can_be_tried_again(
    tmp_path, echo_model, robot_in
):
    crowded = changed(
        'class Worker(threading.Thread):',
        '    def start(self):',
        '        stream.Thread = threading.Thread',
        '        raise RuntimeError("can\'t start new thread")',
        'stream.Thread = Worker',
    )
    with NodeProcess(tmp_path, 'crowded', program=crowded, model=echo_model, engine='onnxruntime') as node:
        robot = robot_in('crowded')
        robot.listen('mask', Image)
        assert robot.change('configure')
        assert not robot.change('activate')
        assert "cannot activate: RuntimeError: can't start new thread" in node.log
        assert robot.state == 'inactive'
        assert robot.change('activate')
        robot.until_connected()
        robot.show()


@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_ends_the_process_cleanly(tmp_path, probe, sent):
    with NodeProcess(tmp_path, 'starting') as node:
        status = Path(f'/proc/{node.process.pid}/status')

        def listens() -> bool:
            caught = next(line for line in status.read_text().splitlines() if line.startswith('SigCgt'))
            return bool(int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1))

        probe.until(listens, 'a node that listens to signals')
        assert node.end(sent) == 0
        assert node.log == ''


@pytest.mark.parametrize('state', ['inactive', 'active'])
def test_shutdown_is_possible_while_configured(tmp_path, echo_model, robot_in, state):
    with NodeProcess(tmp_path, f'shutdown_{state}', model=echo_model) as node:
        robot = robot_in(f'shutdown_{state}')
        assert robot.change('configure')
        assert state != 'active' or robot.change('activate')
        assert robot.change(getattr(Transition, f'TRANSITION_{state.upper()}_SHUTDOWN'))
        assert robot.state == 'finalized'
        assert node.is_alive


def parameter_of_unknown_type(robot):
    name = f'{robot.name}/set_parameters'
    client = robot.probe.node.create_client(SetParameters, name)
    robot.probe.until(client.service_is_ready, f'service {name}')
    request = SetParameters.Request(parameters=[ParameterMessage(name='overlay_alpha')])
    request.parameters[0].value.type = 99
    return lambda: client.call_async(request)


def time_before_zero(robot):
    clock = robot.probe.node.create_publisher(Clock, '/clock', 10)
    robot.probe.until(clock.get_subscription_count, 'a subscription to /clock')
    message = Clock()
    message.clock.sec = -1
    return lambda: clock.publish(message)


@pytest.mark.parametrize('connect', [parameter_of_unknown_type, time_before_zero])
@pytest.mark.parametrize('while_loading', [False, True], ids=['active', 'loading'])
def test_a_message_that_rclpy_raises_at_does_not_end_the_node(
    tmp_path, echo_model, robot_in, connect, while_loading
):
    gate = Gate(tmp_path)
    options = {'model': echo_model, 'engine': 'onnxruntime', 'use_sim_time': True}
    with NodeProcess(tmp_path, 'raised_at', program=changed(*gate.lines), **options) as node:
        robot = robot_in('raised_at')
        robot.listen('mask', Image)
        send = connect(robot)
        if while_loading:
            gate.shut()
            loaded = robot.begin('configure')
        else:
            robot.start()

        def error_comes():  # a clock is sent best effort
            send()
            robot.probe.spin_for(0.2)
            return 'a callback failed: ValueError' in node.log

        robot.probe.until(error_comes, 'the error')
        if while_loading:
            assert not loaded.done()
            gate.open()
            robot.probe.until(loaded.done, 'the end of loading')
            assert robot.change('activate')
            robot.until_connected()
        robot.show()
        assert robot.state == 'active'


def test_autostart_without_a_model_leaves_a_node_that_can_be_configured(tmp_path, echo_model, robot_in):
    with NodeProcess(tmp_path, 'repair', model=tmp_path / 'nothing', autostart=True):
        robot = robot_in('repair')
        robot.diagnostics(lambda status: status.level == DiagnosticStatus.ERROR, 'an error')
        assert robot.state == 'unconfigured'
        assert robot.set(model=str(echo_model)) == ''
        robot.start()


@pytest.mark.parametrize('values', [{'max_rate': 'fast'}, {'overlay_alpha': 7.5}], ids=str)
def test_a_parameter_of_a_wrong_kind_ends_the_start_with_one_line(tmp_path, values):
    node = NodeProcess(tmp_path, 'refused', **values)
    assert node.wait() == 1
    assert next(iter(values)) in node.log
    assert 'Traceback' not in node.log


@pytest.mark.parametrize(
    'arguments',
    [('--params-file', '/nowhere.yaml'), ('-r', 'nonsense'), ('--log-level', 'loud'), ('--foo',)],
    ids=' '.join,
)
def test_arguments_that_cannot_be_read_end_the_start_with_their_reason_and_code_1(tmp_path, arguments):
    node = NodeProcess(tmp_path, 'unread', *arguments)
    assert node.wait() == 1
    assert re.search(rf'^segmentation_node cannot start: \w+Error: .*{arguments[-1]}', node.log, re.MULTILINE)
    assert 'Traceback' not in node.log


def test_autostart_needs_no_operator_and_topics_follow_remappings(tmp_path, echo_model, robot_in):
    arguments = ('-r', 'image_raw:=/front/image_raw', '-r', '~/mask:=/front/labels')
    with NodeProcess(tmp_path, 'remapped', *arguments, model=echo_model, autostart=True):
        camera = robot_in('front')
        camera.name = '/remapped/segmentation'
        camera.listen('/front/labels', Image, key='mask')
        camera.until_connected()  # to camera_info, too, which is looked for beside the image
        camera.show()
        assert camera.state == 'active'


def test_settings_that_cannot_be_used_are_named_one_after_the_other(tmp_path, echo_model, robot_in):
    override = 'qos_overrides./odd/segmentation/mask.publisher.reliability'
    arguments = ('-p', f'{override}:=perhaps')
    options = {'model': echo_model, 'engine': 'warp drive', 'precision': 'float32'}
    with NodeProcess(tmp_path, 'odd', *arguments, **options) as node:
        robot = robot_in('odd')
        assert not robot.change('configure')
        assert "engine is 'warp drive'; use one of auto" in node.log
        assert robot.set(engine='auto') == ''  # the other one has still to be mended
        assert robot.set(precision='fp32') == ''
        assert not robot.change('configure')
        assert 'perhaps' in node.log
        assert robot.state == 'unconfigured'
        assert robot.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)


def test_the_default_model_gives_live_what_it_gives_offline(tmp_path, street, robot_in):
    offline = open_segmenter(DEFAULT_MODEL)
    with NodeProcess(tmp_path, 'default', drop_policy='queue'):
        robot = robot_in('default')
        robot.listen_to_all()
        robot.start()
        for picture in street[:7]:
            message = image_message(picture, 'bgr8', Header())
            robot.stamp(message)
            robot.show(message)
            stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            expected = offline.step(Frame(picture, stamp_ns))
            assert robot.info(message.header)['kind'] == expected.kind
            for topic, array in (
                ('mask', expected.mask),
                ('confidence', expected.confidence),
                ('distortion', expected.distortion()),
            ):
                # Sums may be taken in another order, which tips a pixel here and there.
                assert np.mean(pixels(robot.answer(message.header, topic)) == array) > 0.995, topic


def test_qos_can_be_overridden_and_what_does_not_fit_is_named(tmp_path, echo_model, robot_in):
    override = 'qos_overrides./picky/image_raw.subscription.reliability'
    with NodeProcess(tmp_path, 'picky', '-p', f'{override}:=reliable', model=echo_model) as node:
        robot = robot_in('picky', reliable=False)
        assert robot.change('configure')
        assert robot.change('activate')
        status = robot.diagnostics(lambda status: 'reliability' in status.message, 'the mismatch')
        assert '/picky/image_raw' in status.message
        assert override in status.message
        assert override in node.log


def test_what_shapes_the_subscription_is_taken_anew_with_each_configuration(tmp_path, echo_model, robot_in):
    overrides = 'qos_overrides./again/image_raw.subscription'
    with NodeProcess(tmp_path, 'again', model=echo_model):
        robot = robot_in('again')
        for policy, size, depth, reliability in (
            ('latest', 30, 1, 'best_effort'),
            ('queue', 7, 7, 'reliable'),
            ('queue', 9, 9, 'reliable'),
            ('latest', 9, 1, 'best_effort'),
        ):
            assert robot.set(drop_policy=policy, queue_size=size) == ''
            robot.start()
            [subscription] = robot.probe.node.get_subscriptions_info_by_topic('/again/image_raw')
            assert subscription.qos_profile.reliability.name.lower() == reliability
            assert robot.get(f'{overrides}.reliability') == reliability
            assert robot.get(f'{overrides}.depth') == depth
            assert 'read-only' in robot.set(**{f'{overrides}.depth': 3})
            robot.stop()


def test_an_override_of_qos_outlasts_a_new_configuration(tmp_path, echo_model, robot_in):
    override = 'qos_overrides./lasting/image_raw.subscription.depth'
    with NodeProcess(tmp_path, 'lasting', '-p', f'{override}:=3', model=echo_model):
        robot = robot_in('lasting')
        for policy in ('latest', 'queue'):
            assert robot.set(drop_policy=policy) == ''
            robot.start()
            assert robot.get(override) == 3
            robot.stop()


def test_qos_of_the_labels_can_be_overridden_too(tmp_path, echo_model, robot_in):
    override = 'qos_overrides./named/segmentation/label_names.publisher.reliability'
    with NodeProcess(tmp_path, 'named', '-p', f'{override}:=best_effort', model=echo_model):
        robot = robot_in('named')
        assert robot.change('configure')
        name = f'{robot.name}/label_names'
        robot.probe.until(lambda: robot.probe.node.count_publishers(name), 'the labels')
        [publisher] = robot.probe.node.get_publishers_info_by_topic(name)
        assert publisher.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        assert publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL  # latched all the same


COMPOSED = """
import logging
import sys

import rclpy
from rclpy.executors import ExternalShutdownException

from vss_ros.ros.node import SegmentationNode

rclpy.init(args=sys.argv)
node = SegmentationNode()
try:
    rclpy.spin(node)
except (KeyboardInterrupt, ExternalShutdownException):
    pass
except Exception:
    if rclpy.ok():  # rclpy may raise "context is not valid" when a signal comes
        raise
finally:
    node.destroy_node()
    rclpy.try_shutdown()
assert not logging.getLogger('vss_ros').handlers
"""


FORGETFUL = """
import sys

import rclpy
from rclpy.executors import ExternalShutdownException

from vss_ros.ros.node import SegmentationNode


def main():
    rclpy.init(args=sys.argv)
    node = SegmentationNode()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        ENDS


main()
"""


@pytest.mark.parametrize(
    ('ends', 'code'),
    [('pass', 0), ('rclpy.try_shutdown()', 0), ('raise SystemExit(3)', 3), ('raise OSError(4)', 1)],
)
def test_a_process_that_forgets_to_destroy_the_node_ends_after_the_frame_in_work(
    tmp_path, echo_model, robot_in, ends, code
):
    gate = Gate(tmp_path)
    program = ('-c', '\n'.join([*gate.lines, FORGETFUL.replace('ENDS', ends)]))
    options = {'program': program, 'model': echo_model, 'engine': 'onnxruntime'}
    node = NodeProcess(tmp_path, 'forgetful', **options)
    robot = robot_in('forgetful')
    robot.listen('mask', Image)
    robot.start()
    robot.show()
    gate.shut()
    robot.camera.publish(robot.image())
    robot.diagnostics(lambda status: values_of(status).get('received') == '2', 'the image')
    node.process.send_signal(signal.SIGINT)
    robot.probe.spin_for(0.5)  # within which the frame is in work
    assert node.is_alive
    gate.open()
    assert node.wait() == code, node.log
    assert ('Traceback' in node.log) == (code == 1)


@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_composes_the_node_ends_by_the_usual_means_of_rclpy(
    tmp_path, echo_model, robot_in, sent
):
    script = tmp_path / 'composed.py'
    script.write_text(COMPOSED)
    with NodeProcess(
        tmp_path, 'composed', program=(str(script),), model=echo_model, engine='onnxruntime'
    ) as node:
        robot = robot_in('composed')
        robot.listen('mask', Image)
        robot.start()
        robot.show()
        assert node.end(sent) == 0
