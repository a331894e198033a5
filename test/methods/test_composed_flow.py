"""Following the flow back to the key frame instead of warping again and again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_models import run_step

from vss_ros.core.synthetic import StreetClip
from vss_ros.methods import build_method
from vss_ros.methods.blocks.warp import compose, warp

HEIGHT, WIDTH = 12, 16
METHODS = {'evss-lite': {}, 'davss': {'backbone': 'lite', 'flow': 'dis'}}
small = st.integers(-250, 250).map(lambda hundredths: hundredths / 100)  # cells
matrices = st.tuples(*[st.integers(-80, 80).map(lambda thousandths: thousandths / 1000)] * 4)


def cells():
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing='ij')
    return torch.stack((x, y)).float()


def translation(x, y):
    return torch.tensor([x, y]).view(1, 2, 1, 1).expand(1, 2, HEIGHT, WIDTH)


def affine(matrix, shift):
    """The flow p -> A p + shift, about the middle of the map."""
    middle = cells() - torch.tensor([WIDTH / 2, HEIGHT / 2]).view(2, 1, 1)
    flow = torch.einsum('ij,jhw->ihw', torch.tensor(matrix).reshape(2, 2), middle)
    return (flow + torch.tensor(shift).view(2, 1, 1))[None]


def stays_inside(flow):
    """Cells whose flow ends inside the map, (h, w)."""
    end = cells() + flow[0]
    limit = torch.tensor([WIDTH - 1, HEIGHT - 1]).view(2, 1, 1)
    return ((end >= 0) & (end <= limit)).all(0)


@given(small, small, small, small)
@settings(max_examples=30)
def test_two_translations_compose_to_their_sum(x, y, later_x, later_y):
    found = compose(translation(later_x, later_y), translation(x, y))
    assert torch.allclose(found, translation(x + later_x, y + later_y), atol=1e-5)


@given(matrices, st.tuples(small, small), matrices, st.tuples(small, small))
@settings(max_examples=30)
def test_affine_flows_compose_like_their_maps_inside_the_map(earlier, shift, later, later_shift):
    first, second = affine(earlier, shift), affine(later, later_shift)
    found = compose(second, first)
    # first(p + second(p)) in closed form: bilinear reading of an affine field is exact.
    middle = cells() - torch.tensor([WIDTH / 2, HEIGHT / 2]).view(2, 1, 1)
    there = torch.einsum('ij,jhw->ihw', torch.tensor(earlier).reshape(2, 2), middle + second[0])
    expected = second[0] + there + torch.tensor(shift).view(2, 1, 1)
    inside = stays_inside(second)
    assert torch.allclose(found[0][:, inside], expected[:, inside], atol=1e-3)


@given(st.tuples(small, small), matrices)
@settings(max_examples=30)
def test_nothing_before_or_after_changes_nothing(shift, matrix):
    flow, still = affine(matrix, shift), torch.zeros(1, 2, HEIGHT, WIDTH)
    assert torch.equal(compose(flow, still), flow)
    assert torch.allclose(compose(still, flow), flow, atol=1e-5)


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=4))
@settings(max_examples=30)
def test_whole_cells_warped_once_are_what_warping_again_and_again_gives_inside(shifts):
    features = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    again, to_key = features, torch.zeros(1, 2, HEIGHT, WIDTH)
    inside = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    for x, y in shifts:
        flow = translation(float(x), float(y))
        again, to_key = warp(again, flow), compose(flow, to_key)
        inside = stays_inside(flow) & (warp(inside[None, None].float(), flow)[0, 0] == 1)
    once = warp(features, to_key)
    assert torch.equal(once[0][:, inside], again[0][:, inside])


def test_a_composed_flow_is_read_once_so_that_nothing_blurs():
    """Half a cell to and fro: warping each time averages neighbours, the composed flow is still."""
    features = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    to, fro = translation(0.5, 0.0), translation(-0.5, 0.0)
    inner = np.s_[..., 2:-2]
    again = warp(warp(features, to), fro)
    once = warp(features, compose(fro, to))
    assert torch.allclose(once[inner], features[inner], atol=1e-6)
    assert (again[inner] - features[inner]).abs().mean() > 0.05


@pytest.fixture(scope='module', params=METHODS)
def methods(request):
    """The method warping again and again, and the same with composed flow."""
    built = []
    for carry in ('warped', 'composed'):
        torch.manual_seed(0)
        built.append(build_method(request.param, 11, {**METHODS[request.param], 'carry': carry}).eval())
    return built


def run(method, images, flows):
    """What each step of a stream gave."""
    image = images[0]
    steps = [run_step(method, 'key', {'image': image, **method.host_tensors(image)})]
    for image, flow in zip(images[1:], flows, strict=True):
        state = method.state_of(steps[-1])
        steps.append(run_step(method, 'propagated', {'image': image, 'flow': flow, **state}))
    return steps


@torch.no_grad()
def test_on_the_first_frame_both_ways_are_one(methods):
    street = list(StreetClip(3, 2, 64, 96))
    images = [torch.from_numpy(frame.image[None]) for frame in street]
    flows = [torch.rand(1, 2, 16, 24)]
    again, once = (run(method, images, flows)[-1] for method in methods)
    assert torch.allclose(again['warped'], once['warped'], atol=1e-4)
    assert torch.equal(again['mask'], once['mask'])


@torch.no_grad()
def test_the_scores_of_the_key_frame_stay_and_the_flow_leads_back_to_them(methods):
    images = [torch.from_numpy(frame.image[None]) for frame in StreetClip(3, 4, 64, 96)]
    flows = [torch.full((1, 2, 16, 24), 0.5) for _ in images[1:]]
    again, once = (run(method, images, flows) for method in methods)
    key_scores = again[0]['scores']
    for number, step in enumerate(once):
        assert torch.equal(step['key_scores'], key_scores)
        assert torch.allclose(step['key_flow'], torch.full((1, 2, 16, 24), 0.5 * number))
    assert torch.allclose(once[-1]['warped'], warp(key_scores, once[-1]['key_flow']), atol=1e-6)
    assert not torch.allclose(once[-1]['warped'], again[-1]['warped'], atol=1e-3)
