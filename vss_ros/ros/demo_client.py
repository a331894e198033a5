"""The robot around the node: camera, operator and audience of a demo, in one process of its own.

Everything goes over real topics and services; nothing here knows the node but by their names.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from vss_ros.core.errors import VssError
from vss_ros.core.frame import Frame, Segmentation
from vss_ros.ros.conversions import image_message

T = TypeVar('T')

TRANSITIONS = {
    'configure': Transition.TRANSITION_CONFIGURE,
    'activate': Transition.TRANSITION_ACTIVATE,
    'deactivate': Transition.TRANSITION_DEACTIVATE,
    'cleanup': Transition.TRANSITION_CLEANUP,
}
PICTURES = ('mask', 'confidence', 'distortion')
START_S = 60.0  # loading a model may wait for a busy disk
SETTLE_S = 0.3  # until both ends of a topic know each other
LAST_S = 3.0  # the answers to the last images may take this long
END_S = 15.0


class NodeProcess:
    """`segmentation_node` as a process of its own, on topics below `/namespace/segmentation`.

    Args:
        log: file that takes what the node says.
        parameters: of the node, by name.
    """

    def __init__(self, namespace: str, log: Path, parameters: dict[str, Any]) -> None:
        self.namespace, self.log = namespace, log
        self._command = [sys.executable, '-m', 'vss_ros.ros.main', '--ros-args', '-r', f'__ns:=/{namespace}']
        for name, value in parameters.items():
            self._command += ['-p', f'{name}:={value}']
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> NodeProcess:
        try:
            with self.log.open('w') as output, _interrupts_held():
                # A session of its own: Ctrl-C in the terminal reaches only us, and we end the node in order.
                self._process = subprocess.Popen(
                    self._command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
                )
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def check(self) -> None:
        """Raises VssError if the node has ended."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise VssError(f'the node ended with code {code}; its last words:\n{self.last_words()}')

    def last_words(self, lines: int = 8) -> str:
        return '\n'.join(self.log.read_text(errors='replace').splitlines()[-lines:])

    def end(self) -> int:
        """Ends the node as Ctrl-C would, and returns its exit code."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Lets Ctrl-C wait: in the middle of starting a process it would leave the process behind."""
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


@dataclass(eq=False)
class Answer:
    """What came back for one image that was sent.

    Attributes:
        frame: the image, with the stamp it was sent with.
        sent_s: when, by `time.monotonic()`.
        latency_ms: from sending the image to receiving its mask; None while there is none.
        pictures: `mask`, `confidence`, `distortion`, uint8 (H, W), as far as they arrived.
        info: the key-value pairs of `frame_info`.
    """

    frame: Frame
    sent_s: float
    latency_ms: float | None = None
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    info: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return bool(self.info) and all(name in self.pictures for name in PICTURES)

    def segmentation(self) -> Segmentation:
        """The answer as the pipeline would have given it. Only for complete answers."""
        return Segmentation(
            mask=self.pictures['mask'],
            confidence=self.pictures['confidence'],
            is_key=self.info['kind'] == 'key',
            age_frames=int(self.info['age_frames']),
            age_ns=round(float(self.info['age_ms']) * 1e6),
            stamp_ns=self.frame.stamp_ns,
            reset_reason=self.info['reset_reason'] or None,
            read_distortion=lambda: self.pictures['distortion'],
        )


class DemoClient:
    """Plays images into a node's camera topic and collects what it publishes.

    Attributes:
        answers: one for every image sent, in order.
        health: the key-value pairs of the node's newest message on /diagnostics.
    """

    def __init__(self, node: NodeProcess) -> None:
        self._process = node
        self.answers: list[Answer] = []
        self.health: dict[str, str] = {}
        self._by_stamp: dict[int, Answer] = {}
        # Without rclpy's signal handlers Ctrl-C is the ordinary KeyboardInterrupt.
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('robot', namespace=node.namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._transitions = self._node.create_client(ChangeState, 'segmentation/change_state')
        self._images = self._node.create_publisher(
            Image, 'image_raw', QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        )
        for name in PICTURES:
            self._node.create_subscription(Image, f'segmentation/{name}', partial(self._on_picture, name), 10)
        self._node.create_subscription(DiagnosticArray, 'segmentation/frame_info', self._on_info, 10)
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._on_health, 10)

    def __enter__(self) -> DemoClient:
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def transition(self, name: str) -> None:
        """Asks the node for a transition: `configure`, `activate`, `deactivate` or `cleanup`.

        Raises:
            VssError: the node refused, or does not answer.
        """
        self._until(self._transitions.service_is_ready, f'its service to {name}', START_S)
        request = ChangeState.Request()
        request.transition.id = TRANSITIONS[name]
        future = self._transitions.call_async(request)
        self._until(future.done, f'an answer to {name}', START_S)
        if not future.result().success:
            raise VssError(f'the node refused to {name}; its last words:\n{self._process.last_words()}')

    def play(self, frames: Sequence[Frame], rate_hz: float, on_sent: Callable[[], None]) -> None:
        """Sends the frames at this rate, stamped with the time of sending, and waits for the last answers.

        Raises:
            VssError: the node does not listen, or ended.
        """
        self._until(lambda: self._images.get_subscription_count() > 0, 'its image subscription', START_S)
        self._spin(SETTLE_S)
        start_s = time.monotonic()
        for number, frame in enumerate(frames):
            self._spin(start_s + number / rate_hz - time.monotonic())
            self._process.check()
            self._send(frame)
            on_sent()
        deadline_s = time.monotonic() + LAST_S
        while not self.answers[-1].is_complete and time.monotonic() < deadline_s:
            self._spin(0.05)

    def await_health(self) -> dict[str, str]:
        """The node's next message on /diagnostics."""
        self.health = {}
        return self._until(lambda: self.health, 'its diagnostics', END_S)

    def _send(self, frame: Frame) -> None:
        stamp_ns = time.time_ns()
        answer = Answer(replace(frame, stamp_ns=stamp_ns), time.monotonic())
        self.answers.append(answer)
        self._by_stamp[stamp_ns] = answer
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        header = Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=frame.camera)
        self._images.publish(image_message(frame.image, 'bgr8', header))

    def _on_picture(self, name: str, message: Image) -> None:
        answer = self._answer(message.header.stamp)
        if answer is None:
            return
        if name == 'mask':
            answer.latency_ms = (time.monotonic() - answer.sent_s) * 1e3
        answer.pictures[name] = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)

    def _on_info(self, message: DiagnosticArray) -> None:
        if (answer := self._answer(message.header.stamp)) is not None:
            answer.info = _values(message.status[0])

    def _on_health(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f'{self._process.namespace}/segmentation: segmentation':
                self.health = _values(status)

    def _answer(self, stamp: Time) -> Answer | None:
        return self._by_stamp.get(stamp.sec * 10**9 + stamp.nanosec)

    def _spin(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while (left := end_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def _until(self, condition: Callable[[], T], what: str, seconds: float) -> T:
        end_s = time.monotonic() + seconds
        while not (value := condition()):
            self._process.check()
            if time.monotonic() > end_s:
                raise VssError(
                    f'waited {seconds:.0f} s in vain for {what}; the last words of the node:\n'
                    f'{self._process.last_words()}'
                )
            self._executor.spin_once(timeout_sec=0.05)
        return value


def private_namespace() -> str:
    """A namespace that no other node on this network uses."""
    return f'vss_demo_{os.getpid()}'


def _values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}
