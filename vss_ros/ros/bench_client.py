"""The robot of `vss bench --ros`: starts the camera, listens, and counts what came of its images."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from vss_ros.core.errors import VssError
from vss_ros.ros.node_client import END_S, START_S, NodeClient, NodeProcess, interrupts_held, values_of

QUIET_S = 1.0  # without an answer, after which no more are expected
WARM_UP = 3  # answers that are counted but whose times are not taken
COUNTS = ('received', 'published', 'dropped', 'lost', 'bad', 'failed')  # of the node's diagnostics
MEASURED = ('resize', 'output')  # what the node itself does, by its own clock


@dataclass
class Measured:
    """What came of the images of one run.

    Attributes:
        camera: `sent` images and how many of them `late`.
        counts: those of the node, see `Tally`.
        masks: that arrived at a subscriber.
        infos: `frame_info` of each frame, without those of the warm-up.
        end_to_end_ms: from sending an image to receiving its mask, without those of the warm-up.
        health: the node's last diagnostics.
    """

    camera: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    masks: int = 0
    infos: list[dict[str, str]] = field(default_factory=list)
    end_to_end_ms: list[float] = field(default_factory=list)
    health: dict[str, str] = field(default_factory=dict)

    def report(self, stages: Collection[str]) -> dict[str, Any]:
        """Counts, and times in milliseconds as p50 and p99, by kind of frame.

        `latency` is from the callback that takes the image to the published mask, `outside` is that without
        the stages of the model and `download`, in which the node waits for what a GPU still computes.
        `messages` is what of it no one measures: handing over, converting the image, publishing.

        Args:
            stages: of the model's steps.
        """
        times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for info in self.infos:
            spent = {name[:-3]: float(text) for name, text in info.items() if name.endswith('_ms')}
            of_kind, latency = times[info['kind']], spent['latency']
            inside = sum(ms for name, ms in spent.items() if name in stages or name == 'download')
            of_kind['latency'].append(latency)
            of_kind['outside'].append(latency - inside)
            for name in MEASURED:
                of_kind[name].append(spent[name])
            of_kind['messages'].append(latency - inside - sum(spent[name] for name in MEASURED))
        return {
            **self.camera,
            'masks': self.masks,
            **self.counts,
            'not_received': self.camera['sent'] - self.counts['received'],
            'share_answered': self.masks / self.camera['sent'],
            'frames': {kind: len(of_kind['latency']) for kind, of_kind in times.items()},
            'ms': {
                kind: {name: percentiles(values) for name, values in of_kind.items()}
                for kind, of_kind in times.items()
            },
            'end_to_end_ms': percentiles(self.end_to_end_ms),
        }


class BenchClient(NodeClient):
    """Listens to mask and frame_info, as a robot does that uses them."""

    def __init__(self, node: NodeProcess) -> None:
        super().__init__(node)
        self._measured = Measured()
        self._last_s = 0.0
        self._subscriptions = [
            self._node.create_subscription(Image, 'segmentation/mask', self._on_mask, QoSProfile(depth=10)),
            self._node.create_subscription(
                DiagnosticArray, 'segmentation/frame_info', self._on_info, QoSProfile(depth=30)
            ),
        ]

    def run(self, size: tuple[int, int], rate_hz: float, frames: int) -> Measured:
        """Lets the camera send its images to the active node, and waits for the last answers.

        Raises:
            VssError: the node or the camera ended before its time.
        """
        for subscription in self._subscriptions:
            name = subscription.topic_name
            self._until(partial(self._node.count_publishers, name), f'a publisher of {name}', START_S)
        words = [self._process.namespace, *size, rate_hz, frames]
        with _process([sys.executable, '-m', 'vss_ros.ros.bench_camera', *map(str, words)]) as camera:
            while camera.poll() is None:
                self._process.check()
                self._executor.spin_once(timeout_sec=0.05)
            said, complaints = camera.communicate()
        if camera.returncode:
            raise VssError(f'the camera ended with code {camera.returncode}: {complaints.strip()}')
        self._measured.camera = json.loads(said.splitlines()[-1])
        self._last_s = time.monotonic()
        while time.monotonic() - self._last_s < QUIET_S:
            self._executor.spin_once(timeout_sec=0.05)
        health = self._measured.health = self.await_health()
        self._measured.counts = {name: int(health[name]) for name in COUNTS}
        return self._measured

    def _on_mask(self, message: Image) -> None:
        sent_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self._measured.masks += 1
        self._last_s = time.monotonic()
        if self._measured.masks > WARM_UP:
            self._measured.end_to_end_ms.append((time.time_ns() - sent_ns) / 1e6)

    def _on_info(self, message: DiagnosticArray) -> None:
        if self._measured.masks > WARM_UP:
            self._measured.infos.append(values_of(message.status[0]))


def percentiles(values: list[float]) -> dict[str, float] | None:
    """p50 and p99; None of nothing."""
    if not values:
        return None
    median, tail = np.percentile(values, (50, 99))
    return {'p50': float(median), 'p99': float(tail)}


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen]:
    """A process that is ended with the block; Ctrl-C in the terminal reaches only us."""
    process: subprocess.Popen | None = None
    try:
        with interrupts_held():
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
        yield process
    finally:
        if process is not None:
            with process:  # at its end the pipes are closed, and the process is waited for
                process.terminate()  # nothing, if it has ended
                try:
                    process.wait(END_S)
                except subprocess.TimeoutExpired:
                    process.kill()
