"""Images to the size of the network, and what comes of them back to the size of the image."""

from __future__ import annotations

import cv2
import numpy as np


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a uint8 image, (H, W) or (H, W, 3), to (height, width); returns it as it is if it fits.

    Shrinking averages, so that thin things do not flicker; growing interpolates.
    """
    if image.shape[:2] == size:
        return image
    shrinks = size[0] < image.shape[0] and size[1] < image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, size[::-1], interpolation=method)


def fit_labels(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes class ids, uint8 (H, W), to (height, width) without inventing labels."""
    if mask.shape == size:
        return mask
    return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
