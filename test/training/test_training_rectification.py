"""The stage that trains TWNet's correction: its losses, where gradients go, and that it runs as deployed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from method_models import run_step
from torch import nn
from torch.nn import functional as F

from vss_ros.core.errors import SettingsError
from vss_ros.exporting.verify import example_frames
from vss_ros.methods import build_method
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.evss_losses import mean_cross_entropy
from vss_ros.training.loop import FitSettings, fit
from vss_ros.training.recipe import load_recipe
from vss_ros.training.stages import stage_class
from vss_ros.training.stages.rectification import (
    Prediction,
    RectificationSettings,
    RectificationStage,
    consistency,
    own_features,
)
from vss_ros.training.start import start_from
from vss_ros.training.streets import draw_street

CPU = torch.device('cpu')
OPTIONS = {'encoder': 'lite', 'layer': 2, 'heads': 'stem', 'residual': 'quarter', 'flow': 'dis'}
FIT = FitSettings(8, learning_rate=3e-3, warmup_steps=1, averaging=0.5, precision='fp32')
NO_SCORES = torch.empty(0)  # which TWNet does not carry


class Streets:
    """The same clip of a synthetic street, whoever asks."""

    def __init__(self):
        self.clips = [draw_street(3, 0, 4, 64, 96, drive=8)]

    def clip(self, rng, frames, *_):
        return self.clips[0]


@pytest.fixture(scope='module')
def streets():
    return Streets()


@pytest.fixture
def method():
    torch.manual_seed(0)
    method = build_method('twnet', 11, OPTIONS)
    start_from(method, {'cnn': 'camvid-evss-lite/csrnet'})
    method.nonkey.start_from(method.cnn)
    return method


def make(method, streets, **settings):
    settings = RectificationSettings(**{'batch': 2, 'frames': 4, 'judged': 2, **settings})
    return RectificationStage(method, [(streets, 1.0)], streets.clips, np.full(11, 1 / 11), settings)


def test_the_loss_falls_and_only_the_non_key_cnn_learns(method, streets, tmp_path):
    before = copy.deepcopy(method.state_dict())
    stage, seen = make(method, streets), []
    fit(stage, FIT, tmp_path, CPU, report=lambda step, terms: seen.append(terms))
    losses = [terms['loss'] for terms in seen if 'loss' in terms]
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    for name, value in method.state_dict().items():
        if name.startswith('cnn.'):
            assert torch.equal(value, before[name]), name
    learnt = method.nonkey.rectification.state_dict()
    assert all(
        not torch.equal(value, before[f'nonkey.rectification.{name}']) for name, value in learnt.items()
    )
    scores = next(terms for terms in seen if 'corrected_1' in terms)
    assert {'corrected_1', 'corrected_3', 'warped_3'} <= set(scores)


def test_judged_frames_are_compared_with_the_per_frame_cnn_and_others_are_not(method, streets):
    stage = make(method, streets, frames=4, judged=1)
    batch = {name: torch.from_numpy(array) for name, array in stage.batch(0).items()}
    (frame,) = stage.run(batch, [3])
    assert frame.prediction.own is not None
    assert set(stage.judge(frame, batch['labels'][:, 3])) == {'cross_entropy', 'consistency'}
    with torch.no_grad():
        (frame,) = stage.run(batch, [3])
    assert frame.prediction.own is None, 'a validation needs none'


def test_a_network_that_has_learnt_is_not_replaced_by_a_copy_if_told_so(method, streets):
    class Data:
        frequencies, seed = np.full(11, 1 / 11), 0

        def clips(self, shares, recoloured, **_):
            return [(streets, 1.0)]

        def clips_aside(self, frames):
            return []

    class Recipe:
        shares = {'streets': 1.0}

        def __init__(self, **settings):
            self.sampling = RectificationSettings(batch=2, frames=4, judged=2, **settings)

    with torch.no_grad():
        method.nonkey.cnn.scores.bias.add_(1)
    learnt = method.nonkey.cnn.scores.bias.clone()
    RectificationStage.create(method, Data(), Recipe(copies=False))
    assert torch.equal(method.nonkey.cnn.scores.bias, learnt)
    RectificationStage.create(method, Data(), Recipe())
    assert torch.equal(method.nonkey.cnn.scores.bias, method.cnn.scores.bias)


@pytest.mark.parametrize('name', ['twnet', 'twnet-lite'])
def test_the_recipes_build_their_method_and_name_stages_it_has(name):
    recipe = load_recipe(name)
    with torch.device('meta'):
        method = build_method(recipe.method, 11, dict(recipe.options))
    for stage in recipe.stages:
        assert isinstance(method, stage_class(stage.name).method_class)
    assert recipe.stages[-1].name == 'rectification'


def test_layer_three_has_nothing_to_train(streets):
    method = build_method('twnet', 11, {**OPTIONS, 'layer': 3, 'heads': 'published'})
    with pytest.raises(SettingsError, match='has no nonkey'):
        make(method, streets)


@pytest.fixture(scope='module')
def twnet():
    torch.manual_seed(0)
    method = build_method('twnet', 5, {'encoder': 'lite', 'layer': 2, 'flow': 'dis'}).eval()
    nn.init.normal_(method.nonkey.rectification.phi.weight, std=0.05)
    return method


@pytest.fixture(scope='module')
def images():
    return [torch.from_numpy(image[None]) for image in example_frames((72, 104), 3)]


def stage_of(method):
    """The stage, and all networks as they run."""
    stage = RectificationStage(method, [(None, 1.0)], [], np.full(5, 1 / 5), RectificationSettings())
    method.eval()
    return stage


def twnet_losses(prediction, targets):
    """As published: cross-entropy at full size, ten times the consistency, and their sum as `total`."""
    losses = {
        'cross_entropy': mean_cross_entropy(resize(prediction.merged, targets.shape[1:]), targets),
        'consistency': RectificationSettings().consistency * consistency(prediction),
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
    stage = stage_of(twnet)
    with torch.no_grad():
        handed = stage.start(to_rgb(images[0]), NO_SCORES)
        tensors = run_step(twnet, 'key', {'image': images[0]})
        for image in images[1:]:
            handed, prediction = stage.advance(handed, to_rgb(image), flow, judged=True)
            tensors = run_step(twnet, 'propagated', {'image': image, 'flow': flow, **twnet.state_of(tensors)})
            torch.testing.assert_close(prediction.features, tensors['features'])
            torch.testing.assert_close(handed.features, tensors['features'])
            torch.testing.assert_close(handed.picture, tensors['picture'])
            mask = twnet.results(prediction.merged)['mask']
            assert (mask != tensors['mask']).float().mean() < 1e-3
            assert prediction.own is None


@pytest.mark.parametrize('correction', ['plain', 'none'])
def test_without_attention_training_runs_frames_as_the_graphs_do(correction, images):
    torch.manual_seed(2)
    options = {'encoder': 'lite', 'layer': 2, 'flow': 'dis', 'correction': correction}
    method, flow = build_method('twnet', 5, options), torch.randn(1, 2, 18, 26)
    if correction == 'plain':
        nn.init.normal_(method.nonkey.rectification.phi.weight, std=0.05)
    stage = stage_of(method)
    handed = stage.start(to_rgb(images[0]), NO_SCORES)
    _, prediction = stage.advance(handed, to_rgb(images[1]), flow, judged=True)
    prediction.merged.sum().backward()
    assert all(parameter.grad is not None for parameter in method.nonkey.parameters())
    with torch.no_grad():
        key = run_step(method, 'key', {'image': images[0]})
        step = run_step(method, 'propagated', {'image': images[1], 'flow': flow, **method.state_of(key)})
    torch.testing.assert_close(prediction.features.detach(), step['features'])
    assert consistency(prediction) > 0


def test_gradients_reach_all_of_the_non_key_cnn_and_nothing_else(twnet, images):
    stage, still = stage_of(twnet), torch.zeros(1, 2, 18, 26)
    handed = stage.start(to_rgb(images[0]), NO_SCORES)
    handed, prediction = stage.advance(handed, to_rgb(images[1]), still, judged=True)
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
