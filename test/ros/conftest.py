"""The real node in its own process, driven over real topics and services.

Each xdist worker claims a ROS domain of its own, because workers on one domain hear each other.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from vss_ros.ros.fast_dds import SHARED_MEMORY, use_image_profile

sys.path.insert(0, str(Path(__file__).parent))


def _claim_domain() -> tuple[int, socket.socket]:
    """A free domain, and the socket that keeps it ours for the life of this process."""
    for domain in range(1, 101):
        lock = socket.socket()
        try:
            lock.bind(('127.0.0.1', 32000 + domain))
        except OSError:
            lock.close()
        else:
            return domain, lock
    raise RuntimeError('no free ROS domain')


if find_spec('rclpy') is None:
    collect_ignore_glob = ['test_ros_*.py']  # test_rclpy_is_installed.py says why
else:
    _DOMAIN, _LOCK = _claim_domain()
    os.environ['ROS_DOMAIN_ID'] = str(_DOMAIN)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'


@pytest.fixture(scope='session', autouse=True)
def image_profile(tmp_path_factory):
    use_image_profile(tmp_path_factory.mktemp('profile'))


@pytest.fixture(scope='session', autouse=True)
def memory_of_killed_processes():
    """Given back after the tests that kill: Fast DDS leaves the segment of each, 35 MB."""
    before = set(SHARED_MEMORY.glob('fastrtps_*_el'))
    yield
    for path in set(SHARED_MEMORY.glob('fastrtps_*_el')) - before:
        with suppress(OSError), path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while its process lives
            path.with_name(path.name.removesuffix('_el')).unlink()
            path.unlink()


@pytest.fixture(scope='session')
def echo_model(tmp_path_factory):
    """A model folder whose mask is the blue channel of the image; see `echo_model.py`."""
    from echo_model import write_echo_model

    return write_echo_model(tmp_path_factory.mktemp('models') / 'echo')


@pytest.fixture(scope='session')
def slow_model(tmp_path_factory):
    """The same, with key frames that take a while, on ONNX Runtime: OpenVINO sees through idle loops."""
    from echo_model import write_echo_model

    return write_echo_model(tmp_path_factory.mktemp('models') / 'slow', rounds=100_000)


@pytest.fixture(scope='module')
def probe():
    """The other end of the node's topics and services, in this process."""
    from ros_harness import Probe

    with Probe() as probe:
        yield probe


@pytest.fixture(scope='module')
def node(tmp_path_factory, request, echo_model):
    """One node process for all tests of a module; they leave it unconfigured."""
    from ros_harness import NodeProcess

    name = request.module.__name__.rpartition('.')[2]
    with NodeProcess(tmp_path_factory.mktemp(name), name, model=echo_model) as node:
        yield node


@pytest.fixture
def robot(probe, node):
    """The rest of the robot; afterwards the node is unconfigured and its parameters are as before."""
    from ros_harness import Robot

    robot = Robot(probe, node.namespace)
    yield robot
    robot.stop()
    robot.restore()
    robot.close()
    assert node.is_alive


@pytest.fixture
def robot_in(probe):
    """Makes the rest of a robot around a node in a namespace, for nodes that a test starts itself."""
    from ros_harness import Robot

    robots = []

    def make(namespace: str, **arguments) -> Robot:
        robots.append(Robot(probe, namespace, **arguments))
        return robots[-1]

    yield make
    for robot in robots:
        robot.close()


@pytest.fixture
def stream(robot):
    """A started robot whose images all arrive, in order."""
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import Image

    assert robot.set(drop_policy='queue', queue_size=30) == ''
    robot.listen('mask', Image)
    robot.listen('frame_info', DiagnosticArray)
    robot.start()
    return robot


@pytest.fixture
def statistics():
    from vss_ros.ros.statistics import StreamStatistics

    return StreamStatistics()


@pytest.fixture
def later(monkeypatch):
    """Moves the clock of what is tested in this process on by so many seconds, so that no test must wait."""
    from vss_ros.ros import diagnostics, inbox, publishers, statistics, topic_source

    moved_s = []
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + sum(moved_s))
    for module in (diagnostics, inbox, publishers, statistics, topic_source):
        monkeypatch.setattr(module, 'time', clock)
    return lambda seconds: moved_s.append(seconds)


@pytest.fixture
def diagnostics_of(probe, statistics):
    """Makes the diagnostics of an active stream that has a source; tests count what came."""
    from vss_ros.ros.core_log import CoreLog
    from vss_ros.ros.diagnostics import Diagnostics
    from vss_ros.ros.settings import NodeSettings, Settings

    made = []

    def make(source, settings: NodeSettings) -> Diagnostics:
        log = CoreLog(probe.node)
        log.close()
        watched = Diagnostics(probe.node, log)
        made.append(watched)
        watched._timer.cancel()  # on a busy machine it would come before the test asks
        watched.state = 'active'
        watched.stream = SimpleNamespace(
            source=source,
            statistics=statistics,
            settings=Settings(node=settings),
            model=SimpleNamespace(propagates=True),
            is_running=True,
            background=None,
            given_up=0,
        )
        watched.start_over()
        return watched

    yield make
    for watched in made:
        probe.node.destroy_timer(watched._timer)
