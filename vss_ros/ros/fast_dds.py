"""The Fast DDS profile for camera images, made to fit this machine's shared memory."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vss_ros.core.files.share import share_path

PROFILE = 'config/fastdds_images.xml'
VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')  # Fast DDS 2; 3, since Kilted
SHARED_MEMORY = Path('/dev/shm')
PROCESSES = 4  # that share the memory: the camera, the node, what listens to it, and `ros2 launch`
BESIDE = 4 * 2**20  # bytes for what else Fast DDS keeps there for a process; 1 to 2.5 MB were seen
LEAST = 2**20  # bytes of a segment, twice those of the default; less room is not worth a profile
# Says nothing, so that everything stays as Fast DDS has it.
PLAIN = """<dds xmlns="http://www.eprosima.com"><profiles>
  <participant profile_name="plain" is_default_profile="true"><rtps/></participant>
</profiles></dds>
"""


def use_image_profile(folder: Path, processes: int = PROCESSES) -> None:
    """Sets the profile for this process and its children, unless the user has set one.

    Every process takes a whole segment. Containers often have 64 MB, where not all of them would fit and
    Fast DDS would go on without shared memory; there, a copy with smaller segments is used. Where even those
    would not fit, it is one that says nothing: set all the same, so that a launch file that another one
    includes does not decide anew, for fewer processes.

    Args:
        folder: where such a copy is written; it must exist.
        processes: that share the memory, each a participant.
    """
    if any(os.environ.get(name) for name in VARIABLES):
        return
    profile = share_path(PROFILE)
    text = profile.read_text()
    fits = _free_bytes(SHARED_MEMORY) // processes - BESIDE
    if fits < _number('segment_size', text):
        profile = folder / 'fastdds_images.xml'
        text = _replaced('segment_size', fits, text)
        text = _replaced('maxMessageSize', min(fits // 2, _number('maxMessageSize', text)), text)
        profile.write_text(text if fits >= LEAST else PLAIN)
    os.environ.update(dict.fromkeys(VARIABLES, str(profile)))


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
