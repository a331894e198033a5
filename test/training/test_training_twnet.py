"""The stage that trains TWNet's correction."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from vss_ros.core.errors import SettingsError
from vss_ros.methods import build_method
from vss_ros.training.loop import FitSettings, fit
from vss_ros.training.recipe import load_recipe
from vss_ros.training.rectification import RectificationSettings, RectificationStage
from vss_ros.training.stages import stage_class
from vss_ros.training.start import start_from
from vss_ros.training.streets import draw_street

CPU = torch.device('cpu')
OPTIONS = {'encoder': 'lite', 'layer': 2, 'heads': 'stem', 'residual': 'quarter', 'flow': 'dis'}
FIT = FitSettings(8, learning_rate=3e-3, warmup_steps=1, averaging=0.5, precision='fp32')


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


def test_a_negative_weight_is_refused():
    with pytest.raises(SettingsError, match='consistency is -1; use a weight of 0 or more'):
        RectificationSettings(consistency=-1)


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
