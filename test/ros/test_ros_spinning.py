"""Spinning a node until something is done, and what it logs meanwhile."""

from pathlib import Path

from rclpy.clock import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.task import Future

import vss_ros.ros
from vss_ros.ros.spinning import spin
from vss_ros.ros.throttling import at_most_every


class CountingFuture(Future):
    """Counts what is to be called when it is done."""

    added = 0

    def add_done_callback(self, callback):
        self.added += 1
        super().add_done_callback(callback)


def test_a_busy_topic_leaves_nothing_behind_in_what_is_waited_for(probe):
    """A model may be loaded for minutes, while a simulated clock ticks a thousand times a second."""
    done, ticks = CountingFuture(), []

    def tick():
        ticks.append(None)
        if len(ticks) == 50:
            done.set_result(None)

    node, executor = probe.node, SingleThreadedExecutor(context=probe.node.context)
    caller = node.executor
    timer = node.create_timer(0.001, tick)
    executor.add_node(node)
    spin(executor, node, done)
    executor.shutdown()
    caller.add_node(node)
    node.destroy_timer(timer)
    assert len(ticks) == 50
    assert done.added <= 1


def test_lines_that_come_again_and_again_are_throttled_by_a_clock_that_nobody_can_set(probe):
    log = probe.node.get_logger()
    assert [log.warning('again', **at_most_every(3600.0)) for _ in range(3)] == [True, False, False]
    assert at_most_every(1.0)['throttle_time_source_type'].clock_type == ClockType.STEADY_TIME


def test_nothing_is_throttled_by_the_clock_of_the_system():
    files = Path(vss_ros.ros.__file__).parent.glob('*.py')
    assert [file.name for file in files if 'throttle_duration_sec' in file.read_text()] == ['throttling.py']
