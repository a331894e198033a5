"""The stages of Accel, DFF and DVSNet: what learns, what stays, and that losses fall on clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from method_models import run_step

from vss_ros.core.errors import SettingsError
from vss_ros.methods import build_method
from vss_ros.methods.blocks.decide import labels_of
from vss_ros.methods.dvsnet import DvsNet
from vss_ros.training.clip_sources import ClipLibrary
from vss_ros.training.clips import Clip
from vss_ros.training.loop import FitSettings, fit
from vss_ros.training.recipe import load_recipe
from vss_ros.training.stages import stage_class
from vss_ros.training.stages.decision import DecisionSettings, DecisionStage, agreement
from vss_ros.training.stages.decision import Prediction as DecisionPrediction
from vss_ros.training.stages.flow import FlowSettings, FlowStage
from vss_ros.training.stages.scaling import ScalingSettings, ScalingStage
from vss_ros.training.stages.update import UpdateSettings, UpdateStage

HEIGHT, WIDTH, CLASSES, FRAMES = 64, 96, 5, 4
FIT = FitSettings(25, learning_rate=3e-3, warmup_steps=2, averaging=0.5)
STAGES = {
    'accel': (UpdateStage, UpdateSettings),
    'dff': (ScalingStage, ScalingSettings),
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


def train(stage, folder, settings=FIT):
    """The losses of all steps."""
    losses = []
    fit(
        stage,
        settings,
        folder,
        torch.device('cpu'),
        report=lambda step, terms: losses.append(terms.get('loss')),
    )
    return [loss for loss in losses if loss is not None]


@torch.no_grad()
def losses_now(stage, steps=5):
    """The losses of the first steps again; those of others tell little, for some clips are harder."""
    return [float(sum(stage.losses(tensors(stage, step)).values())) for step in range(steps)]


@pytest.mark.parametrize('name', ['accel', 'dvsnet'])
@pytest.mark.parametrize('carry', ['warped', 'composed'])
def test_losses_fall_and_only_the_named_networks_learn(clips, tmp_path, name, carry):
    stage = make(name, clips, {'carry': carry})
    before = {key: value.clone() for key, value in stage.method.state_dict().items()}
    losses = train(stage, tmp_path)
    assert np.mean(losses_now(stage)) < 0.9 * np.mean(losses[:5])
    for key, value in stage.method.state_dict().items():
        if key.split('.')[0] not in stage.trained:
            assert torch.equal(value, before[key]), key
    learnt = [key for key in before if key.split('.')[0] in stage.trained and key.endswith('weight')]
    assert any(not torch.equal(stage.method.state_dict()[key], before[key]) for key in learnt)


@pytest.mark.parametrize('hops', [{}, {'hops': 1, 'intervals': (1, 2, 3)}])
def test_flow_and_scale_field_of_dff_learn_together_behind_a_frozen_segmenter(clips, tmp_path, hops):
    stage = make('dff', clips, {'flow': 'network'}, pseudo_labels=True, **hops)
    before = {key: value.clone() for key, value in stage.method.state_dict().items()}
    images = [torch.from_numpy(image[None]) for image in clips[0].images[1::-1]]
    untrained = stage.method.flow(*images)
    assert torch.equal(untrained['scale'], torch.ones_like(untrained['scale']))
    losses = train(stage, tmp_path, replace(FIT, learning_rate=1e-3))
    assert np.mean(losses_now(stage)) < 0.99 * np.mean(losses[:5])
    trained = stage.method.flow(*images)
    assert (trained['scale'] - 1).abs().mean() > 0.01
    assert (trained['flow'] - untrained['flow']).abs().mean() > 0.01
    for key, value in stage.method.state_dict().items():
        if not key.startswith('flownet.'):
            assert torch.equal(value, before[key]), key
    assert 0 <= stage.validate(stage.module)['corrected_3'] <= 100


def test_the_loss_of_dff_is_known_to_the_flow_where_there_is_no_scale_field(clips):
    stage = make('dff', clips, {'flow': 'network', 'scale_field': False, 'carry': 'composed'})
    torch.stack(list(stage.losses(tensors(stage)).values())).sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in stage.method.flownet.predict_flow2.parameters())
    assert all(weight.grad is None for weight in stage.method.csrnet.parameters())


def test_a_dff_whose_flow_is_the_hosts_has_nothing_to_train(clips):
    with pytest.raises(SettingsError, match='has no flownet; its networks are csrnet'):
        make('dff', clips, {'scale_field': False})


@pytest.mark.parametrize('name', ['gain', 'decision_netwrok'])
def test_what_a_stage_trains_must_be_a_network_of_the_method(clips, monkeypatch, name):
    monkeypatch.setattr(DvsNet, 'gain', torch.nn.Parameter(torch.ones(1)), raising=False)
    monkeypatch.setattr(DecisionStage, 'trained', ('decision_network', name))
    with pytest.raises(SettingsError, match=f'has no {name}; its networks are csrnet, decision_network'):
        make('dvsnet', clips)


@torch.no_grad()
def test_the_stage_flow_trains_the_flow_network_of_dff_like_any_other(clips):
    method = make('dff', clips, {'flow': 'network'}).method
    stills = ClipLibrary(clips, HEIGHT, WIDTH).stills()
    stage = FlowStage(method.flownet, [(stills, 1.0)], [], 0.0, FlowSettings(batch=2))
    assert stage.losses(tensors(stage))['end_point_error'] > 0


@pytest.mark.parametrize(
    ('name', 'carry'),
    [
        ('dff', 'warped'),
        ('dff', 'composed'),
        ('accel', 'warped'),
        ('accel', 'merged'),
        ('dvsnet', 'composed'),
    ],
)
@torch.no_grad()
def test_training_runs_clips_as_the_exported_graphs_do(clips, name, carry):
    options = {'flow': 'network', 'scale_field': carry == 'warped'} if name == 'dff' else {}
    stage = make(name, clips, {'carry': carry, **options})
    method = stage.method.eval()
    if name == 'dff' and carry == 'warped':  # a field that does something
        torch.nn.init.normal_(method.flownet.predict_scale.weight, std=0.1)
    batch = tensors(stage)
    run = list(stage.run(batch, range(1, FRAMES)))
    state = method.state_of(run_step(method, 'key', {'image': batch['images'][:, 0]}))
    for index, frame in enumerate(run, 1):
        given = {'image': batch['images'][:, index], **state}
        if name != 'dff':
            given['flow'] = batch['flows'][:, index - 1]
        step = run_step(method, 'propagated', given)
        state = method.state_of(step)
        if name != 'dvsnet':
            assert torch.equal(labels_of(frame.prediction.merged)[:, 0].byte(), step['mask'])
        else:
            torch.testing.assert_close(frame.prediction.merged, step['warped'])
            torch.testing.assert_close(frame.prediction.regions.mean((1, 2, 3)), step['expected_accuracy'])


def test_what_nobody_labelled_says_nothing_of_how_right_a_warp_is(clips):
    stage = make('dvsnet', clips, pseudo_labels=False)
    labels = torch.full((1, HEIGHT, WIDTH), 255, dtype=torch.uint8)
    labels[:, :, : WIDTH // 3] = 2
    merged = torch.zeros(1, CLASSES, HEIGHT // 4, WIDTH // 4)
    merged[:, 2] = 1
    regions = torch.ones(1, 1, HEIGHT // 32, WIDTH // 32)
    right = stage.terms(DecisionPrediction(merged, regions), labels)
    assert max(term.item() for term in right.values()) == pytest.approx(0, abs=1e-6)
    wrong = stage.terms(DecisionPrediction(merged, regions), labels.where(labels == 255, 3))
    assert wrong['regions'].item() == pytest.approx(1)


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


@pytest.mark.parametrize('name', ['accel-lite', 'dff-lite', 'dvsnet-lite'])
def test_the_recipes_name_stages_of_their_methods_and_start_from_the_default_model(name):
    recipe = load_recipe(name)
    method = build_method(recipe.method, 11, dict(recipe.options))
    for stage in recipe.stages:
        assert isinstance(method, stage_class(stage.name).method_class)
    assert recipe.start == {'csrnet': 'camvid-evss-lite/csrnet'}
