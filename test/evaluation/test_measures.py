"""Measures on frames small enough to be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vss_ros.core.errors import ShapeError
from vss_ros.core.metrics import (
    BoundaryScore,
    Calibration,
    ConfusionMatrix,
    CorrectedLabels,
    Corrections,
    ErrorRanking,
    TemporalConsistency,
    boundaries,
    warp_mask,
)

IGNORED = np.full((4, 4), 255, np.uint8)


def mask_of(rows: list[str]) -> np.ndarray:
    return np.array([[255 if cell == '.' else int(cell) for cell in row] for row in rows], np.uint8)


@pytest.mark.parametrize('measure', [Calibration, BoundaryScore, Corrections, ErrorRanking])
def test_unlabelled_pixels_count_nowhere(measure):
    measured = measure(3)
    arguments = 3 if measure in (Calibration, Corrections, ErrorRanking) else 2
    measured.update(IGNORED, *[np.ones((4, 4), np.uint8)] * (arguments - 1))
    assert not measured.counts.any()


def test_before_anything_was_counted_there_is_no_value():
    for value in (
        ConfusionMatrix(3).miou(),
        Calibration(3).ece(),
        BoundaryScore(3).mean(),
        Corrections(3).mended(),
        CorrectedLabels().mean(),
        ErrorRanking(3).average_precision(),
        TemporalConsistency(3).mean(),
    ):
        assert math.isnan(value)


def test_maps_of_two_sizes_are_refused_by_name():
    with pytest.raises(ShapeError, match=r'truth is \(4, 4\), the warped \(4, 5\).*one size'):
        Corrections(3).update(IGNORED, np.zeros((4, 5), np.uint8), IGNORED)


@pytest.mark.parametrize('classes', [11, 19, 150])
def test_a_mask_that_is_the_truth_is_right_with_however_many_classes(classes):
    truth = np.random.default_rng(0).integers(0, classes, (40, 60), np.uint8)
    matrix = ConfusionMatrix(classes)
    matrix.update(truth, truth)
    assert matrix.miou() == 1  # with numpy 1, where uint8 times a scalar stays uint8, too
    assert matrix.counts.sum() == truth.size


def test_two_halves_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    whole, halves = BoundaryScore(3), [BoundaryScore(3), BoundaryScore(3)]
    for half in halves:
        truth, mask = rng.integers(0, 3, (2, 6, 8)).astype(np.uint8)
        whole.update(truth, mask)
        half.update(truth, mask)
    assert np.array_equal(whole.counts, halves[0].counts + halves[1].counts)


def test_confidence_that_is_always_right_about_itself_has_no_calibration_error():
    measured = Calibration(2)
    truth, mask = np.zeros((2, 5), np.uint8), np.zeros((2, 5), np.uint8)
    mask[0, :2] = 1  # 8 of 10 are right
    measured.update(truth, mask, np.full((2, 5), 204, np.uint8))  # 204 / 255 = 0.8
    assert measured.ece() == pytest.approx(0)


def test_a_boundary_lies_on_both_sides_of_a_change_and_not_at_unlabelled_pixels():
    found = boundaries(mask_of(['0011', '001.', '0...']))
    assert found.tolist() == [
        [False, True, True, False],
        [False, True, True, False],
        [False, False, False, False],
    ]


def test_an_outline_that_is_off_by_one_pixel_is_met_within_the_tolerance():
    truth, mask = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    truth[:, 20:], mask[:, 21:] = 1, 1
    strict, lenient = BoundaryScore(2, tolerance=0), BoundaryScore(2, tolerance=1.5 / math.hypot(40, 40))
    for measured in (strict, lenient):
        measured.update(truth, mask)
    assert strict.mean() == pytest.approx(0)
    assert lenient.mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ('flow', 'expected'),
    [
        ((1.2, 0), [[1, 2, 255], [4, 5, 255], [7, 8, 255]]),  # one pixel to the right, rounded
        ((-0.9, 0), [[255, 0, 1], [255, 3, 4], [255, 6, 7]]),
        ((0, 1), [[3, 4, 5], [6, 7, 8], [255, 255, 255]]),  # down
        ((0, -1), [[255, 255, 255], [0, 1, 2], [3, 4, 5]]),
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


def test_corrected_labels_are_the_mean_over_the_frames():
    measured = CorrectedLabels()
    for share in (0.1, 0.2, 0.6):
        measured.update(share)
    assert measured.mean() == pytest.approx(0.3)


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
