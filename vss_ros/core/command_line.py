"""The command that made a result, which reports keep beside it."""

import shlex
import sys


def command_line() -> str:
    """The words after `vss`, and itself, quoted so that a shell takes them again."""
    return shlex.join(['vss', *sys.argv[1:]])
