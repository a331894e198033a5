"""Starts the node in a process of its own and plays the robot around it.

Everything is waited for with a deadline; nothing sleeps for a fixed time.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0  # generous: the machine may be busy
PATIENCE_S = 2.0  # for what may as well be asked twice
STEP_NS = 33_000_000
PROGRAM = ('-m', 'vss_ros.ros.main')

OUTPUTS = {
    'mask': Image,
    'confidence': Image,
    'color_mask': Image,
    'overlay': Image,
    'distortion': Image,
    'mask/compressed': CompressedImage,
    'camera_info': CameraInfo,
    'frame_info': DiagnosticArray,
}
TRANSITIONS = {
    'configure': Transition.TRANSITION_CONFIGURE,
    'activate': Transition.TRANSITION_ACTIVATE,
    'deactivate': Transition.TRANSITION_DEACTIVATE,
    'cleanup': Transition.TRANSITION_CLEANUP,
}
BETWEEN = {'configure': 'configuring', 'activate': 'activating'}


def orphans(segments: Iterable[Path]) -> list[Path]:
    """Those segments that are still there although the process that made them is not."""
    found = []
    for segment in segments:
        with suppress(OSError), segment.with_name(f'{segment.name}_el').open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while its process lives
            found.append(segment)
    return found


def changed(*lines: str) -> tuple[str, str]:
    """`segmentation_node` with lines of Python that are run before it."""
    imports = 'import sys, threading\nfrom vss_ros.ros import main, stream'
    return '-c', '\n'.join([imports, *lines, 'sys.exit(main.main())'])


class Gate:
    """Holds every run of ONNX Runtime in a node process while it is shut.

    A model that is slow for a while would do, but on some machine that while is too short for a test.

    Attributes:
        lines: of Python that put the gate there, for `changed`.
    """

    def __init__(self, folder: Path) -> None:
        self._shut = folder / 'gate_is_shut'
        self.lines = [
            'import pathlib, time',
            'from vss_ros.core.engines.onnx_runtime import OnnxRuntimeEngine',
            f'shut, run = pathlib.Path({str(self._shut)!r}), OnnxRuntimeEngine.run',
            'def held(*arguments):',
            '    while shut.exists():',
            '        time.sleep(0.01)',
            '    return run(*arguments)',
            'OnnxRuntimeEngine.run = held',
        ]

    def shut(self) -> None:
        self._shut.touch()

    def open(self) -> None:
        self._shut.unlink()


class NodeProcess:
    """`segmentation_node` as a user starts it, or another program; its output is kept in a file."""

    def __init__(
        self, folder: Path, namespace: str, *arguments: str, program: Sequence[str] = PROGRAM, **parameters
    ) -> None:
        self.namespace = namespace
        self.log_file = folder / f'{namespace}.log'
        command = [sys.executable, *program, '--ros-args', '-r', f'__ns:=/{namespace}']
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ['-p', f'{name.replace("__", ".")}:={text}']
        environment = {k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'}
        environment |= {
            'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
            'ROS_LOG_DIR': str(folder / 'ros_log'),
            'PYTHONUNBUFFERED': '1',
        }
        with self.log_file.open('w') as log:
            self.process = subprocess.Popen(
                [*command, *arguments], env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def shared_memory(self) -> set[Path]:
        """Segments of Fast DDS that the process has open: its own, and those of whom it talks to."""
        maps = Path(f'/proc/{self.process.pid}/maps').read_text()
        return {Path(name) for name in re.findall(r'/dev/shm/fastrtps_[0-9a-f]{16}\b', maps)}

    def end(self, sent: signal.Signals = signal.SIGINT) -> int:
        """Sends a signal and returns the exit code."""
        if self.is_alive:
            self.process.send_signal(sent)
        return self.wait()

    def wait(self) -> int:
        """Waits for the end of the process and returns its exit code. It does not live on in any case."""
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *error) -> None:
        try:
            code = self.end()
        finally:
            if error[0] is not None:
                print(self.log)
        assert code == 0, (code, self.log)
        assert 'Traceback' not in self.log


class Probe:
    """A node in the test's own process: camera, operator and audience in one."""

    def __init__(self) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, args=[])
        self.node = rclpy.create_node('probe', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict = {}

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *error) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def until(self, condition, what: str, deadline_s: float = DEADLINE_S):
        """Spins until `condition()` is true and returns its value."""
        end = time.monotonic() + deadline_s
        while not (value := condition()):
            assert time.monotonic() < end, f'waited {deadline_s:.0f} s in vain for {what}'
            self._executor.spin_once(timeout_sec=0.02)
        return value

    def spin_for(self, seconds: float) -> None:
        """Spins for a while, where the test is that nothing happens."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)

    def client(self, kind, name: str):
        """The client of a service, made when it is first asked for."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        return self._clients[name]

    def knows(self, name: str) -> bool:
        """Whether there is a client of a service."""
        return name in self._clients

    def forget_clients(self, *names: str) -> None:
        """Makes the next calls of these services, or of all, use new clients."""
        for name in names or tuple(self._clients):
            if (client := self._clients.pop(name, None)) is not None:
                self.node.destroy_client(client)

    def call(self, kind, name: str, request, patience_s: float = DEADLINE_S):
        """Calls a service, again each time its patience ends, and returns the first response.

        On a busy machine the server may not know the client yet when it answers, and the answer is lost.
        """
        client = self.client(kind, name)
        self.until(client.service_is_ready, f'service {name}')
        calls = []

        def answered():
            if len(calls) * patience_s <= time.monotonic() - began:
                calls.append(client.call_async(request))
            return next((call for call in calls if call.done()), None)

        began = time.monotonic()
        return self.until(answered, f'an answer of {name}').result()


