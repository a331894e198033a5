"""The shared layers against slow plain versions of what they compute."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vss_ros.core.errors import ShapeError
from vss_ros.methods.blocks.decide import decide
from vss_ros.methods.blocks.fuse import Select
from vss_ros.methods.blocks.image import Normalise, to_rgb
from vss_ros.methods.blocks.pooling import PoolToGrid, bin_weights
from vss_ros.methods.blocks.pyramid import grid_columns
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.warp import read_nearest, warp

sizes = st.integers(2, 12)
seeds = st.integers(0, 2**31)


def warp_plainly(features: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Four neighbours of each source position, each clamped to the map."""
    _, height, width = features.shape
    warped = np.empty_like(features)
    for y in range(height):
        for x in range(width):
            source_x, source_y = x + flow[0, y, x], y + flow[1, y, x]
            left, top = math.floor(source_x), math.floor(source_y)
            right_share, lower_share = source_x - left, source_y - top
            value = 0
            for row, weight_y in ((top, 1 - lower_share), (top + 1, lower_share)):
                for column, weight_x in ((left, 1 - right_share), (left + 1, right_share)):
                    row_in, column_in = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
                    value = value + weight_y * weight_x * features[:, row_in, column_in]
            warped[:, y, x] = value
    return warped


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sizes, sizes, st.floats(0, 20), seeds)
def test_warp_reads_the_four_neighbours_and_repeats_the_border(height, width, reach, seed):
    random = np.random.default_rng(seed)
    features = random.normal(size=(3, height, width)).astype(np.float32)
    flow = (reach * random.normal(size=(2, height, width))).astype(np.float32)
    found = warp(torch.from_numpy(features)[None], torch.from_numpy(flow)[None])[0]
    expected = warp_plainly(features.astype(float), flow.astype(float))
    # Coordinates are float32: their error, times the steepest slope, is what may differ.
    np.testing.assert_allclose(found, expected, atol=1e-4)


def warp_by_its_formula(features, flow):
    """The same in PyTorch: the pair of cells beside a position is clamped, not the position (EVSS sec. 5)."""
    height, width = flow.shape[1:]
    x = torch.arange(width) + flow[0]
    y = torch.arange(height)[:, None] + flow[1]
    left, top = x.detach().floor(), y.detach().floor()

    def read(row, column):
        return features[:, row.clamp(0, height - 1).long(), column.clamp(0, width - 1).long()]

    upper, lower = (
        read(row, left) * (left + 1 - x) + read(row, left + 1) * (x - left) for row in (top, top + 1)
    )
    return upper * (top + 1 - y) + lower * (y - top)


@pytest.mark.parametrize('kind', ['zero', 'whole', 'any'])
def test_gradients_of_warp_are_those_of_its_formula_also_where_flow_ends_at_the_border(kind):
    torch.manual_seed(0)
    features = torch.randn(3, 5, 6, requires_grad=True)
    flow = {'zero': 0, 'whole': 2 * torch.randn(2, 5, 6).round(), 'any': 3 * torch.randn(2, 5, 6)}[kind]
    flow = (torch.zeros(2, 5, 6) + flow).requires_grad_()
    towards = torch.randn(3, 5, 6)
    found = torch.autograd.grad((warp(features[None], flow[None])[0] * towards).sum(), (features, flow))
    expected = torch.autograd.grad((warp_by_its_formula(features, flow) * towards).sum(), (features, flow))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_warp_moves_whole_cells_exactly():
    features = torch.rand(2, 5, 6, 7)
    flow = torch.zeros(2, 2, 6, 7)
    torch.testing.assert_close(warp(features, flow), features)
    flow[:, 0] = 2
    torch.testing.assert_close(warp(features, flow)[..., :5], features[..., 2:])
    flow[:, 0], flow[:, 1] = 0, -1
    torch.testing.assert_close(warp(features, flow)[..., 1:, :], features[..., :-1, :])


def test_warp_keeps_float32_coordinates_in_half_precision():
    features, flow = torch.rand(1, 3, 8, 512), torch.full((1, 2, 8, 512), 0.25)
    found = warp(features.half(), flow.half())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), warp(features, flow), rtol=0, atol=1e-3)


def test_what_flow_that_is_no_number_points_to_has_not_moved():
    features, flow = torch.rand(1, 3, 6, 8), torch.full((1, 2, 6, 8), 1.0)
    flow[0, 0, 2, 3] = flow[0, 1, 4, 5] = torch.nan
    moved = warp(features, torch.full((1, 2, 6, 8), 1.0))
    moved[..., 2, 3], moved[..., 4, 5] = features[..., 3, 3], features[..., 4, 6]
    torch.testing.assert_close(warp(features, flow), moved)


def test_warp_refuses_a_flow_of_another_size():
    with pytest.raises(ShapeError, match=r'features are \(6, 8\) and flow is \(6, 7\)'):
        warp(torch.zeros(1, 3, 6, 8), torch.zeros(1, 2, 6, 7))
    with pytest.raises(ShapeError, match='at least 2x2'):
        warp(torch.zeros(1, 3, 1, 8), torch.zeros(1, 2, 1, 8))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 12), st.integers(1, 12))
