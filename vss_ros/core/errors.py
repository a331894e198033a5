"""The few error classes of the package.

`core` raises them, the command line prints their one line and returns 2, the node logs them and refuses
the transition. A message says what was wrong, what was expected and what to do next.
"""

from __future__ import annotations

import os


class VssError(Exception):
    """Anything a user can cause and mend."""


class SettingsError(VssError):
    """A setting, parameter or argument has a value that cannot be used."""


class ModelError(VssError):
    """A model folder is missing, damaged or does not fit what was asked of it."""


class EngineError(VssError):
    """An engine cannot be created, loaded or run on this machine."""


class SourceError(VssError):
    """A video, folder, bag or label cannot be read."""


class FrameError(VssError):
    """One frame cannot be used; the stream goes on with the next."""


class ShapeError(VssError):
    """Tensors or images that must agree in size do not."""


class MissingLibraryError(VssError):
    """An optional library is not installed. A note says what to do where pip is not the answer."""

    def __init__(self, library: str, extra: str, note: str = '') -> None:
        # Beside a ROS of the system the extra would bring NumPy 2, which ROS's own modules are not built for.
        what = f"{library} 'numpy<2'" if 'ROS_DISTRO' in os.environ else f"'vss_ros[{extra}]'"
        super().__init__(f'{library} is not installed; install it with: pip install {what}{note}')
        self.library = library
        self.extra = extra


def error_text(error: Exception) -> str:
    """What an error says; those that are not our own with their kind."""
    return str(error) if isinstance(error, VssError) else f'{type(error).__name__}: {error}'
