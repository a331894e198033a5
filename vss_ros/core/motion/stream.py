"""The motion that a compressed video already carries, where it can be used; DIS where it cannot.

Nothing in a stream says which of several earlier pictures a vector means, and an encoder chose it to save
bits, not to tell the truth. So vectors are tried: the picture before, warped along them, must look like this
one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import cv2
import numpy as np

from vss_ros.core.frame import CELL, CodedPicture
from vss_ros.core.motion.blocks import flow_of_blocks
from vss_ros.core.motion.dis import DisFlow, cells_of
from vss_ros.core.motion.followed import compose, difference

# Share of a picture that must have vectors. Encoders that may not begin anew gave 0.00 to 0.27 of it vectors
# at cuts between unrelated scenes, 0.43 to 1.00 within a scene.
MIN_COVERED = 0.35
REFERENCES = (1, 2, 3)  # how many pictures back a vector may point
BIAS = 0.9, 0.3  # another than one back must leave less than 0.9 of its error, less 0.3 grey values
USEFUL = 0.9, 0.25  # flow must leave less than 0.9 of the error without it, but for 0.25 grey values of noise
_log = logging.getLogger(__name__)


class StreamMotion:
    """Flow to the image before, from the vectors of the stream, `Frame.coded`.

    There is none, so that the frame becomes a key frame, where the encoder began anew (I picture) and where
    it found next to nothing of the picture before (a cut). It is DIS where the stream says nothing of motion.
    """

    def __init__(self) -> None:
        self._dis = DisFlow()
        self._previous: np.ndarray | None = None
        self._next: int | None = None  # number of the picture that follows
        self._warned = False

    def update(
        self, image: np.ndarray, wanted: bool, coded: Sequence[CodedPicture] = ()
    ) -> np.ndarray | None:
        grey = cells_of(image)
        previous, self._previous = self._previous, grey
        follows = bool(coded) and coded[0].number == self._next  # no picture between was left out
        self._next = coded[-1].number + 1 if coded else None
        if not wanted or previous is None or previous.shape != grey.shape:
            return None
        if follows and any(picture.is_start for picture in coded):
            return None
        if follows and all(picture.vectors is not None for picture in coded):
            flow = self._composed(coded, grey.shape)
            if flow is None:
                return None
            if len(coded) == 1:
                flow = divided(flow, grey, previous)
            if is_useful(flow, grey, previous):
                return flow
        elif not coded and not self._warned:
            self._warned = True
            _log.warning('motion is stream, but these frames carry no motion vectors; DIS is used instead')
        return self._dis.between(grey, previous)

    def reset(self) -> None:
        self._previous = None
        self._dis.reset()

    def _composed(self, coded: Sequence[CodedPicture], cells: tuple[int, ...]) -> np.ndarray | None:
        """Flow over all these pictures; None where one of them is nearly all new."""
        total: np.ndarray | None = None
        for picture in coded:
            assert picture.vectors is not None
            height, width = picture.size
            flow = flow_of_blocks(picture.vectors, height, width, MIN_COVERED)
            if flow is None:
                return None
            flow = _resized(flow, cells, (height / CELL, width / CELL))
            total = flow if total is None else compose(flow, total)
        return total


def divided(flow: np.ndarray, grey: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Flow to the picture before, where some vectors point to one farther back.

    Motion is taken to be steady: a vector to the picture n back is divided by n. Which n, is told by how well
    the neighbourhood of a cell agrees with the picture before.

    Args:
        flow: float32 (1, 2, h, w).
        grey, previous: this picture and the one before, uint8 (h, w).
    """
    tried = [flow / n for n in REFERENCES]
    errors = np.stack([cv2.blur(difference(each, grey, previous), (5, 5)) for each in tried])
    errors[0] = errors[0] * BIAS[0] - BIAS[1]
    return np.choose(errors.argmin(0), tried)


def is_useful(flow: np.ndarray, grey: np.ndarray, previous: np.ndarray) -> bool:
    """Whether the picture before looks clearly more like this one once it is warped; as `divided`."""
    still = difference(np.zeros_like(flow), grey, previous).mean()
    return bool(difference(flow, grey, previous).mean() <= USEFUL[0] * still + USEFUL[1])


def _resized(flow: np.ndarray, cells: tuple[int, ...], picture: tuple[float, float]) -> np.ndarray:
    """Flow of a picture, in its own cells, at the size of the network's map and in its cells.

    Args:
        picture: exact height and width of the picture in its cells, where `flow` is rounded up.
    """
    if flow.shape[2:] == cells:
        return flow
    across, down = cells[1] / picture[1], cells[0] / picture[0]
    maps = cv2.resize(flow[0].transpose(1, 2, 0), cells[::-1], interpolation=cv2.INTER_AREA)
    scaled = maps * np.array([across, down], np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])
