"""Rates, optimisers and precisions of a stage."""

from __future__ import annotations

import json
import logging
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vss_ros.core.described import descriptions
from vss_ros.core.errors import SettingsError
from vss_ros.training import optimiser
from vss_ros.training.loop import fit
from vss_ros.training.optimiser import (
    PRECISIONS,
    Descent,
    FitSettings,
    make_optimiser,
    speed_up,
    usable_precision,
)

CPU = torch.device('cpu')


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer, self.drop = nn.Linear(4, 16), nn.Linear(16, 1), nn.Dropout(0.2)

    def forward(self, x):
        return self.outer(self.drop(self.inner(x).relu()))


class LineStage:
    name, size = 'line', 8

    def __init__(self):
        self.module, self.kinds = Line(), set()

    def batch(self, step, samples=None):
        x = np.random.default_rng(step).normal(size=(8, 4)).astype(np.float32)
        return {'x': x, 'y': x.sum(1, keepdims=True)}

    def losses(self, batch):
        y = self.module(batch['x'])
        self.kinds.add(y.dtype)
        return {'squared': (y.float() - batch['y']).square().mean()}

    def validate(self, average):
        return {}


def settings(steps=40, **changes):
    return FitSettings(steps, **{'learning_rate': 0.01, 'warmup_steps': 2, 'precision': 'fp32', **changes})


def curve(folder):
    return [json.loads(line)['loss'] for line in (folder / 'line.jsonl').read_text().splitlines()]


@pytest.mark.parametrize(
    ('schedule', 'more', 'middle', 'last'),
    [
        ('cosine', {}, 0.5, 0.0),
        ('cosine', {'final_share': 0.01}, 0.505, 0.01),
        ('polynomial', {'power': 1.0}, 0.5, 0.0),
        ('polynomial', {'power': 0.9}, 0.5**0.9, 0.0),
        ('tenth', {}, 1.0, 0.1),
    ],
)
def test_rates_follow_their_schedule(schedule, more, middle, last):
    fitting = FitSettings(1000, learning_rate=1.0, warmup_steps=0, schedule=schedule, **more)
    assert fitting.rate_at(0) == pytest.approx(1)
    assert fitting.rate_at(500) == pytest.approx(middle, abs=1e-6)
    assert fitting.rate_at(999) == pytest.approx(last, abs=3e-3)


@pytest.mark.parametrize('kind', ['adamw', 'adam', 'sgd'])
def test_norms_and_biases_do_not_decay(kind):
    groups = make_optimiser(Line(), settings(optimiser=kind, weight_decay=0.1)).param_groups
    assert [(group['weight_decay'], {p.ndim for p in group['params']}) for group in groups] == [
        (0.1, {2}),
        (0.0, {1}),
    ]


def test_adam_adds_the_decay_to_the_gradient_and_adamw_does_not():
    moved = {}
    for kind in ('adam', 'adamw'):
        module = nn.Linear(1, 1)
        nn.init.constant_(module.weight, 2.0)
        descent = Descent(module, settings(optimiser=kind, weight_decay=0.5, warmup_steps=0), CPU, 'fp32')
        descent.step(0, 0 * module.weight.sum())
        moved[kind] = 2 - module.weight.item()
    # The first step of Adam is as long as the rate, whatever the gradient; AdamW shortens the weight itself.
    assert moved == pytest.approx({'adam': 0.01, 'adamw': 0.01 * 0.5 * 2})


def test_parts_learn_at_rates_of_their_own():
    module = Line()
    module.inner.bias.requires_grad_(False)
    rates = {'inner': 0.1, 'outer': 0.5, 'outer.bias': 0.0}
    fitting = settings(rates=rates, warmup_steps=0, weight_decay=0.0)
    descent = Descent(module, fitting, CPU, 'fp32')
    before = {name: value.clone() for name, value in module.state_dict().items()}
    descent.step(0, sum(100 * p.sum() for p in module.parameters()))
    moved = {name: (before[name] - value).mean().item() for name, value in module.state_dict().items()}
    rate = fitting.rate_at(0)
    expected = {'inner.weight': 0.1 * rate, 'inner.bias': 0, 'outer.weight': 0.5 * rate, 'outer.bias': 0}
    assert moved == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize('part', ['midst', 'inn', 'drop', 'inner.bias'])
def test_rates_of_what_does_not_learn_are_refused(part):
    module = Line()
    module.inner.bias.requires_grad_(False)
    with pytest.raises(SettingsError, match=f'rates names {part}, of which nothing learns; it has inner'):
        make_optimiser(module, settings(rates={part: 0.1}))


@pytest.mark.parametrize(
    'changes',
    [
        {'optimiser': 'sgd', 'schedule': 'polynomial'},
        {'averaging': 0.0, 'clip_gradient': 0.0},
        {'precision': 'fp16'},
    ],
    ids=['sgd', 'no averaging', 'fp16'],
)
def test_a_resumed_run_repeats_the_curve_dropout_included(tmp_path, monkeypatch, changes):
    monkeypatch.setattr(optimiser, 'speed_up', lambda dtype: 2.0)
    fitting = settings(save_every_steps=15, **changes)
    fit(LineStage(), fitting, tmp_path / 'whole', CPU)

    class Stopped(Exception):
        pass

    def stop(step, values):
        if step == 20:
            raise Stopped

    with pytest.raises(Stopped):
        fit(LineStage(), fitting, tmp_path / 'broken', CPU, report=stop)
    torch.manual_seed(77)
    fit(LineStage(), fitting, tmp_path / 'broken', CPU, resume=True)
    whole = curve(tmp_path / 'whole')
    assert curve(tmp_path / 'broken') == whole
    assert np.mean(whole[-5:]) < np.mean(whole[:5])


