"""Dense inverse search optical flow (OpenCV): needs no codec and has no gaps."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from vss_ros.core.motion import CELL


class DisMotion:
    """DIS flow of grey images: the ULTRAFAST preset with fewer patches.

    1.3 instead of 1.8 ms at 480x360 on one core; on a motorway drive warped labels agree with the
    segmenter's as often as with the preset (within 0.2 % of the cells, one to nine frames on).
    """

    def __init__(self) -> None:
        self._dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._dis.setPatchStride(5)  # of 8 pixels; preset: 4
        self._previous: np.ndarray | None = None

    def update(self, image: np.ndarray, wanted: bool) -> np.ndarray | None:
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        previous, self._previous = self._previous, grey
        if not wanted or previous is None:
            return None
        flow = self._dis.calc(grey, previous, None)
        return flow_of_cells(flow)

    def reset(self) -> None:
        self._previous = None


def flow_of_cells(flow: np.ndarray) -> np.ndarray:
    """Averages a flow of pixels, float32 (H, W, 2), to the 1/4 map: (1, 2, h, w) in cells."""
    height, width = flow.shape[:2]
    cells = (-(-width // CELL), -(-height // CELL))
    small = cv2.resize(flow, cells, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small.transpose(2, 0, 1)[None]) * np.float32(1 / CELL)
