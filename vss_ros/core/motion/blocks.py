"""A codec's motion vectors, one for each block, as flow of the 1/4 map."""

from __future__ import annotations

import cv2
import numpy as np

from vss_ros.core.frame import CELL

BLOCK = 8  # pixels; the finest vectors cover 8x8
SMOOTHING = 5  # blocks


def flow_of_blocks(vectors: np.ndarray, height: int, width: int, least_covered: float) -> np.ndarray | None:
    """Spreads a codec's vectors over the 1/4 map.

    Args:
        vectors: FFmpeg's structured array, one entry per block. Those that point to a later picture do not
            count; blocks without a vector (intra blocks) take that of their neighbours.
        height, width: of the picture, in pixels.
        least_covered: share of the picture that must have vectors.

    Returns:
        float32 (1, 2, ceil(H/4), ceil(W/4)) in cells, current -> previous; None if less is covered.
    """
    vectors = vectors[vectors['source'] < 0]
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    field = np.zeros((rows, columns, 3), np.float32)  # x, y, known
    scale = np.maximum(vectors['motion_scale'], 1).astype(np.float32)
    values = np.stack(
        [vectors['motion_x'] / scale, vectors['motion_y'] / scale, np.ones_like(scale)], axis=-1
    )
    top = (vectors['dst_y'] - vectors['h'] // 2) // BLOCK
    left = (vectors['dst_x'] - vectors['w'] // 2) // BLOCK
    for down in range(2):
        for right in range(2):
            y, x = top + down, left + right
            covers = (vectors['h'] > BLOCK * down) & (vectors['w'] > BLOCK * right)
            covers &= (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
            field[y[covers], x[covers]] = values[covers]
    covered = field[..., 2].mean()
    if covered == 0 or covered < least_covered:
        return None
    flow, cells = _fill(field) / np.float32(CELL), BLOCK // CELL
    flow = flow.repeat(cells, axis=0).repeat(cells, axis=1)[: -(-height // CELL), : -(-width // CELL)]
    return np.ascontiguousarray(flow.transpose(2, 0, 1)[None])


def _fill(field: np.ndarray) -> np.ndarray:
    """Gives blocks without a vector (intra blocks) that of the nearest block which has one, smoothed.

    The time does not depend on how large the holes are. On the exact flow of streets it comes nearer to
    the truth than growing what is known ring by ring.
    """
    flow, known = field[..., :2], field[..., 2] > 0
    if known.all():
        return flow
    unknown = (~known).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(unknown, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    vectors = np.zeros((nearest.max() + 1, 2), np.float32)
    vectors[nearest[known]] = flow[known]
    filled = vectors[nearest]
    return np.where(known[..., None], filled, cv2.blur(filled, (SMOOTHING, SMOOTHING)))
