"""Flow to the anchor, out of the flow from each image to the one before.

Matching an image with one farther back at once was tried: it is a little better where motion is small, and
fails where it is large, on fast cars beside the road for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np

from vss_ros.core.frame import CodedPicture


class StepMotion(Protocol):
    """Estimates the motion from each image of one stream to the image before."""

    def update(
        self, image: np.ndarray, wanted: bool, coded: Sequence[CodedPicture] = ()
    ) -> np.ndarray | None:
        """As `FollowedMotion.update`, with the image before in the place of the anchor."""
        ...

    def reset(self) -> None:
        """Forgets the stream."""
        ...


class FollowedMotion:
    """The motion between the images of one stream and their anchor: steps followed back to it.

    If the flow of one frame is missing, so is the flow to everything older.
    """

    def __init__(self, steps: StepMotion) -> None:
        self._steps = steps
        self._to_anchor = self._to_mark = _Way()

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
        step = self._steps.update(image, wanted, coded)
        self._to_anchor = self._to_anchor.after(step)
        self._to_mark = self._to_mark.after(step)
        flow = self._to_anchor.flow
        if not stays:
            self.anchor()
        return flow

    def anchor(self) -> None:
        """Makes the newest image the anchor after all."""
        self._to_anchor = _Way(is_here=True)

    def mark(self) -> None:
        """Remembers the newest image, beside the anchor."""
        self._to_mark = _Way(is_here=True)

    def anchor_at_mark(self) -> None:
        """Makes the image that was marked the anchor; none is marked then."""
        self._to_anchor, self._to_mark = self._to_mark, _Way()  # which is no longer followed

    def reset(self) -> None:
        """Forgets the stream."""
        self._steps.reset()
        self._to_anchor = self._to_mark = _Way()


class _Way:
    """The flow from the newest image to an earlier one; None if that is the newest, or the way is lost."""

    def __init__(self, flow: np.ndarray | None = None, is_here: bool = False) -> None:
        self.flow = flow
        self._is_here = is_here

    def after(self, step: np.ndarray | None) -> _Way:
        """The way from an image that this step leads back from."""
        if step is None or self._is_here:
            return _Way(step)
        return _Way(None if self.flow is None else compose(step, self.flow))


def compose(flow: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    """Two flows (1, 2, h, w), one after the other: output(p) = flow(p) + earlier(p + flow(p))."""
    return flow + read_at(earlier, flow)


def read_at(maps: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Maps, float32 (1, C, h, w), read where flow (1, 2, h, w) points; beyond the border the border cell."""
    rows, columns = _cells(*flow.shape[2:])
    x, y = columns + flow[0, 0], rows + flow[0, 1]
    read = [cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for plane in maps[0]]
    return np.stack(read)[None]


def difference(flow: np.ndarray, grey: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    """Absolute difference in grey values, float32 (h, w), of an image and an earlier one warped to it."""
    return np.abs(grey - read_at(earlier[None, None].astype(np.float32), flow)[0, 0])


@lru_cache(maxsize=4)
def _cells(height: int, width: int) -> np.ndarray:
    """Row and column of each cell, float32 (2, h, w)."""
    cells: np.ndarray = np.mgrid[:height, :width].astype(np.float32)
    cells.setflags(write=False)
    return cells
