"""The losses of TWNet, against values worked out plainly, and where their gradients go."""

from __future__ import annotations

import pytest
import torch
from method_models import run_step
from torch import nn
from torch.nn import functional as F

from vss_ros.exporting.verify import example_frames
from vss_ros.methods import build_method
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.evss_losses import mean_cross_entropy
from vss_ros.methods.twnet_losses import CONSISTENCY, Prediction, advance, consistency, own_features, start


@pytest.fixture(scope='module')
def twnet():
    torch.manual_seed(0)
    method = build_method('twnet', 5, {'encoder': 'lite', 'layer': 2, 'flow': 'dis'}).eval()
    nn.init.normal_(method.nonkey.rectification.phi.weight, std=0.05)
    method.cnn.requires_grad_(False)
    return method


@pytest.fixture(scope='module')
def images():
    return [torch.from_numpy(image[None]) for image in example_frames((72, 104), 3)]


def twnet_losses(prediction, targets):
    """As published: cross-entropy at full size, ten times the consistency, and their sum as `total`."""
    losses = {
        'cross_entropy': mean_cross_entropy(resize(prediction.merged, targets.shape[1:]), targets),
        'consistency': CONSISTENCY * consistency(prediction),
    }
    return losses | {'total': sum(losses.values())}


def test_cross_entropy_and_ten_times_the_mean_square_of_the_difference():
    torch.manual_seed(1)
    scores, features, own = torch.randn(2, 5, 4, 6), torch.randn(2, 3, 2, 3), torch.randn(2, 3, 2, 3)
    targets = torch.randint(0, 5, (2, 4, 6))
    targets[0, :2] = 255
    losses = twnet_losses(Prediction(scores, features, own), targets)
    square = sum((a - b) ** 2 for a, b in zip(features.flatten(), own.flatten(), strict=True)) / own.numel()
    known = targets != 255
    likely = F.log_softmax(scores, 1).permute(0, 2, 3, 1)[known].gather(1, targets[known][:, None])
    assert losses['cross_entropy'] == pytest.approx(-likely.mean().item(), rel=1e-5)
    assert losses['consistency'] == pytest.approx(10 * square.item(), rel=1e-5)
    assert losses['total'] == pytest.approx(
        (losses['cross_entropy'] + losses['consistency']).item(), rel=1e-6
    )


def test_training_runs_frames_as_the_graphs_do(twnet, images):
    flow = torch.randn(1, 2, 18, 26)
    with torch.no_grad():
        handed = start(twnet, to_rgb(images[0]))
        tensors = run_step(twnet, 'key', {'image': images[0]})
        for image in images[1:]:
            handed, prediction = advance(twnet, handed, to_rgb(image), flow, compared=False)
            tensors = run_step(twnet, 'propagated', {'image': image, 'flow': flow, **twnet.state_of(tensors)})
            torch.testing.assert_close(prediction.features, tensors['features'])
            torch.testing.assert_close(handed.features, tensors['features'])
            torch.testing.assert_close(handed.picture, tensors['picture'])
            mask = twnet.decide(prediction.merged)['mask']
            assert (mask != tensors['mask']).float().mean() < 1e-3
            assert prediction.own is None


@pytest.mark.parametrize('correction', ['plain', 'none'])
def test_without_attention_training_runs_frames_as_the_graphs_do(correction, images):
    torch.manual_seed(2)
    options = {'encoder': 'lite', 'layer': 2, 'flow': 'dis', 'correction': correction}
    method, flow = build_method('twnet', 5, options).eval(), torch.randn(1, 2, 18, 26)
    if correction == 'plain':
        nn.init.normal_(method.nonkey.rectification.phi.weight, std=0.05)
    _, prediction = advance(method, start(method, to_rgb(images[0])), to_rgb(images[1]), flow, compared=True)
    prediction.merged.sum().backward()
    assert all(parameter.grad is not None for parameter in method.nonkey.parameters())
    with torch.no_grad():
        key = run_step(method, 'key', {'image': images[0]})
        step = run_step(method, 'propagated', {'image': images[1], 'flow': flow, **method.state_of(key)})
    torch.testing.assert_close(prediction.features.detach(), step['features'])
    assert consistency(prediction) > 0


def test_gradients_reach_all_of_the_non_key_cnn_and_nothing_else(twnet, images):
    handed = start(twnet, to_rgb(images[0]))
    handed, prediction = advance(twnet, handed, to_rgb(images[1]), torch.zeros(1, 2, 18, 26), compared=True)
    assert not handed.features.requires_grad
    assert not prediction.own.requires_grad
    twnet_losses(prediction, torch.randint(0, 5, (1, 72, 104)))['total'].backward()
    assert all(parameter.grad is not None for parameter in twnet.nonkey.parameters())
    assert all(parameter.grad is None for parameter in twnet.cnn.parameters())
    twnet.zero_grad(set_to_none=True)


def test_features_that_are_the_per_frame_ones_are_consistent(twnet, images):
    rgb = to_rgb(images[0])
    own = own_features(twnet, rgb)
    with torch.no_grad():
        assert torch.equal(own, twnet.cnn(rgb, 2)[0])
    assert consistency(Prediction(torch.zeros(1), own, own)) == 0
