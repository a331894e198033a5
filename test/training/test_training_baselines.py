"""The stages of Accel and DVSNet: what learns, what stays, and that losses fall on clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vss_ros.methods import build_method
from vss_ros.methods.blocks.decide import labels_of
from vss_ros.training.accel import UpdateSettings, UpdateStage
from vss_ros.training.clip_sources import ClipLibrary
from vss_ros.training.clips import Clip
from vss_ros.training.dvsnet import DecisionSettings, DecisionStage, agreement
from vss_ros.training.loop import FitSettings, fit
from vss_ros.training.recipe import load_recipe
from vss_ros.training.stages import stage_class

HEIGHT, WIDTH, CLASSES, FRAMES = 64, 96, 5, 4
FIT = FitSettings(25, learning_rate=3e-3, warmup_steps=2, averaging=0.5)
STAGES = {
    'accel': (UpdateStage, UpdateSettings),
    'dvsnet': (DecisionStage, DecisionSettings),
}
LITE = {'backbone': 'lite', 'flow': 'dis', 'decision': 'quarter'}
SAMPLING = {'batch': 2, 'frames': FRAMES, 'judged': 2, 'recolour': False}


@pytest.fixture(scope='module')
def clips():
    """Two patterns that move to the left, with labels."""
    rng, made = np.random.default_rng(0), []
    for _ in range(2):
        wide = np.kron(rng.integers(0, CLASSES, (4, 9)), np.ones((16, 13), int)).astype(np.uint8)
        image = np.stack([wide * 40, wide * 20, 200 - wide * 30], 2).astype(np.uint8)
        places = [slice(6 * t, 6 * t + WIDTH) for t in range(FRAMES)]
        made.append(Clip(np.stack([image[:, at] for at in places]), np.stack([wide[:, at] for at in places])))
    return made


def make(name, clips, options=None, **sampling):
    torch.manual_seed(0)
    method = build_method(name, CLASSES, {**LITE, **(options or {})})
    with torch.no_grad():
        method.csrnet.scores.weight.mul_(20)  # a segmenter that is sure of its classes
    kind, settings = STAGES[name]
    source = ClipLibrary(clips, HEIGHT, WIDTH, recoloured=False)
    frequencies = np.full(CLASSES, 1 / CLASSES)
    return kind(method, [(source, 1.0)], clips[:1], frequencies, settings(**{**SAMPLING, **sampling}))


def tensors(stage, step=0):
    return {name: torch.from_numpy(array) for name, array in stage.batch(step).items()}


@pytest.mark.parametrize('name', STAGES)
@pytest.mark.parametrize('carry', ['warped', 'composed'])
def test_losses_fall_and_only_the_named_networks_learn(clips, tmp_path, name, carry):
    stage = make(name, clips, {'carry': carry})
    before = {key: value.clone() for key, value in stage.method.state_dict().items()}
    losses = []
    fit(
        stage, FIT, tmp_path, torch.device('cpu'), report=lambda step, terms: losses.append(terms.get('loss'))
    )
    losses = [loss for loss in losses if loss is not None]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    for key, value in stage.method.state_dict().items():
        if key.split('.')[0] not in stage.trained:
            assert torch.equal(value, before[key]), key
    learnt = [key for key in before if key.split('.')[0] in stage.trained and key.endswith('weight')]
    assert any(not torch.equal(stage.method.state_dict()[key], before[key]) for key in learnt)


@pytest.mark.parametrize(
    ('name', 'carry'), [('accel', 'warped'), ('accel', 'merged'), ('dvsnet', 'composed')]
)
@torch.no_grad()
def test_training_runs_clips_as_the_exported_graphs_do(clips, name, carry):
    stage = make(name, clips, {'carry': carry})
    method = stage.method.eval()
    batch = tensors(stage)
    run = list(stage.run(batch, range(1, FRAMES)))
    state = method.state_of(method.step('key', {'image': batch['images'][:, 0]}))
    for index, frame in enumerate(run, 1):
        given = {'image': batch['images'][:, index], 'flow': batch['flows'][:, index - 1], **state}
        step = method.step('propagated', given)
        state = method.state_of(step)
        if name == 'accel':
            assert torch.equal(labels_of(frame.prediction.merged)[:, 0].byte(), step['mask'])
        else:
            torch.testing.assert_close(frame.prediction.merged, step['warped'])
            torch.testing.assert_close(frame.prediction.regions.mean((1, 2, 3)), step['expected_accuracy'])


def test_agreement_is_one_where_the_classes_are_equal():
    labels = torch.zeros(1, 16, 16, dtype=torch.uint8)
    labels[:, :, 8:] = 2
    scores = torch.zeros(1, 3, 4, 4)
    scores[:, 2] = 1
    assert torch.equal(agreement(scores, labels)[0, 0], torch.tensor([[0.0, 0, 1, 1]]).expand(4, 4))


def test_the_decision_network_is_validated_by_its_error(clips):
    stage = make('dvsnet', clips)
    found = stage.validate(stage.module)
    assert 0 <= found['expectation_error'] <= 100
    assert -100 <= found['expectation_correlation'] <= 100


@pytest.mark.parametrize('name', ['accel-lite', 'dvsnet-lite'])
def test_the_recipes_name_stages_of_their_methods_and_start_from_the_default_model(name):
    recipe = load_recipe(name)
    method = build_method(recipe.method, 11, dict(recipe.options))
    for stage in recipe.stages:
        assert isinstance(method, stage_class(stage.name).method_class)
    assert recipe.start == {'csrnet': 'camvid-evss-lite/csrnet'}
