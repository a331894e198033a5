"""The entry point `segmentation_node`."""

from __future__ import annotations

import signal
import sys

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger

from vss_ros.ros.node import SegmentationNode


def main(args: list[str] | None = None) -> int:
    """Runs the node until it is interrupted; returns the exit code."""
    rclpy.init(args=args)
    node: SegmentationNode | None = None
    executor = SingleThreadedExecutor()
    try:
        node = SegmentationNode()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        get_logger('segmentation').fatal(f'a parameter given at start cannot be used: {error}')
        return 1
    except Exception:
        if rclpy.ok():  # SIGTERM can surface as "context is not valid"
            raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would end with code -2
        if node is not None:
            node.close()
        executor.shutdown()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
