"""Dense inverse search optical flow (OpenCV): needs no codec and has no gaps."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from vss_ros.core.motion import CELL


class DisMotion:
    """DIS flow, ULTRAFAST preset, of grey images that are shrunk to the 1/4 map first.

    The preset searches at a quarter of the image anyway and enlarges what it finds; shrinking first finds
    the same flow without that. With a patch every 7 cells instead of every 4 it takes 0.7 ms at 480x360 on
    one core, the preset on the whole image 1.7; on synthetic streets the end-point error rises from 0.48 to
    0.66 cells, and labels warped nine frames on agree with the segmenter's by 0.1 to 0.4 % less.
    """

    def __init__(self) -> None:
        self._dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._dis.setFinestScale(0)
        self._dis.setPatchStride(7)  # patches have 8 cells; preset: 4
        self._previous: np.ndarray | None = None

    def update(self, image: np.ndarray, wanted: bool) -> np.ndarray | None:
        height, width = image.shape[:2]
        cells = (-(-width // CELL), -(-height // CELL))
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        grey = cv2.resize(grey, cells, interpolation=cv2.INTER_AREA)
        previous, self._previous = self._previous, grey
        if not wanted or previous is None:
            return None
        flow = self._dis.calc(grey, previous, None)  # (h, w, 2)
        return np.ascontiguousarray(flow.transpose(2, 0, 1)[None])

    def reset(self) -> None:
        self._previous = None
