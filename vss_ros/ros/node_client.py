"""The node as a process of its own, and a client of it: operator, and listener to its health.

Everything goes over real topics and services; nothing here knows the node but by their names.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from vss_ros.core.errors import VssError

T = TypeVar('T')
C = TypeVar('C', bound='NodeClient')

TRANSITIONS = {
    'configure': Transition.TRANSITION_CONFIGURE,
    'activate': Transition.TRANSITION_ACTIVATE,
    'deactivate': Transition.TRANSITION_DEACTIVATE,
    'cleanup': Transition.TRANSITION_CLEANUP,
}
START_S = 60.0  # loading a model may wait for a busy disk
CONFIGURE_S = 1800.0  # building TensorRT engines takes minutes, the first time
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
            with self.log.open('w') as output, interrupts_held():
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

    def last_words(self) -> str:
        """The last lines of its log."""
        return '\n'.join(self.log.read_text(errors='replace').splitlines()[-8:])

    def end(self) -> int:
        """Ends the node as Ctrl-C would, and returns its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGINT)  # nothing, if it has ended
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Lets Ctrl-C wait: in the middle of starting a process it would leave the process behind."""
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


class NodeClient:
    """Asks a node for transitions and listens to its health.

    Threads: the one that made it, which spins while it waits.

    Attributes:
        health: the key-value pairs of the node's newest message on /diagnostics.
    """

    def __init__(self, node: NodeProcess) -> None:
        self._process = node
        self.health: dict[str, str] = {}
        # Without rclpy's signal handlers Ctrl-C is the ordinary KeyboardInterrupt.
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('robot', namespace=node.namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._transitions = self._node.create_client(ChangeState, 'segmentation/change_state')
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._on_health, 10)

    def __enter__(self: C) -> C:
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
        self._until(future.done, f'an answer to {name}', CONFIGURE_S if name == 'configure' else START_S)
        if not future.result().success:
            raise VssError(f'the node refused to {name}; its last words:\n{self._process.last_words()}')

    def await_health(self) -> dict[str, str]:
        """The node's next message on /diagnostics."""
        self.health = {}
        return self._until(lambda: self.health, 'its diagnostics', END_S)

    def _on_health(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f'{self._process.namespace}/segmentation: segmentation':
                self.health = values_of(status)

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
    return f'vss_{os.getpid()}'


def values_of(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}
