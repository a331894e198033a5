"""While a model is being loaded, which may take minutes, the node answers and can be ended."""

import logging
import signal
import time

import pytest
from echo_model import write_echo_model
from ros_harness import DEADLINE_S, Gate, NodeProcess, changed, orphans, show, values_of

from vss_ros.ros.loading import load
from vss_ros.ros.settings import NodeSettings, Settings

FOR_EVER = 10**9  # rounds of a loop in each key step


@pytest.fixture
def shut_gate(tmp_path):
    """Holds the first run of a model, which is part of loading it, until it is opened."""
    gate = Gate(tmp_path)
    gate.shut()
    return gate


def test_services_parameters_and_diagnostics_go_on_while_the_model_is_loaded(
    tmp_path, echo_model, shut_gate, robot_in
):
    program = changed(*shut_gate.lines)
    with NodeProcess(tmp_path, 'patient', program=program, model=echo_model, engine='onnxruntime') as node:
        robot = robot_in('patient')
        robot.listen_to_all()
        answer = robot.begin('configure')
        assert robot.set(overlay_alpha=0.25, key_frame_interval=1) == ''
        assert 'can change only while the node is unconfigured' in robot.set(precision='int8')
        assert 'not configured' in robot.trigger('reset').message
        status = robot.diagnostics(lambda status: 'running each step' in status.message, 'the progress')
        assert status.message.startswith('configuring: ')
        assert values_of(status)['state'] == 'configuring'
        assert not answer.done()  # all of this was answered before
        shut_gate.open()
        robot.probe.until(answer.done, 'the end of the transition')
        assert answer.result().success
        assert robot.state == 'inactive'
        assert robot.get('overlay_alpha') == 0.25
        assert 'preparing engine onnxruntime' in node.log
        robot.diagnostics(lambda status: status.message == 'inactive', 'the new state')
        assert robot.change('activate')
        robot.until_connected()
        assert [show(robot)['kind'] for _ in range(2)] == ['key', 'key']


def test_why_an_engine_was_taken_is_logged_once(caplog, echo_model):
    with caplog.at_level(logging.INFO, logger='vss_ros'):
        load(Settings(node=NodeSettings(model=str(echo_model)))).engine.close()
    assert caplog.text.count('auto took') == 1
    assert 'ready: engine ' in caplog.text


def test_services_go_on_while_a_second_engine_is_made_for_key_frames_in_the_background(
    tmp_path, echo_model, robot_in
):
    slow_second = changed(
        'import time',
        'from vss_ros.core.engines.onnx_runtime import OnnxRuntimeEngine as Engine',
        'second = Engine.second',
        'Engine.second = lambda self: print("a second engine") or time.sleep(3) or second(self)',
    )
    options = {'model': echo_model, 'engine': 'onnxruntime', 'background_key_frames': True}
    with NodeProcess(tmp_path, 'seconded', program=slow_second, **options) as node:
        robot = robot_in('seconded')
        answer = robot.begin('configure')
        robot.probe.until(lambda: 'a second engine' in node.log, 'the second engine')
        assert robot.set(overlay_alpha=0.25) == ''
        assert not answer.done()
        robot.probe.until(answer.done, 'the end of the transition')
        assert answer.result().success
        assert robot.change('activate')


TWO_NODES = """
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from vss_ros.ros.node import SegmentationNode

rclpy.init()
executor = SingleThreadedExecutor()
nodes = [SegmentationNode(), SegmentationNode('beside')]
for node in nodes:
    executor.add_node(node)
try:
    executor.spin()
except (KeyboardInterrupt, ExternalShutdownException):
    pass
except Exception:
    if rclpy.ok():  # rclpy may raise "context is not valid" when a signal comes
        raise
for node in nodes:
    node.destroy_node()
rclpy.try_shutdown()
"""


def test_other_nodes_of_the_executor_go_on_while_one_loads_its_model_and_do_not_log_its_lines(
    tmp_path, echo_model, shut_gate, robot_in
):
    program = ('-c', '\n'.join([*shut_gate.lines, TWO_NODES]))
    options = {'model': echo_model, 'engine': 'onnxruntime', 'program': program}
    with NodeProcess(tmp_path, 'shared', **options) as node:
        robot, other = robot_in('shared'), robot_in('shared')
        other.name = '/shared/beside'
        answer = robot.begin('configure')
        assert other.state == 'unconfigured'
        assert not answer.done()
        shut_gate.open()
        robot.probe.until(answer.done, 'the end of the transition')
        assert answer.result().success
        assert robot.state == 'inactive'
        assert other.state == 'unconfigured'
        assert '[shared.segmentation]: loading model' in node.log
        assert '[shared.beside]: loading model' not in node.log


def test_a_transition_asked_for_meanwhile_waits_for_its_turn(tmp_path, echo_model, shut_gate, robot_in):
    options = {'model': echo_model, 'engine': 'onnxruntime', 'autostart': True}
    with NodeProcess(tmp_path, 'queued', program=changed(*shut_gate.lines), **options):
        robot = robot_in('queued')
        robot.probe.until(lambda: robot.state == 'configuring', 'the automatic start')
        answer = robot.ask('deactivate')
        robot.probe.spin_for(0.2)  # within which it would be answered
        assert not answer.done()
        shut_gate.open()
        robot.probe.until(answer.done, 'the end of the transitions')  # the start configures and activates
        assert answer.result().success
        assert robot.state == 'inactive'


@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_model_is_loaded_ends_the_process_at_once(tmp_path, robot_in, sent):
    model = write_echo_model(tmp_path / 'endless', rounds=FOR_EVER)
    name = f'unloading_{sent.name.lower()}'
    with NodeProcess(tmp_path, name, model=model, engine='onnxruntime') as node:
        robot = robot_in(name)
        robot.begin('configure')
        memory = node.shared_memory
        assert memory
        start = time.monotonic()
        assert node.end(sent) == 0
        assert time.monotonic() - start < DEADLINE_S / 2
        assert 'Traceback' not in node.log
        assert 'error' not in node.log.lower()
        assert orphans(memory) == []


def test_what_the_core_says_stands_in_the_log_of_the_node(probe):
    from vss_ros.ros.core_log import CoreLog

    said = []

    class Node:
        """Keeps what is logged; the real log goes to the terminal and cannot be read back."""

        def get_logger(self):
            return self

        def __getattr__(self, severity):
            return lambda text: said.append((severity, text))

    log = CoreLog(Node())
    core = logging.getLogger('vss_ros.core.engines')
    core.info('building: %d %%', 40)
    core.warning('two\nlines')
    core.error('out of memory')
    core.debug('of no interest')
    log.close()
    core.error('said to nobody')
    assert said == [('info', 'building: 40 %'), ('warning', 'two lines'), ('error', 'out of memory')]
    assert log.last == 'out of memory'
