"""The measures give what scikit-learn and SciPy give for the same pixels."""

from __future__ import annotations

import numpy as np
import pytest

from vss_ros.core.metrics import ConfusionMatrix
from vss_ros.evaluation.measures import BoundaryScore, Calibration, Corrections, ErrorRanking, boundaries

metrics = pytest.importorskip('sklearn.metrics')
calibration = pytest.importorskip('sklearn.calibration')
ndimage = pytest.importorskip('scipy.ndimage')

CLASSES = 5


@pytest.fixture
def frames():
    """Three frames of truth, with unlabelled pixels, mask and confidence; the mask is often right."""
    rng = np.random.default_rng(3)
    blobs = rng.integers(0, CLASSES, (3, 8, 10)).repeat(6, axis=1).repeat(6, axis=2)
    truth = np.where(rng.random(blobs.shape) < 0.1, 255, blobs).astype(np.uint8)
    noise = rng.integers(0, CLASSES, blobs.shape)
    mask = np.where(rng.random(blobs.shape) < 0.7, np.roll(blobs, 1, axis=2), noise).astype(np.uint8)
    confidence = 255 * np.where(mask == blobs, rng.beta(4, 1, blobs.shape), rng.beta(2, 2, blobs.shape))
    return list(zip(truth, mask, confidence.astype(np.uint8), strict=True))


def flat(frames, index):
    known = np.concatenate([frame[0].ravel() for frame in frames]) < CLASSES
    return np.concatenate([frame[index].ravel() for frame in frames])[known]


def test_iou_is_the_jaccard_score(frames):
    matrix = ConfusionMatrix(CLASSES)
    for truth, mask, _ in frames:
        matrix.update(truth, mask)
    expected = metrics.jaccard_score(flat(frames, 0), flat(frames, 1), average=None)
    assert np.allclose(matrix.iou(), expected)
    assert matrix.miou() == pytest.approx(expected.mean())


def test_the_reliability_curve_is_the_calibration_curve(frames):
    measured = Calibration(CLASSES)
    for truth, mask, confidence in frames:
        measured.update(truth, mask, confidence)
    right, sure = flat(frames, 0) == flat(frames, 1), flat(frames, 2) / 255
    accuracy, confidence = calibration.calibration_curve(right, sure, n_bins=10)
    curve = measured.curve(10)
    filled = curve[:, 2] > 0
    assert np.allclose(curve[filled, 0], confidence)
    assert np.allclose(curve[filled, 1], accuracy)
    shares = np.bincount(np.searchsorted(np.linspace(0, 1, 11)[1:-1], sure), minlength=10) / sure.size
    assert measured.ece(10) == pytest.approx(np.sum(shares[filled] * np.abs(accuracy - confidence)))


def test_the_quality_of_the_distortion_map_is_the_average_precision(frames):
    ranking = ErrorRanking(CLASSES)
    for truth, mask, confidence in frames:
        ranking.update(truth, mask, 255 - confidence)
    wrong = flat(frames, 0) != flat(frames, 1)
    expected = metrics.average_precision_score(wrong, 255 - flat(frames, 2).astype(int))
    assert ranking.average_precision() == pytest.approx(expected)
    assert ranking.base() == pytest.approx(wrong.mean())


def test_boundary_scores_are_the_f_scores_of_the_boundary_pixels(frames):
    tolerance, reach = 0.03, 0.03 * np.hypot(48, 60)
    measured = BoundaryScore(CLASSES, tolerance)
    hits = np.zeros((CLASSES, 4))
    for truth, mask, _ in frames:
        measured.update(truth, mask)
        mask = np.where(truth == 255, 255, mask)
        for c in range(CLASSES):
            ours, theirs = boundaries(mask) & (mask == c), boundaries(truth) & (truth == c)
            to_theirs = ndimage.distance_transform_edt(~theirs)
            to_ours = ndimage.distance_transform_edt(~ours)
            hits[c] += (
                ours.sum(),
                (to_theirs[ours] <= reach).sum(),
                theirs.sum(),
                (to_ours[theirs] <= reach).sum(),
            )
    assert np.array_equal(measured.counts, hits)
    precision, recall = hits[:, 1] / hits[:, 0], hits[:, 3] / hits[:, 2]
    assert np.allclose(measured.f_scores(), 2 / (1 / precision + 1 / recall))


def test_with_no_tolerance_the_boundary_score_is_the_plain_f_score(frames):
    measured = BoundaryScore(CLASSES, tolerance=0)
    truth, mask, _ = frames[0]
    measured.update(truth, mask)
    mask = np.where(truth == 255, 255, mask)
    for c, found in enumerate(measured.f_scores()):
        ours, theirs = boundaries(mask) & (mask == c), boundaries(truth) & (truth == c)
        assert found == pytest.approx(metrics.f1_score(theirs.ravel(), ours.ravel()))


def test_corrections_are_the_confusion_of_right_before_and_right_after(frames):
    measured = Corrections(CLASSES)
    rng = np.random.default_rng(0)
    before, after, expected = [], [], None
    for truth, mask, _ in frames:
        warped = rng.permutation(mask.ravel()).reshape(mask.shape)
        measured.update(truth, warped, mask)
        known = truth < CLASSES
        before.append((warped == truth)[known])
        after.append((mask == truth)[known])
    expected = metrics.confusion_matrix(np.concatenate(before), np.concatenate(after))
    assert np.array_equal(measured.counts, expected)
    assert measured.mended() == pytest.approx(expected[0, 1] / expected.sum())
    assert measured.spoilt() == pytest.approx(expected[1, 0] / expected.sum())
