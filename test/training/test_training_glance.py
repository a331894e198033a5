"""The stage in which evss-lite learns to see smaller images, and what the stages after it leave alone."""

from __future__ import annotations

import pytest
import torch

from vss_ros.core.errors import SettingsError
from vss_ros.methods.blocks.glance import stretched
from vss_ros.training.recipe import load_recipe, parse_recipe
from vss_ros.training.trainer import Trainer

CPU = torch.device('cpu')
FIT = {'steps': 2, 'learning_rate': 5e-3, 'warmup_steps': 1, 'averaging': 0.5, 'precision': 'fp32'}
STREETS = {'streets': {'clips': 2, 'frames': 4, 'seed': 5}}


def trainer_of(folder, options=None, **stages):
    recipe = {
        'method': 'evss-lite',
        'options': options or {},
        'classes': 'camvid11',
        'image': {'height': 64, 'width': 96},
        **STREETS,
        'stages': {name: {'fit': FIT, 'shares': {'streets': 1}, **entry} for name, entry in stages.items()},
    }
    return Trainer(parse_recipe('glancing', recipe), {}, folder / 'runs' / 'glancing')


def run(trainer):
    seen = {}
    trainer.run(CPU, False, lambda stage, step, values: seen.setdefault(stage, values))
    return seen


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def without_memory(glance):
    return {name: value for name, value in weights(glance).items() if not name.startswith('remember')}


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_glance_begins_as_the_segmenter_and_learns_from_it(tmp_path):
    trainer = trainer_of(tmp_path, glance={'sampling': {'batch': 2}})
    method, segmenter = trainer.method, weights(trainer.method.csrnet)
    stage = trainer._stage(trainer.recipe.stages[0])
    begun = segmenter | {'stem.0.0.weight': stretched(segmenter['stem.0.0.weight'], 4)}
    assert same(begun, without_memory(method.glance))
    assert stage.module is method.glance
    assert run(trainer)['glance']['teacher'] > 0
    assert not same(segmenter, without_memory(method.glance))
    assert not method.glance.remember.weight.any()
    assert same(segmenter, weights(method.csrnet))


def test_a_glance_can_go_on_from_where_it_is(tmp_path):
    sampling = {'batch': 2, 'begin_as_segmenter': False}
    trainer = trainer_of(tmp_path, {'backbone': 'csrnet'}, glance={'sampling': sampling})
    before = weights(trainer.method.glance)
    trainer._stage(trainer.recipe.stages[0])
    assert same(before, weights(trainer.method.glance))


def test_a_glance_cannot_begin_as_a_segmenter_of_another_kind(tmp_path):
    trainer = trainer_of(tmp_path, {'backbone': 'csrnet'}, glance={'sampling': {'batch': 2}})
    with pytest.raises(SettingsError, match='begin_as_segmenter: false'):
        run(trainer)


@pytest.mark.parametrize('options', [{}, {'magnify': 1.333, 'glance': 'two_thirds'}])
def test_the_correction_and_the_glance_learn_together_what_to_make_of_what_was_carried(tmp_path, options):
    trainer = trainer_of(tmp_path, options, correction={'sampling': {'batch': 2, 'frames': 3, 'judged': 1}})
    before = {name: weights(network) for name, network in trainer.method.named_children()}
    run(trainer)
    kept = [name for name, network in trainer.method.named_children() if same(before[name], weights(network))]
    assert kept == ['csrnet']
    assert trainer.method.glance.remember.weight.any()


def test_the_recipe_of_the_default_model_trains_the_glance_before_the_correction():
    assert [stage.name for stage in load_recipe('evss-lite').stages] == ['segmenter', 'glance', 'correction']
