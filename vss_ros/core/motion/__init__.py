"""Optical flow computed on the host, beside the engine.

A model whose `flow` is one of DIS or `motion_vectors` has no flow graph; the segmenter asks one of
these instead, or `stream`, for videos that bring their motion along. All give the flow of the 1/4 map:
float32 (1, 2, h, w), in cells, from the current image to the anchor: the image of the frame that results are
warped from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vss_ros.core.motion.followed import FollowedMotion

DIS = ('dis', 'dis_third', 'dis_half')  # searched at a quarter, a third, a half of the image's size


def make_motion(kind: str) -> FollowedMotion:
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
