"""What goes in and what comes out: one camera image, and the segmentation of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from vss_ros.core.errors import FrameError

UNLABELLED = 255  # in masks and labels: no class
MAX_SIDE = 8192  # pixels of an image; a damaged header must not make us allocate gigabytes
CELL = 4  # pixels per side of a cell of the 1/4 map, on which scores and flow live


@dataclass(frozen=True, eq=False)
class CodedPicture:
    """What a compressed video says of the motion to one of its pictures, from the one shown before it.

    Attributes:
        number: how many pictures were shown before it.
        size: height and width in pixels.
        is_start: the encoder began anew (I picture): a good key frame.
        vectors: FFmpeg's structured array, one entry per block; None where the video says nothing that can be
            used.
    """

    number: int
    size: tuple[int, int]
    is_start: bool = False
    vectors: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Frame:
    """One camera image with the identity it keeps to the very end.

    Attributes:
        image: BGR, uint8 (H, W, 3).
        stamp_ns: time of exposure in nanoseconds.
        camera: the camera's frame_id.
        encoding: how the image arrived; a change of it starts a new stream.
        truth: exact class ids, uint8 (H, W), 255 = ignore, where the source knows them.
        coded: this picture of a compressed video, after those that were shown since the frame before and left
            out; empty where frames come as images.
        name: what its mask's file is called, without a suffix; empty where frames have no names.

    Raises:
        FrameError: the image is not a BGR uint8 image with pixels in it, or the truth has another size.
    """

    image: np.ndarray
    stamp_ns: int
    camera: str = ''
    encoding: str = 'bgr8'
    truth: np.ndarray | None = None
    coded: tuple[CodedPicture, ...] = ()
    name: str = ''

    def __post_init__(self) -> None:
        if not isinstance(self.image, np.ndarray):
            raise FrameError(
                f'image is {type(self.image).__name__}; expected a NumPy array (cv2.imread gives None for a '
                'file that is missing or damaged)'
            )
        shape, dtype = self.image.shape, self.image.dtype
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
            raise FrameError(f'image is {dtype} {shape}; expected uint8 (height, width, 3) in BGR order')
        if self.truth is not None and self.truth.shape != shape[:2]:
            raise FrameError(f'labels are {self.truth.shape}; the image is {shape[:2]}')

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.image.shape[:2]
        return height, width


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The segmentation of one frame, at its own size or, with `output_size: network`, at that of the model.

    Attributes:
        mask: class ids, uint8 (H, W); 255 = unlabelled.
        model_confidence: 255 times the largest class probability, uint8, at the size at which the model
            decides; `confidence` has that of the mask.
        is_key: True where the frame was computed in full.
        age_frames: processed frames since the key frame; 0 on a key frame.
        age_ns: time since the key frame.
        stamp_ns: the frame's stamp.
        reset_reason: why a new stream began with this frame, or None.
        timings_ms: wall time of each stage in the order it ran, in the step that gave this result.
        corrected_share: share (0..1) of cells of the 1/4 map whose label the correction changed (EVSS
            eq. 9), or None.
        expected_accuracy: share (0..1) of pixels that were expected to get the class that computing the
            frame in full would give, on a propagated frame where the model or the scheduler asks; or None.
        read_distortion: reads the fine distortion map from the engine, or None; see `distortion`.
        is_carried: True where nothing was computed but the flow, along which the result of an earlier frame
            was warped.
        key_regions: which regions were computed in full, row by row; empty where frames are not cut into any.
            With them `is_key` is True where all were, age is that of the oldest region, and in the shares
            a region that was computed in full counts as not corrected and as expected to be right.
    """

    mask: np.ndarray
    model_confidence: np.ndarray
    is_key: bool
    age_frames: int
    age_ns: int
    stamp_ns: int
    reset_reason: str | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    corrected_share: float | None = None
    expected_accuracy: float | None = None
    read_distortion: Callable[[], np.ndarray] | None = None
    is_carried: bool = False
    key_regions: tuple[bool, ...] = ()

    @property
    def kind(self) -> str:
        """`key`, `propagated`, `carried`, or `mixed` where only some of the regions were computed in full."""
        if self.is_key:
            return 'key'
        if any(self.key_regions):
            return 'mixed'
        return 'carried' if self.is_carried else 'propagated'

    @cached_property
    def confidence(self) -> np.ndarray:
        """255 times the largest class probability, uint8 (H, W). Resized when somebody asks for it."""
        from vss_ros.core.resize import fit  # here: whoever wants nothing but names need not wait for OpenCV

        return fit(self.model_confidence, self.mask.shape)

    def distortion(self) -> np.ndarray:
        """The fine distortion map, 255 times the trust put in the correction, uint8 (H, W).

        Zero on key frames, on carried ones and for methods without such a map. Costs a download and a
        resize, so ask only if somebody looks, and before the next frame is segmented.
        """
        if self.read_distortion is None:
            return np.zeros_like(self.mask)
        return self.read_distortion()


class Answer(NamedTuple):
    """The result of a frame, which is not the newest one where a model gives its results late."""

    frame: Frame
    segmentation: Segmentation