def test_pooling_matrices_are_adaptive_pooling(height, width, rows, columns):
    maps = torch.rand(1, 2, height, width)
    found = bin_weights(height, rows) @ maps @ bin_weights(width, columns).T
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(maps, (rows, columns)))


def test_exported_pooling_needs_no_pooling_operation():
    maps = torch.rand(1, 2, 45, 60)
    exported = torch.export.export(PoolToGrid(8), (maps,))
    operations = {str(node.target) for node in exported.graph.nodes}
    assert not any('pool' in operation for operation in operations)
    torch.testing.assert_close(exported.module()(maps), PoolToGrid(8)(maps))


@pytest.mark.parametrize(
    ('height', 'width', 'columns'),
    [(32, 64, (16, 8, 4)), (23, 30, (10, 5, 3)), (15, 20, (11, 5, 3)), (4, 5, (10, 5, 2))],
)
def test_grids_follow_the_map_and_halves_round_to_even(height, width, columns):
    assert tuple(grid_columns(rows, height, width) for rows in (8, 4, 2)) == columns


def test_select_is_a_softmax_over_its_two_maps():
    select = Select(8, torch.nn.ReLU()).eval()
    coarse, skip = torch.rand(2, 2, 8, 5, 6)
    with torch.no_grad():
        seen = select.fc((coarse + skip).mean((2, 3), keepdim=True)).flatten(1)
        share = torch.stack((select.fc1(seen), select.fc2(seen))).softmax(0)[..., None, None]
        expected = select.conv_out(share[0] * coarse + share[1] * skip)
        torch.testing.assert_close(select(coarse, skip), expected)


def test_resize_to_a_quarter_is_the_mean_of_the_inner_four_pixels():
    maps = torch.rand(1, 2, 12, 16)
    inner = [maps[:, :, row::4, column::4] for row in (1, 2) for column in (1, 2)]
    torch.testing.assert_close(resize(maps, (3, 4)), torch.stack(inner).mean(0))


def test_image_becomes_rgb_between_0_and_1():
    image = torch.zeros(1, 4, 8, 3, dtype=torch.uint8)
    image[..., 0], image[..., 2] = 255, 51  # BGR: blue full, red a fifth
    rgb = to_rgb(image)
    assert rgb.shape == (1, 3, 4, 8)
    assert rgb[0, :, 0, 0].tolist() == pytest.approx([0.2, 0.0, 1.0])
    expected = [(0.2 - 0.485) / 0.229, -0.456 / 0.224, (1 - 0.406) / 0.225]
    assert Normalise()(rgb)[0, :, 0, 0].tolist() == pytest.approx(expected)
    with pytest.raises(ShapeError, match='10x4; width and height must be multiples of 4'):
        to_rgb(torch.zeros(1, 4, 10, 3, dtype=torch.uint8))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(2, 19), st.integers(1, 6), st.integers(1, 6), st.floats(0.1, 40), seeds)
def test_decide_is_the_largest_softmax_of_the_resized_scores(classes, rows, columns, scale, seed):
    torch.manual_seed(seed)
    scores = scale * torch.randn(2, classes, rows, columns)
    size = (4 * rows, 4 * columns)
    decided = decide(scores, size)
    assert decided['mask'].dtype == decided['confidence'].dtype == torch.uint8
    best, ids = resize(scores, size).softmax(1).max(1)
    assert (decided['mask'] == ids).all()
    assert (decided['confidence'] - 255 * best).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize(('decision', 'part'), [('half', 2), ('quarter', 4)])
def test_coarser_decisions_are_those_of_a_smaller_image(decision, part):
    scores = torch.randn(1, 5, 6, 8)
    there = decide(scores, (24 // part, 32 // part))
    for name, found in decide(scores, (24, 32), decision).items():
        assert torch.equal(found, there[name])


@given(st.integers(2, 6), st.integers(2, 7), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1))
def test_the_cell_is_read_that_the_flow_points_to(height, width, finer, seed):
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 255, (2, 3, height, width)).astype(np.float32)
    flow = rng.uniform(-4, 4, (2, 2, finer * height, finer * width)).astype(np.float32)
    found = read_nearest(torch.from_numpy(maps), torch.from_numpy(flow)).numpy()
    for image, y, x in np.ndindex(2, *flow.shape[2:]):
        right, down = flow[image, :, y, x]
        column, row = (
            int(np.floor(np.float32((at + 0.5) / finer) + by)) for at, by in ((x, right), (y, down))
        )
        column, row = min(max(column, 0), width - 1), min(max(row, 0), height - 1)
        assert (found[image, :, y, x] == maps[image, :, row, column]).all()


@pytest.mark.parametrize('size', [(4, 5), (8, 4), (6, 6), (2, 2)])
def test_flow_of_no_multiple_of_the_size_of_the_map_that_is_read_is_refused(size):
    with pytest.raises(ShapeError, match=rf'maps are \(4, 4\) and flow is {re.escape(str(size))}'):
        read_nearest(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, *size))
