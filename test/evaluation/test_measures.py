"""Measures on frames small enough to be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vss_ros.core.errors import ShapeError
from vss_ros.core.metrics import ConfusionMatrix
from vss_ros.evaluation.measures import (
    BoundaryScore,
    Calibration,
    CorrectedLabels,
    Corrections,
    ErrorRanking,
    boundaries,
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
        Corrections(3).spoilt(),
        CorrectedLabels().mean(),
        ErrorRanking(3).average_precision(),
        ErrorRanking(3).base(),
    ):
        assert math.isnan(value)


@pytest.mark.parametrize(
    ('measure', 'names'),
    [
        (ConfusionMatrix, 'mask truth'),
        (Calibration, 'mask truth confidence'),
        (BoundaryScore, 'mask truth'),
        (Corrections, 'truth warped mask'),
        (ErrorRanking, 'truth warped distortion'),
    ],
)
def test_maps_of_two_sizes_are_refused_by_name(measure, names):
    *others, last = names.split()
    maps = {name: IGNORED for name in others} | {last: IGNORED[:1]}  # which NumPy would repeat
    with pytest.raises(ShapeError, match=rf'{others[0]} is \(4, 4\).* the {last} \(1, 4\).*one size'):
        measure(3).update(**maps)


@pytest.mark.parametrize('measure', [ConfusionMatrix, Calibration, BoundaryScore, Corrections, ErrorRanking])
def test_an_id_of_the_truth_that_is_no_class_is_ignored_like_255(measure):
    truth, *others = np.random.default_rng(0).integers(0, 3, (3, 6, 8)).astype(np.uint8)
    arguments = 2 if measure in (Calibration, Corrections, ErrorRanking) else 1
    counts = []
    for void in (255, 3, 30):
        measured = measure(3)
        measured.update(np.where(truth == 2, np.uint8(void), truth), *others[:arguments])
        counts.append(measured.counts.tolist())
    assert counts[0] == counts[1] == counts[2]


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


@pytest.mark.parametrize(('pixels', 'met'), [(4, 1), (5, 0)])
def test_outlines_may_be_off_by_four_pixels_at_480x360(pixels, met):
    measured, truth, mask = BoundaryScore(2), *np.zeros((2, 360, 480), np.uint8)
    truth[:, 200:], mask[:, 200 + pixels :] = 1, 1
    measured.update(truth, mask)
    assert measured.f_scores().tolist() == [met, met]


def test_outlines_that_are_only_in_the_truth_or_only_in_the_mask_are_missed_or_wrong():
    missed, invented = BoundaryScore(3), BoundaryScore(3)
    plain, with_a_spot = (mask_of(rows) for rows in (['1111'] * 3, ['1111', '1021', '1111']))
    missed.update(with_a_spot, plain)
    invented.update(plain, with_a_spot)
    for measured, counts in ((missed, [0, 0, 1, 0]), (invented, [1, 0, 0, 0])):
        assert measured.counts[0].tolist() == measured.counts[2].tolist() == counts
        assert measured.f_scores().tolist() == [0, 0, 0]


def test_outlines_towards_pixels_that_the_mask_leaves_unlabelled_are_wrong():
    measured = BoundaryScore(2)
    measured.update(mask_of(['0000']), mask_of(['00..']))
    assert measured.counts.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ('distortion', 'precision'),
    [
        ([255, 255, 0, 0], 1),  # the two wrong pixels first
        ([0, 0, 255, 255], 1 / 2),
        ([255, 0, 128, 0], 1 / 2 + 1 / 2 * 2 / 4),  # one first, the other only among all
        ([7, 7, 7, 7], 1 / 2),  # knows nothing
    ],
)
def test_average_precision_worked_out_by_hand(distortion, precision):
    ranking = ErrorRanking(2)
    ranking.update(mask_of(['0000']), mask_of(['1100']), np.array([distortion], np.uint8))
    assert ranking.average_precision() == pytest.approx(precision)
    assert ranking.base() == 1 / 2


def test_corrected_labels_are_the_mean_over_the_frames():
    measured = CorrectedLabels()
    for share in (0.1, 0.2, 0.6):
        measured.update(share)
    assert measured.mean() == pytest.approx(0.3)
