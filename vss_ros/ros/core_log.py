"""What the core says, in the node's log.

The core knows no ROS: engines tell how their building goes through Python's logging.
"""

from __future__ import annotations

import logging
import threading

from rclpy.node import Node

PACKAGE = 'vss_ros'
_thread = threading.local()  # `log` is that of the node which it works for


class CoreLog(logging.Handler):
    """Passes every record of this package on to the node's log until it is closed.

    In a process of several nodes, all but those of threads that work for another one.

    Close it before ROS is shut down: after that, logging ends the process.
    Threads: any may log, under the handler's lock; the executor's closes it and reads `last`.

    Attributes:
        last: the newest line that is information or more, to tell how far something is.
    """

    def __init__(self, node: Node) -> None:
        super().__init__(logging.INFO)
        self._node_log = node.get_logger()
        self.last = ''
        self._is_closed = False
        logger = logging.getLogger(PACKAGE)
        logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def claim_thread(self) -> None:
        """Is told by a thread that it works for this node alone."""
        _thread.log = self

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_closed:  # by another thread, after this record had set out
            return
        if getattr(_thread, 'log', self) is not self:
            return
        text = self.last = ' '.join(record.getMessage().split())  # one line
        # rclpy wants a place in the code of its own for each severity.
        if record.levelno >= logging.ERROR:
            self._node_log.error(text)
        elif record.levelno >= logging.WARNING:
            self._node_log.warning(text)
        else:
            self._node_log.info(text)

    def close(self) -> None:
        logging.getLogger(PACKAGE).removeHandler(self)
        self.acquire()  # what another thread says now is said before this returns
        self._is_closed = True
        self.release()
        super().close()