def test_what_the_optimiser_remembers_of_a_part_stays_with_it_when_its_rate_is_changed(tmp_path):
    fit(LineStage(), settings(10, learning_rate=1e-9), tmp_path, CPU)
    before = load_file(tmp_path / 'line.safetensors')
    fit(LineStage(), settings(11, learning_rate=1e-9, rates={'inner': 0.1}), tmp_path, CPU, resume=True)
    after = load_file(tmp_path / 'line.safetensors')
    moments = [name for name in before if name.endswith('exp_avg_sq')]
    assert len(moments) == 4
    for name in moments:  # the mean over the last thousand gradients, of which one is new
        torch.testing.assert_close(after[name], before[name], rtol=0.5, atol=1e-3)


@pytest.mark.parametrize(('precision', 'kind'), [('bf16', torch.bfloat16), ('fp16', torch.float16)])
def test_networks_compute_in_the_precision_asked_for_where_it_is_fast(tmp_path, monkeypatch, precision, kind):
    monkeypatch.setattr(optimiser, 'speed_up', lambda dtype: 2.0)
    stage = LineStage()
    fit(stage, settings(3, precision=precision), tmp_path, CPU)
    assert stage.kinds == {kind}


def test_bf16_on_a_processor_that_is_slow_in_it_becomes_fp32_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(optimiser, 'speed_up', lambda dtype: 0.7)
    stage = LineStage()
    with caplog.at_level(logging.WARNING):
        fit(stage, settings(3, precision='bf16'), tmp_path, CPU)
    assert stage.kinds == {torch.float32}
    assert 'bf16 is no faster than fp32' in caplog.text


@pytest.mark.parametrize(('wanted', 'usable'), [('bf16', 'fp16'), ('fp16', 'fp16'), ('fp32', 'fp32')])
def test_bf16_on_a_gpu_that_only_emulates_it_becomes_fp16_and_says_so(monkeypatch, caplog, wanted, usable):
    monkeypatch.setattr(torch.cuda, 'device', lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation: including_emulation)
    gpu = torch.device('cuda')
    with caplog.at_level(logging.WARNING):
        assert usable_precision(wanted, gpu) == usable
    assert ('no bf16 arithmetic: training in fp16' in caplog.text) == (wanted == 'bf16')
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation: True)
    assert usable_precision(wanted, gpu) == wanted


def test_a_resumed_run_computes_as_it_began_whatever_a_trial_says_now(tmp_path, monkeypatch):
    began, again, changed = LineStage(), LineStage(), LineStage()
    monkeypatch.setattr(optimiser, 'speed_up', lambda dtype: 2.0)
    fit(began, settings(10, precision='bf16'), tmp_path, CPU)
    monkeypatch.setattr(optimiser, 'speed_up', lambda dtype: 0.7)
    fit(again, settings(15, precision='bf16'), tmp_path, CPU, resume=True)
    assert again.kinds == {torch.bfloat16}
    fit(changed, settings(20, precision='fp32'), tmp_path, CPU, resume=True)
    assert changed.kinds == {torch.float32}


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_whether_a_precision_is_fast_here_is_measured_without_touching_what_training_draws(precision):
    speed_up.cache_clear()
    torch.manual_seed(3)
    usable = usable_precision(precision, CPU)
    assert (usable == precision) == (speed_up(PRECISIONS[precision]) > 1)
    drawn = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(4))


@pytest.mark.parametrize(
    'wrong',
    [
        {'steps': 0},
        {'optimiser': 'rmsprop'},
        {'learning_rate': 0.0},
        {'averaging': 1.0},
        {'precision': 'fp8'},
        {'rates': 0.1},
        {'rates': {'inner': 'slow'}},
        {'rates': {'inner': -1}},
        {'schedule': 'step'},
        {'momentum': 1.0},
        {'final_share': -0.1},
        {'clip_gradient': -1.0},
        {'save_every_steps': 0},
    ],
)
def test_settings_of_no_use_are_refused(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        FitSettings(**{'steps': 1, **wrong})


def test_the_docs_name_all_settings_of_a_fit_and_their_choices():
    docs = (Path(__file__).parents[2] / 'docs' / 'training.md').read_text()
    named = re.search(r'^`fit`: (.*?)\. The', docs, re.DOTALL | re.MULTILINE)
    written = [
        f'`{name}`' + (f' ({", ".join(f"`{choice}`" for choice in each.choices)})' if each.choices else '')
        for name, each in descriptions(FitSettings).items()
    ]
    assert ' '.join(named[1].split()) == ', '.join(written)


def test_a_gradient_that_is_no_number_at_any_scale_is_no_step():
    module = nn.Linear(1, 1)
    descent = Descent(module, settings(1000, precision='fp16'), CPU, 'fp16')
    before, taken = module.weight.detach().clone(), 0
    while descent.step(taken, (0 * module.weight).sum().sqrt()):  # 0, and its slope is no number
        taken += 1
    assert 10 < taken < 100  # its scale is halved each time
    assert torch.equal(module.weight, before)


def test_tensorboard_gets_every_step(tmp_path):
    events = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    fit(LineStage(), settings(5), tmp_path, CPU)
    found = events.EventAccumulator(str(tmp_path / 'tensorboard' / 'line')).Reload().Scalars('loss')
    assert [event.step for event in found] == list(range(5))
    assert [event.value for event in found] == pytest.approx(curve(tmp_path))
