"""Masks that follow their flow, on frames small enough to be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vss_ros.evaluation.consistency import TemporalConsistency, warp_mask


def mask_of(rows: list[str]) -> np.ndarray:
    return np.array([[int(cell) for cell in row] for row in rows], np.uint8)


@pytest.mark.parametrize(
    ('flow', 'expected'),
    [
        ((1.2, 0), [[1, 2, 255], [4, 5, 255], [7, 8, 255]]),  # one pixel to the right, rounded
        ((-0.9, 0), [[255, 0, 1], [255, 3, 4], [255, 6, 7]]),
        ((0, 1), [[3, 4, 5], [6, 7, 8], [255, 255, 255]]),  # down
        ((0, -1), [[255, 255, 255], [0, 1, 2], [3, 4, 5]]),
        ((0.6, 0.4), [[1, 2, 255], [4, 5, 255], [7, 8, 255]]),  # to the nearest pixel
        ((-0.4, 0.6), [[3, 4, 5], [6, 7, 8], [255, 255, 255]]),
        ((0, np.nan), [[255] * 3] * 3),
        ((-np.inf, 0), [[255] * 3] * 3),
    ],
)
def test_a_mask_is_fetched_from_where_the_flow_points(flow, expected):
    mask = mask_of(['012', '345', '678'])
    assert warp_mask(mask, np.full((3, 3, 2), flow, np.float32)).tolist() == expected


def test_where_a_flow_is_no_number_nothing_is_fetched_and_nothing_warned_of(recwarn):
    flow = np.zeros((1, 3, 2), np.float32)
    flow[0, 1, 1] = np.nan
    assert warp_mask(mask_of(['012']), flow).tolist() == [[0, 255, 2]]
    assert not recwarn.list


def test_a_clip_that_follows_its_flow_is_fully_consistent():
    consistency = TemporalConsistency(3)
    flow = np.zeros((3, 4, 2), np.float32)
    flow[..., 0] = 1
    for row in ('0012', '0122', '1222'):
        consistency.update(mask_of([row] * 3), flow)
    consistency.end_clip()
    assert consistency.mean() == pytest.approx(1)


def test_consistency_is_the_mean_over_clips_and_never_looks_across_their_border():
    still = np.zeros((2, 2, 2), np.float32)
    zeros, ones = np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)
    consistency = TemporalConsistency(2)
    for clip in ((zeros, zeros), (ones, zeros)):  # 1.0 and 0.0
        for mask in clip:
            consistency.update(mask, still)
        consistency.end_clip()
    assert consistency.counts.tolist() == [1.0, 2.0]
    assert consistency.mean() == pytest.approx(0.5)


def test_a_clip_of_one_frame_has_no_consistency():
    consistency = TemporalConsistency(2)
    consistency.update(np.zeros((2, 2), np.uint8), None)
    consistency.end_clip()
    assert consistency.counts[1] == 0
    assert math.isnan(consistency.mean())


def test_masks_of_another_size_begin_anew_within_a_clip():
    consistency = TemporalConsistency(2)
    for size in ((2, 2), (3, 4), (3, 4)):
        consistency.update(np.zeros(size, np.uint8), np.zeros((*size, 2), np.float32))
    consistency.end_clip()
    assert consistency.counts.tolist() == [1, 1]
