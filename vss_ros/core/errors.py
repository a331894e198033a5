"""The few error classes of the package.

`core` raises them, the command line prints their one line and returns 2, the node logs them and refuses
the transition. A message says what was wrong, what was expected and what to do next.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class VssError(Exception):
    """Anything a user can cause and mend."""


class SettingsError(VssError):
    """A setting, parameter or argument has a value that cannot be used."""


class ModelError(VssError):
    """A model folder is missing, damaged or does not fit what was asked of it."""


class EngineError(VssError):
    """An engine cannot be created, loaded or run on this machine."""


class PrecisionError(EngineError):
    """An engine does not compute in this precision, or not on this machine."""


class SourceError(VssError):
    """A video, folder, bag or label cannot be read."""


class FrameError(VssError):
    """One frame cannot be used; the stream goes on with the next."""


class OutputError(VssError, OSError):
    """An output cannot be written: its disk is full, say, or read-only.

    Args:
        output: by the name that its user gave it.
        cause: why.
    """

    def __init__(self, output: str | Path, cause: OSError) -> None:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = 'no space is left on the disk; free some or name another output'
        else:
            reason = f'{cause.strerror or cause}; name another'
        super().__init__(f'{output} cannot be written: {reason}')


@contextmanager
def writing(output: str | Path) -> Iterator[None]:
    """For all that writes an output: says which one it is that cannot be written.

    Raises:
        OutputError: in the place of any other OSError; but of a pipe whose reader has gone BrokenPipeError.
    """
    try:
        yield
    except (OutputError, BrokenPipeError):
        raise
    except OSError as error:
        raise OutputError(output, error) from error


class ShapeError(VssError):
    """Tensors or images that must agree in size do not."""


class MissingLibraryError(VssError):
    """An optional library is not installed, or cannot be loaded.

    Args:
        library: by its name for pip, beside a ROS of the system that of the extra `ros` for apt.
        extra: of this package, that brings it.
        note: what to do where pip is not the answer.
        cause: why its import failed; without one it is not installed.
    """

    def __init__(self, library: str, extra: str, note: str = '', cause: ImportError | None = None) -> None:
        command = _install_command(library, extra)
        if cause is None or is_missing(library, cause):
            what = 'is not installed; install it with'
        else:  # it is there; NumPy, another library or a part of it does not fit
            what = f'cannot be loaded: {" ".join(str(cause).split())}; install it anew with'
        super().__init__(f'{library} {what}: {command}{note}')
        self.library = library
        self.extra = extra


@contextmanager
def torch_needed(note: str = '') -> Iterator[None]:
    """For imports of what needs PyTorch, and the libraries of the extra `train` that come with it.

    Raises:
        MissingLibraryError: one of them is not installed; `note` says what else can be done.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingLibraryError(error.name or 'torch', 'train', note) from error


def is_missing(library: str, error: Exception) -> bool:
    """Whether an import failed because the library itself, not something that it needs, is not installed."""
    return isinstance(error, ModuleNotFoundError) and error.name == library


def _install_command(library: str, extra: str) -> str:
    ros = os.environ.get('ROS_DISTRO')
    if ros is None:
        return f"pip install 'vss_ros[{extra}]'"
    if extra == 'ros':  # which pip does not have
        return f'apt install ros-{ros}-{library}, and source /opt/ros/{ros}/setup.bash'
    # The extra would bring NumPy 2, which the modules of a ROS of the system are not built for.
    return f"pip install {library} 'numpy<2'"


def shortened(text: str, most: int = 1000) -> str:
    """A text that holds what somebody else wrote, without its middle where it is longer than a log bears."""
    half = most // 2
    return text if len(text) <= most else f'{text[:half]} ... {text[-half:]}'


def error_text(error: Exception) -> str:
    """What an error says; those that are not our own with their kind."""
    return str(error) if isinstance(error, VssError) else f'{type(error).__name__}: {error}'
