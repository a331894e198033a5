"""Temporal consistency: how well masks follow what moves. It needs no truth, but a flow."""

from __future__ import annotations

import numpy as np

from vss_ros.core.frame import UNLABELLED
from vss_ros.core.metrics import ConfusionMatrix, check_one_size


class TemporalConsistency:
    """TC (EVSS eq. 8): how well a clip's masks agree with the warped masks of the frame before.

    The mask of frame t - 1 is warped to t by nearest sampling along a backward flow at full resolution;
    pixels whose source lies outside the image are left out, occluded ones are not. TC = mean over the clips
    of the mIoU of all pairs (warp(mask_(t-1)), mask_t), t = 2..T, in one confusion matrix. No truth is
    needed. Values depend on the flow that warps, and cannot be compared with those of the paper, which does
    not say its own.

    Attributes:
        counts: float64 (2,); sum of the mIoUs of the clips, clips.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros(2)
        self._classes = classes
        self.start_clip()

    def start_clip(self) -> None:
        """Takes what comes for another clip."""
        self._matrix = ConfusionMatrix(self._classes)
        self._previous: np.ndarray | None = None

    def update(self, mask: np.ndarray, flow: np.ndarray | None) -> None:
        """Adds the next frame of a clip.

        Args:
            flow: float32 (H, W, 2), pixels x then y, from this frame to the one before; None on the first.
        """
        if self._previous is not None and flow is not None and self._previous.shape == mask.shape:
            self._matrix.update(warp_mask(self._previous, flow), mask)
        self._previous = mask

    def end_clip(self) -> None:
        """Counts the clip, if it had two frames."""
        if self._matrix.counts.any():
            self.counts += (self._matrix.miou(), 1)
        self.start_clip()

    def mean(self) -> float:
        """TC, 0..1; NaN before a clip was counted."""
        total, clips = self.counts
        return float(total / clips) if clips else float('nan')


def warp_mask(mask: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Moves a mask along a backward flow: result(p) = mask(p + flow(p)), nearest pixel; 255 from outside.

    Args:
        mask: class ids, uint8 (H, W).
        flow: float32 (H, W, 2), pixels, x then y; where it is no number it comes from outside.

    Raises:
        ShapeError: they differ in size.
    """
    check_one_size(mask=mask, flow=flow)
    height, width = mask.shape
    flow = np.where(np.isfinite(flow).all(axis=2, keepdims=True), flow, -np.float32(height + width))
    x = np.rint(flow[..., 0] + np.arange(width, dtype=np.float32)).astype(np.intp)
    y = np.rint(flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]).astype(np.intp)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return np.where(inside, mask[y.clip(0, height - 1), x.clip(0, width - 1)], np.uint8(UNLABELLED))
