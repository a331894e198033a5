"""Optical flow computed on the host, beside the engine.

A model whose `flow` is one of DIS or `motion_vectors` has no flow graph; the segmenter asks one of
these instead, or `stream`, for videos that bring their motion along. All give the flow of the 1/4 map:
float32 (1, 2, h, w), in cells, from the current image to the anchor: the image of the frame that results are
warped from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vss_ros.core.frame import CodedPicture

DIS = ('dis', 'dis_third', 'dis_half')  # searched at a quarter, a third, a half of the image's size


class Motion(Protocol):
    """Estimates the motion between the images of one stream and their anchor."""

    def update(
        self, image: np.ndarray, wanted: bool, coded: Sequence[CodedPicture] = (), stays: bool = False
    ) -> np.ndarray | None:
        """Takes the next image, uint8 (H, W, 3) BGR, and gives the flow from it to the anchor.

        Args:
            wanted: False on key frames, where nobody needs the flow and it is not computed.
            coded: `Frame.coded`, of use to `stream` only.
            stays: the anchor stays what it was; otherwise this image is the next one.

        Returns:
            flow, float32 (1, 2, ceil(H/4), ceil(W/4)); None if not wanted or not to be had.
        """
        ...

    def anchor(self) -> None:
        """Makes the newest image the anchor after all."""
        ...

    def mark(self) -> None:
        """Remembers the newest image, beside the anchor."""
        ...

    def anchor_at_mark(self) -> None:
        """Makes the image that was marked the anchor; none is marked then."""
        ...

    def reset(self) -> None:
        """Forgets the stream."""
        ...


def make_motion(kind: str) -> Motion:
    """A new estimator for one stream: one of `HOST_FLOWS`; `motion_vectors` needs PyAV."""
    from vss_ros.core.motion.followed import FollowedMotion

    if kind in DIS:
        from vss_ros.core.motion.dis import DisMotion

        return FollowedMotion(DisMotion(kind))
    if kind == 'stream':
        from vss_ros.core.motion.stream import StreamMotion

        return FollowedMotion(StreamMotion())
    from vss_ros.core.motion.motion_vectors import MotionVectors

    return FollowedMotion(MotionVectors())
