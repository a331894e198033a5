"""Why a new stream begins, to which nothing is carried; the words stand in results and diagnostics."""

from __future__ import annotations

from vss_ros.core.frame import Frame

FIRST_FRAME = 'first frame'
GAP = 'gap'  # `max_frame_gap_s` decides on it
STAMP_WENT_BACK = 'stamp went back'
SIZE_CHANGED = 'size changed'
ENCODING_CHANGED = 'encoding changed'
CAMERA_CHANGED = 'camera changed'
ERROR = 'error'  # of the engine: what it holds of the stream is not to be trusted
BAD_FRAME = 'bad frame'
CLOCK_JUMPED = 'clock jumped'
REQUESTED = 'requested'
ACTIVATED = 'activated'
ENABLED = 'enabled'

WANTED = (FIRST_FRAME, REQUESTED, ACTIVATED, ENABLED)  # these are no trouble


def why_unrelated(previous: Frame, frame: Frame) -> str | None:
    """Why nothing can be carried from one frame to the next one, or None where it can."""
    if frame.stamp_ns < previous.stamp_ns:
        return STAMP_WENT_BACK
    if frame.size != previous.size:
        return SIZE_CHANGED
    if frame.encoding != previous.encoding:
        return ENCODING_CHANGED
    if frame.camera != previous.camera:
        return CAMERA_CHANGED
    return None
