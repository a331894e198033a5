"""Exact optical flow and occlusion between two rendered pictures.

A surface that has M = matrices[k] now and M' in the previous frame shows at pixel p the point that was at
A p, A = M' inverse(M), in the previous frame, where it had the depth (A p)_3 times its depth now.
"""

from __future__ import annotations

import numpy as np

from vss_ros.core.synthetic.render import Picture

SAME_DEPTH = 0.005  # relative difference of depth up to which two faces count as one


def flow_and_occlusion(now: Picture, before: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Flow (2, H, W) float32 in pixels, current -> previous, and occlusion (H, W) bool."""
    height, width = now.surface.shape
    seen = np.flatnonzero(np.bincount(now.surface.ravel()))
    terms = np.zeros((9, len(now.matrices)), np.float32)
    carry = before.matrices[seen] @ np.linalg.inv(now.matrices[seen])
    terms[:, seen] = carry.reshape(-1, 9).T
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    a = [np.take(term, now.surface) for term in terms]
    depth = a[6] * x + a[7] * y + a[8]  # of the depth now
    ahead = depth > 1e-3
    scale = 1 / np.where(ahead, depth, 1)
    source_x = np.where(ahead, (a[0] * x + a[1] * y + a[2]) * scale, -width)
    source_y = np.where(ahead, (a[3] * x + a[4] * y + a[5]) * scale, -height)
    column, row = np.rint(source_x), np.rint(source_y)
    inside = ahead & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    at = np.where(inside, row * width + column, 0).astype(np.intp)
    nearness = now.inverse_depth * scale  # what it was in the previous frame
    difference = np.abs(np.take(before.inverse_depth, at) - nearness)
    same = np.take(before.surface, at) == now.surface
    same |= (difference < SAME_DEPTH * nearness) & (np.take(before.labels, at) == now.labels)
    return np.stack([source_x - x, source_y - y]), ~(inside & same)
