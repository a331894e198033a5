"""Pictures of results, for people."""

from __future__ import annotations

import cv2
import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import ShapeError
from vss_ros.core.frame import UNLABELLED, Segmentation
from vss_ros.core.resize import fit_labels


def overlay(image: np.ndarray, mask: np.ndarray, classes: ClassSet, alpha: float) -> np.ndarray:
    """Lays the colours of a mask over an image.

    Args:
        image: BGR, uint8 (H, W, 3).
        mask: class ids, uint8 (H, W); where it says 255 the image stays as it is.
        alpha: 0 shows only the image, 1 only the colours.

    Returns:
        BGR, uint8 (H, W, 3).

    Raises:
        ShapeError: image and mask differ in size.
    """
    if mask.shape != image.shape[:2]:
        raise ShapeError(f'the mask is {mask.shape}, the image {image.shape[:2]}; they must be of one size')
    colours = painted(mask, classes.palette[:, ::-1])
    cv2.copyTo(image, (mask == UNLABELLED).view(np.uint8), colours)  # which is then mixed with itself
    return cv2.addWeighted(image, 1 - alpha, colours, alpha, 0)


def painted(mask: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The colour of each class id; from 480x360 to 1920x1080 it takes a tenth of the time of indexing.

    Args:
        mask: class ids, uint8 (H, W).
        palette: colour of every byte value, uint8 (256, 3).

    Returns:
        uint8 (H, W, 3), in the palette's order of channels.
    """
    return cv2.applyColorMap(mask, np.ascontiguousarray(palette[:, None]))


def overlay_result(
    image: np.ndarray, segmentation: Segmentation, classes: ClassSet, alpha: float
) -> np.ndarray:
    """`overlay` of a segmentation of any size, with its kind in the corner.

    K, P and its age in frames, or K and how many of the regions were computed in full.
    """
    picture = overlay(image, fit_labels(segmentation.mask, image.shape[:2]), classes, alpha)
    text = 'K' if segmentation.is_key else f'P{segmentation.age_frames}'
    if segmentation.kind == 'mixed':
        text = f'K {sum(segmentation.key_regions)}/{len(segmentation.key_regions)}'
    scale = max(0.4, image.shape[0] / 900)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    cv2.rectangle(picture, (0, 0), (width + 8, height + below + 6), (0, 0, 0), cv2.FILLED)
    cv2.putText(
        picture, text, (4, height + 4), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA
    )
    return picture
