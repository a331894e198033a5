"""Processes that tests start, and that are over when the test is, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

MARK = 'VSS_ROS_TEST_MARK'  # in the environment, which whatever a process starts inherits


@contextmanager
def started(
    command: Sequence[str], env: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen]:
    """A process. At the end it is killed with all that it started, should any of that live on.

    Args:
        options: of `subprocess.Popen`.
    """
    mark = uuid4().hex
    environment = {**(os.environ if env is None else env), MARK: mark}
    process = subprocess.Popen(command, env=environment, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pid in marked(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def marked(mark: str) -> list[int]:
    """The processes that carry a mark, even if the one that started them has ended; none without /proc."""
    found = []
    for environment in Path('/proc').glob('[0-9]*/environ'):
        with suppress(OSError):  # another user's, or over meanwhile
            if f'{MARK}={mark}'.encode() in environment.read_bytes().split(b'\0'):
                found.append(int(environment.parent.name))
    return found
