"""The entry point `segmentation_node`.

The heavy imports wait inside `main`, because they take seconds on a small robot, and a signal that comes
while they run must end the process as cleanly as any other.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def main(args: list[str] | None = None) -> int:
    """Runs the node until it is interrupted; returns the exit code.

    Args:
        args: the name of the program and its arguments; None: those of the process.

    Raises:
        SystemExit: see `check_arguments`.
    """
    started = False

    def on_signal(number: int, frame: Any) -> None:
        if not started:
            os._exit(0)  # there is nothing to clean up yet
        # rclpy ends the spinning, for SIGINT as for SIGTERM. A KeyboardInterrupt could strike anywhere: in a
        # destructor, where it is lost and printed, or halfway through a call into the middleware.

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)  # rclpy puts its own before these, and calls them

    import rclpy
    from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.logging import get_logger
    from rclpy.utilities import remove_ros_args

    from vss_ros.core.errors import VssError, error_text
    from vss_ros.ros.arguments import check_arguments
    from vss_ros.ros.fast_dds import use_image_profile
    from vss_ros.ros.node import SegmentationNode
    from vss_ros.ros.spinning import spin

    try:
        check_arguments(remove_ros_args(args)[1:])
        rclpy.init(args=args)
    except Exception as error:  # of several classes: a file of parameters, a remapping, the environment
        print(f'segmentation_node cannot start: {" ".join(error_text(error).split())}', file=sys.stderr)
        return 1
    node: SegmentationNode | None = None
    executor: SingleThreadedExecutor | None = None
    folder: TemporaryDirectory[str] | None = None
    try:
        started = True
        try:  # Fast DDS reads it when the first node is made
            folder = TemporaryDirectory()
            use_image_profile(Path(folder.name))
        except (VssError, OSError) as error:
            get_logger('segmentation').warning(
                f'large masks may be lost, there is no Fast DDS profile: {error}'
            )
        executor = SingleThreadedExecutor()
        node = SegmentationNode()
        executor.add_node(node)
        spin(executor, node)
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
        has_ended = node is None or node.close()
        if executor is not None:
            executor.shutdown()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
        if folder is not None:
            folder.cleanup()
        for number in (signal.SIGINT, signal.SIGTERM):  # the interpreter takes its time to end, too
            signal.signal(number, signal.SIG_IGN)
        if not has_ended:
            # Building an engine takes minutes, and nothing half written of it is ever used; a graph that does
            # not come back is not to be waited for either.
            os._exit(0)
    return 0


if __name__ == '__main__':
    sys.exit(main())