class Robot:
    """One node under test, as the rest of a robot sees it through a probe."""

    def __init__(self, probe: Probe, namespace: str, compressed: bool = False, reliable: bool = True) -> None:
        self.probe = probe
        self.prefix = f'/{namespace}'
        self.name = f'{self.prefix}/segmentation'
        self.received: dict[str, list] = defaultdict(list)
        self._stamp_ns = 1_000_000_000
        self._entities: list = []
        self._original: dict = {}
        qos = QoSProfile(
            depth=30, reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        )
        kind, topic = (CompressedImage, 'image_raw/compressed') if compressed else (Image, 'image_raw')
        self.camera = probe.node.create_publisher(kind, f'{self.prefix}/{topic}', qos)
        self.camera_info = probe.node.create_publisher(CameraInfo, f'{self.prefix}/camera_info', qos)
        self.listen('/diagnostics', DiagnosticArray, key='diagnostics')

    def close(self) -> None:
        for subscription in self._entities:
            self.probe.node.destroy_subscription(subscription)
        self.probe.node.destroy_publisher(self.camera)
        self.probe.node.destroy_publisher(self.camera_info)

    def listen(self, topic: str, kind, key: str | None = None, latched: bool = False) -> None:
        """Keeps every message of a topic under `received[key]`."""
        name = topic if topic.startswith('/') else f'{self.name}/{topic}'
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        qos = QoSProfile(depth=100, durability=durability)

        def keep(message, messages=self.received[key or topic]):  # rclpy takes no built-in method
            messages.append(message)

        self._entities.append(self.probe.node.create_subscription(kind, name, keep, qos))

    def listen_to_all(self) -> None:
        for topic, kind in OUTPUTS.items():
            self.listen(topic, kind)

    def until_connected(self) -> None:
        """Waits until the node takes images, and answers them to everyone who listens."""
        for publisher in (self.camera, self.camera_info):
            self.probe.until(publisher.get_subscription_count, f'a subscription to {publisher.topic_name}')
        for entity in self._entities:
            name = entity.topic_name
            self.probe.until(
                lambda name=name: self.probe.node.count_publishers(name), f'publishers on {name}'
            )
        # What this process subscribes to becomes known over there in the order in which it was created. So
        # when the answer to a client made now arrives, the node knows all the subscriptions made before.
        self.probe.forget_clients()
        assert self.state

    # lifecycle and services

    def change(self, verb: str | int) -> bool:
        request, name = ChangeState.Request(), f'{self.name}/change_state'
        request.transition.id = TRANSITIONS.get(verb, verb)
        if not self.probe.knows(name):
            self.probe.client(ChangeState, name)
            self._until_clients_are_known()
        return self.probe.call(ChangeState, name, request).success

    def ask(self, verb: str):
        """Asks for a transition; returns its answer to come."""
        client = self.probe.node.create_client(ChangeState, f'{self.name}/change_state')
        self.probe.until(client.service_is_ready, client.srv_name)
        self._until_clients_are_known()
        return client.call_async(ChangeState.Request(transition=Transition(id=TRANSITIONS[verb])))

    def begin(self, verb: str):
        """Asks for a transition; returns its answer to come once it is under way."""
        answer = self.ask(verb)
        self.probe.until(lambda: self.state == BETWEEN[verb], BETWEEN[verb])
        return answer

    def _until_clients_are_known(self) -> None:
        """The answer to a transition must not be lost, for it cannot be asked for twice.

        What this process makes becomes known over there in order, so when a later client is answered, those
        before it are known.
        """
        self.probe.forget_clients(f'{self.name}/get_state')
        assert self.state

    @property
    def state(self) -> str:
        answer = self.probe.call(GetState, f'{self.name}/get_state', GetState.Request(), PATIENCE_S)
        return answer.current_state.label

    def start(self) -> None:
        """Configures and activates, and waits for the connections."""
        assert self.change('configure')
        assert self.change('activate')
        self.until_connected()

    def stop(self) -> None:
        """Back to unconfigured, from wherever the node is."""
        if self.state == 'active':
            assert self.change('deactivate')
        if self.state == 'inactive':
            assert self.change('cleanup')

    def restore(self) -> None:
        """Gives every parameter that was set its first value back."""
        if self._original:
            assert self.set(**self._original) == ''
        self._original = {}

    def set(self, **parameters):
        """Sets parameters one by one; returns the first refusal's reason or ''."""
        self._remember(parameters)
        request = SetParameters.Request(parameters=_parameters(parameters))
        results = self.probe.call(SetParameters, f'{self.name}/set_parameters', request, PATIENCE_S).results
        return next((result.reason for result in results if not result.successful), '')

    def set_together(self, **parameters):
        """Sets parameters as a whole; returns the refusal's reason or ''."""
        self._remember(parameters)
        request = SetParametersAtomically.Request(parameters=_parameters(parameters))
        name = f'{self.name}/set_parameters_atomically'
        result = self.probe.call(SetParametersAtomically, name, request, PATIENCE_S).result
        return '' if result.successful else result.reason

    def _remember(self, parameters) -> None:
        for name in parameters:
            if name not in self._original:
                self._original[name] = self.get(name.replace('__', '.'))

    def get(self, name: str):
        request = GetParameters.Request(names=[name])
        service = f'{self.name}/get_parameters'
        value = self.probe.call(GetParameters, service, request, PATIENCE_S).values[0]
        return rclpy.parameter.parameter_value_to_python(value)

    def describe(self, *names: str):
        request = DescribeParameters.Request(names=list(names))
        service = f'{self.name}/describe_parameters'
        return self.probe.call(DescribeParameters, service, request, PATIENCE_S).descriptors

    def trigger(self, service: str):
        return self.probe.call(Trigger, f'{self.name}/{service}', Trigger.Request())

    def enable(self, enabled: bool):
        return self.probe.call(SetBool, f'{self.name}/enable', SetBool.Request(data=enabled))

    # images

    def image(self, value: int = 3, size: tuple[int, int] = (48, 64), **fields) -> Image:
        """A bgr8 image all of one value, with the next stamp."""
        height, width = size
        message = Image(height=height, width=width, encoding='bgr8', step=3 * width)
        message.data.frombytes(np.full(size, value, np.uint8).repeat(3).tobytes())
        self.stamp(message)
        for name, content in fields.items():
            setattr(message, name, content)
        return message

    def stamp(self, message, step_ns: int = STEP_NS) -> None:
        """Gives a message the next stamp and the camera's name."""
        self._stamp_ns += step_ns
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self._stamp_ns, 10**9)
        message.header.frame_id = 'camera_optical'

    def rewind(self) -> None:
        """Lets the stamps start again, as a bag played in a loop does."""
        for messages in self.received.values():
            messages.clear()  # their headers come again
        self._stamp_ns = 1_000_000_000

    def show(self, message=None, topic: str = 'mask', deadline_s: float = DEADLINE_S):
        """Publishes an image and returns the answer with its header on `topic`."""
        message = self.image() if message is None else message
        for _ in range(3):
            self.camera.publish(message)
            with suppress(AssertionError):  # best effort may lose an image on a busy machine
                return self.answer(message.header, topic, deadline_s / 3)
        raise AssertionError(f'no {topic} for the image with stamp {message.header.stamp}')

    def answer(self, header, topic: str = 'mask', deadline_s: float = DEADLINE_S):
        """Waits for the newest message on `topic` that has this header."""

        def find():
            return next((m for m in reversed(self.received[topic]) if m.header == header), None)

        return self.probe.until(find, f'{topic} with stamp {header.stamp}', deadline_s)

    def info(self, header) -> dict[str, str]:
        """The frame_info of the frame with this header."""
        return values_of(self.answer(header, 'frame_info').status[0])

    def diagnostics(self, condition, what: str, deadline_s: float = DEADLINE_S):
        """Waits for a diagnostic status of the node that fits."""
        wanted = f'{self.name.lstrip("/")}: segmentation'

        def find():
            for message in self.received['diagnostics']:
                for status in message.status:
                    if status.name == wanted and condition(status):
                        return status
            self.received['diagnostics'].clear()
            return None

        return self.probe.until(find, f'diagnostics with {what}', deadline_s)


def show(robot, image=None) -> dict[str, str]:
    """Shows an image and returns what the node says about that frame."""
    image = robot.image() if image is None else image
    robot.show(image)
    return robot.info(image.header)


def kind_and_reason(info) -> tuple[str, str]:
    return info['kind'], info['reset_reason']


def values_of(status) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def pixels(message: Image) -> np.ndarray:
    """An Image message's picture, (H, W) or (H, W, C)."""
    dtype = np.float32 if message.encoding == '32FC1' else np.uint8
    array = np.frombuffer(message.data, dtype).reshape(message.height, message.width, -1)
    return array[..., 0] if array.shape[2] == 1 else array


def _parameters(values: dict) -> list:
    return [Parameter(k.replace('__', '.'), value=v).to_parameter_msg() for k, v in values.items()]
