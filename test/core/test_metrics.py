import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import ShapeError
from vss_ros.core.metrics import ConfusionMatrix, TruthIds

IDS = st.sampled_from([0, 1, 2, 3, 4, 255])


def plain_iou(truth, mask, classes):
    """The definition, pixel by pixel."""
    values = []
    for c in range(classes):
        both = either = 0
        for t, m in zip(truth.ravel().tolist(), mask.ravel().tolist(), strict=True):
            if t < classes:
                both += t == c and m == c
                either += t == c or m == c
        values.append(both / either if either else math.nan)
    return values


def test_a_confusion_matrix_worked_out_by_hand():
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8))
    assert matrix.iou()[:2].tolist() == [1 / 2, 2 / 3]
    assert math.isnan(matrix.iou()[2]), 'class 2 is nowhere'
    assert matrix.miou() == pytest.approx(7 / 12)


def test_frames_add_up_before_the_ratio_is_taken():
    matrix = ConfusionMatrix(2)
    for truth, mask in (([0, 0, 0, 1], [0, 0, 0, 1]), ([0, 1, 1, 1], [1, 0, 1, 1])):
        matrix.update(np.array([truth], np.uint8), np.array([mask], np.uint8))
    assert matrix.iou().tolist() == [3 / 5, 3 / 5]


def test_ignored_truth_does_not_count_and_an_unlabelled_prediction_is_wrong():
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([[0, 0, 255, 255]], np.uint8), np.array([[0, 255, 0, 255]], np.uint8))
    assert matrix.counts.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert matrix.miou() == 0.5


def test_there_is_no_score_before_the_first_frame():
    assert math.isnan(ConfusionMatrix(2).miou())


def test_masks_of_another_size_than_the_truth_are_refused():
    with pytest.raises(ShapeError, match=r'mask is \(2, 3\), the truth \(3, 2\)'):
        ConfusionMatrix(2).update(np.zeros((3, 2), np.uint8), np.zeros((2, 3), np.uint8))


@settings(deadline=None)  # a busy machine is no error
@given(arrays.arrays(np.uint8, (2, 5, 6), elements=IDS))
def test_iou_is_that_of_the_definition(maps):
    matrix = ConfusionMatrix(4)
    matrix.update(*maps)
    expected = plain_iou(*maps, 4)
    np.testing.assert_allclose(matrix.iou(), expected)
    present = [value for value in expected if not math.isnan(value)]
    np.testing.assert_allclose(matrix.miou(), np.mean(present) if present else math.nan)


@pytest.mark.parametrize(
    ('truth', 'told'),
    [
        ([0, 10, 11, 30, 255, 255], '50 % of the labelled pixels have ids .* of camvid11: 11, 30; they'),
        ([33, 33], '100 % .* of camvid11: 33; they'),
        (999 * [0] + [254], ' 0.1 % .* of camvid11: 254; they'),
        (range(11, 25), '11, 12, 13, 14, 15, 16, 17, 18, ...; they'),
        ([0, 10, 255], ''),
        ([255], ''),
    ],
)
def test_ids_of_the_truth_that_are_no_class_are_told_with_their_share(caplog, truth, told):
    ids = TruthIds(load_classes('camvid11'))
    for part in np.array_split(np.array([truth], np.uint8), 2, axis=1):
        ids.update(part)
    ids.tell_strange('drive')
    assert len(caplog.records) == bool(told)
    assert re.search(told, caplog.text)
