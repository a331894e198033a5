"""Optical flow computed on the host, beside the engine.

A model whose `flow` is `dis` or `motion_vectors` has no flow graph; the segmenter asks one of these
instead. Both give the flow of the 1/4 map: float32 (1, 2, h, w), in cells, current -> previous frame.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

CELL = 4  # pixels per cell of the 1/4 map


class Motion(Protocol):
    """Estimates the motion between one image and the next of a stream."""

    def update(self, image: np.ndarray, wanted: bool) -> np.ndarray | None:
        """Remembers `image`, uint8 (H, W, 3) BGR, and gives the flow from it to the one before.

        Args:
            wanted: False on key frames, where nobody needs the flow and it is not computed.

        Returns:
            flow, float32 (1, 2, ceil(H/4), ceil(W/4)); None if not wanted or not to be had.
        """
        ...

    def reset(self) -> None:
        """Forgets the stream."""
        ...


def make_motion(kind: str) -> Motion:
    """A new estimator for one stream: `dis` or `motion_vectors` (needs PyAV)."""
    if kind == 'dis':
        from vss_ros.core.motion.dis import DisMotion

        return DisMotion()
    from vss_ros.core.motion.motion_vectors import MotionVectors

    return MotionVectors()
