"""The Fast DDS profile for camera images, made to fit this machine's shared memory."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vss_ros.core.share import share_path

PROFILE = 'config/fastdds_images.xml'
VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
VARIABLES = (VARIABLE, 'FASTDDS_DEFAULT_PROFILES_FILE')  # the second is that of later versions
SHARED_MEMORY = Path('/dev/shm')
PROCESSES = 3  # that share the memory, with room to spare


def use_image_profile(folder: Path, shared_memory: Path = SHARED_MEMORY, processes: int = PROCESSES) -> Path:
    """Sets the profile for this process and its children, unless the user has set one.

    Every process takes a whole segment. Containers often have 64 MB, where the second one would not fit
    and Fast DDS would go on without shared memory; there, a copy with smaller segments is used.

    Args:
        folder: where such a copy is written; it must exist.
        processes: that share the memory.

    Returns:
        The profile in use.
    """
    for name in VARIABLES:
        if os.environ.get(name):
            return Path(os.environ[name])
    profile = share_path(PROFILE)
    text = profile.read_text()
    segment = _number('segment_size', text)
    fits = _free_bytes(shared_memory) // processes
    if fits < segment:
        profile = folder / 'fastdds_images.xml'
        text = _replaced('segment_size', fits, text)
        profile.write_text(_replaced('maxMessageSize', min(fits // 2, _number('maxMessageSize', text)), text))
    os.environ[VARIABLE] = str(profile)
    return profile


def _free_bytes(folder: Path) -> int:
    try:
        status = os.statvfs(folder)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize


def _number(tag: str, text: str) -> int:
    found = re.search(rf'<{tag}>(\d+)</{tag}>', text)
    return int(found[1]) if found else 0


def _replaced(tag: str, number: int, text: str) -> str:
    return re.sub(rf'<{tag}>\d+</{tag}>', f'<{tag}>{number}</{tag}>', text)
