"""Spins a node that no message can end.

rclpy lets what a callback raises end the spinning. Its own callbacks raise, too: at a parameter whose type no
one knows, at a /clock before zero.
"""

from __future__ import annotations

import traceback

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future

from vss_ros.ros.throttling import at_most_every

THROTTLE_S = 5.0
LOOK_S = 0.1  # between two looks at what is waited for


def spin(executor: SingleThreadedExecutor, node: Node, until: Future | None = None) -> None:
    """Calls the node's callbacks until ROS is shut down or `until` is done; what they raise is logged.

    Raises:
        ExternalShutdownException, KeyboardInterrupt: the process is being ended.
    """
    while node.context.ok() and (until is None or not until.done()):
        try:
            if until is None:
                executor.spin()
            else:  # rclpy's own way to do this adds a callback to `until` with each one that it calls
                executor.spin_once(timeout_sec=LOOK_S)
        except ExternalShutdownException:
            raise
        except Exception as error:
            if not node.context.ok():  # SIGTERM can surface as "context is not valid"
                return
            log = node.get_logger()
            log.error(f'a callback failed: {type(error).__name__}: {error}', **at_most_every(THROTTLE_S))
            log.debug(traceback.format_exc())
