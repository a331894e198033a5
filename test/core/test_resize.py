import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vss_ros.core.resize import fit, fit_labels

SIDES = st.integers(1, 60)


@given(SIDES, SIDES, SIDES, SIDES)
@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_pixel_of_a_resized_mask_has_the_class_at_its_centre(height, width, new_height, new_width):
    labels = np.random.default_rng(0).choice(np.array([0, 5, 10, 255], np.uint8), (height, width))
    resized = fit_labels(labels, (new_height, new_width))
    assert resized.shape == (new_height, new_width)
    assert resized.flags.c_contiguous
    for row, column in np.random.default_rng(1).integers(0, [new_height, new_width], (20, 2)):
        y = int((row + 0.5) * height / new_height + 1e-9)
        x = int((column + 0.5) * width / new_width + 1e-9)
        assert resized[row, column] == labels[y, x]


def nearest(wanted, given):
    """Of `given` pixels in a row those with the centres nearest to the wanted; of two as near the later."""
    distance = abs((2 * np.arange(wanted)[:, None] + 1) * given - (2 * np.arange(given) + 1) * wanted)
    return given - 1 - distance[:, ::-1].argmin(1)


@pytest.mark.parametrize('size', [(360, 480), (1080, 1920), (720, 1280), (45, 60), (30, 40), (37, 121)])
def test_a_pixel_of_a_resized_mask_is_the_one_with_the_nearest_centre(size):
    labels = np.random.default_rng(0).integers(0, 11, (90, 120), np.uint8)
    rows, columns = (nearest(*sides) for sides in zip(size, labels.shape, strict=True))
    assert np.array_equal(fit_labels(labels, size), labels[rows][:, columns])


@pytest.mark.parametrize('factor', [1, 2, 4, 8])
def test_shrinking_by_powers_of_two_gives_the_mean_of_the_area(factor):
    image = np.random.default_rng(0).integers(0, 256, (24 * factor, 32 * factor, 3), np.uint8)
    means = image.reshape(24, factor, 32, factor, 3).mean((1, 3))
    assert np.abs(fit(image, (24, 32)) - means).max() <= factor / 2  # each halving rounds


@pytest.mark.parametrize('size', [(1080, 1920), (720, 1280), (480, 640), (400, 1500), (361, 481)])
def test_shrinking_leaves_out_no_pixel_and_keeps_the_mean(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    shrunk = fit(image, (360, 480))
    assert shrunk.shape == (360, 480, 3)
    assert np.abs(shrunk.mean((0, 1)) - image.mean((0, 1))).max() < 1
    column = size[1] // 2
    for row in range(size[0] // 2, size[0] // 2 + 12):  # wherever a line is, it can be seen
        line = np.zeros((*size, 3), np.uint8)
        line[row] = 255
        assert fit(line, (360, 480))[:, column * 480 // size[1]].max() > 20


def test_an_image_that_fits_is_not_copied_and_one_that_is_smaller_grows_smoothly():
    image = np.zeros((6, 8, 3), np.uint8)
    image[:, 4:] = 200
    assert fit(image, (6, 8)) is image
    assert np.array_equal(fit(image, (12, 16)), cv2.resize(image, (16, 12), interpolation=cv2.INTER_LINEAR))
