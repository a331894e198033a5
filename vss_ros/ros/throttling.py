"""Log lines that come at most so often, by a clock that nobody can set.

rclpy goes by that of the system: set back, as by the first word of a time server, it would keep such a line
silent for as long as it was set back.
"""

from __future__ import annotations

from typing import Any

from rclpy.clock import Clock, ClockType

_STEADY = Clock(clock_type=ClockType.STEADY_TIME)


def at_most_every(seconds: float) -> dict[str, Any]:
    """Arguments for a logger of rclpy, which throttles each call in the code by itself."""
    return {'throttle_duration_sec': seconds, 'throttle_time_source_type': _STEADY}
