"""The loop on a stage small enough to reason about, and on evss-lite itself."""

from __future__ import annotations

import json
import resource
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vss_ros.core.errors import ModelError, OutputError, SettingsError
from vss_ros.training import checkpoint, step_log
from vss_ros.training.loop import DivergedError, FitSettings, fit
from vss_ros.training.step_log import StepLog, read_log

CPU = torch.device('cpu')


class LineStage:
    """Fits y = 2 x - 1; from step `breaks_at` on, the data is not a number."""

    name, size = 'line', 16

    def __init__(self, breaks_at=10**9):
        torch.manual_seed(0)
        self.module, self.breaks_at = nn.Linear(1, 1), breaks_at

    def batch(self, step, samples=None):
        x = np.random.default_rng(step).normal(size=(16, 1)).astype(np.float32)
        return {'x': x * (np.nan if step >= self.breaks_at else 1), 'y': 2 * x - 1}

    def losses(self, batch):
        return {'squared': (self.module(batch['x']) - batch['y']).square().mean()}

    def validate(self, average):
        return {'weight': average.weight.item()}


def settings(steps, **changes):
    defaults = {'learning_rate': 0.05, 'weight_decay': 0.0, 'warmup_steps': 2, 'averaging': 0.9}
    return FitSettings(steps, **{**defaults, 'precision': 'fp32', 'save_every_steps': 10, **changes})


def curve(folder, name='line'):
    lines = [json.loads(line) for line in (folder / f'{name}.jsonl').read_text().splitlines()]
    return {line['step']: line['loss'] for line in lines if 'loss' in line}


def test_training_lowers_the_loss_and_leaves_the_averaged_weights(tmp_path):
    stage = LineStage()
    fit(stage, settings(150), tmp_path, CPU)
    losses = curve(tmp_path)
    assert list(losses) == list(range(150))
    assert losses[149] < 0.01 * losses[0]
    assert stage.module.weight.item() == pytest.approx(2, abs=0.1)
    assert not stage.module.training


def test_a_resumed_run_repeats_the_curve_of_an_unbroken_one(tmp_path):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    fit(LineStage(), settings(30), whole, CPU)

    class Stopped(Exception):
        pass

    def stop(step, values):
        if step == 17:
            raise Stopped

    with pytest.raises(Stopped):
        fit(LineStage(), settings(30), broken, CPU, report=stop)
    resumed = LineStage()
    fit(resumed, settings(30), broken, CPU, resume=True)
    assert curve(broken) == curve(whole)


def test_without_resume_a_run_starts_over(tmp_path):
    fit(LineStage(), settings(20), tmp_path, CPU)
    first = curve(tmp_path)
    fit(LineStage(), settings(20), tmp_path, CPU)
    assert curve(tmp_path) == first


def test_a_finished_run_resumed_keeps_its_weights(tmp_path):
    stage, again = LineStage(), LineStage()
    fit(stage, settings(20), tmp_path, CPU)
    fit(again, settings(20), tmp_path, CPU, resume=True)
    assert torch.equal(stage.module.weight, again.module.weight)


def scores(folder):
    lines = [json.loads(line) for line in (folder / 'line.jsonl').read_text().splitlines()]
    return [line for line in lines if 'loss' not in line]


def test_a_run_stopped_during_its_last_validation_is_validated_when_it_is_resumed(tmp_path):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    fit(LineStage(), settings(20), whole, CPU)
    stage = LineStage()
    stage.validate = lambda average: 1 / (not (broken / 'line.safetensors').exists())
    with pytest.raises(ZeroDivisionError):
        fit(stage, settings(20, save_every_steps=20), broken, CPU)
    assert scores(broken) == []
    for _ in range(2):
        fit(LineStage(), settings(20), broken, CPU, resume=True)
        assert scores(broken) == scores(whole)[-1:]


def test_a_line_of_the_log_that_a_crash_cut_off_is_dropped(tmp_path):
    fit(LineStage(), settings(20), tmp_path, CPU)
    before = curve(tmp_path)
    with (tmp_path / 'line.jsonl').open('a') as log:
        log.write('{"step": 20, "lo')
    fit(LineStage(), settings(20), tmp_path, CPU, resume=True)
    assert curve(tmp_path) == before


@pytest.mark.parametrize('line', [b'\xff', b'[' * 9999, b'{"st'])
def test_a_log_counts_up_to_a_line_that_cannot_be_read(tmp_path, line):
    (tmp_path / 'line.jsonl').write_bytes(b'{"step": 0, "loss": 2}\n' + line)
    assert read_log(tmp_path / 'line.jsonl') == [{'step': 0, 'loss': 2}]


@pytest.mark.parametrize('line', ['5', '{"loss": 1}', '{"step": "7"}', '{"step": 7, "loss": "x"}'])
def test_a_log_with_a_line_of_something_else_is_refused(tmp_path, line):
    (tmp_path / 'line.jsonl').write_text('{"step": 0, "loss": 2}\n' + line + '\n')
    with pytest.raises(SettingsError, match=r'line\.jsonl is damaged in line 2'):
        read_log(tmp_path / 'line.jsonl')


def test_a_loss_that_is_no_number_stops_the_run_and_saves_the_batch(tmp_path):
    stage = LineStage(breaks_at=5)
    with pytest.raises(DivergedError, match='step 5'):
        fit(stage, settings(20), tmp_path, CPU)
    with np.load(tmp_path / 'line-diverged-5.npz') as saved:
        assert np.isnan(saved['x']).all()
    assert torch.isfinite(stage.module.weight).all()


class SteepStage(LineStage):
    """Learns nothing but at step `steep_at`, where the loss is as ever and its gradient is slope squared."""

    def __init__(self, steep_at, slope):
        super().__init__()
        self.steep_at, self.slope = steep_at, slope

    def batch(self, step, samples=None):
        return {**super().batch(step), 'slope': np.float32([self.slope if step == self.steep_at else 0])}

    def losses(self, batch):
        weight, slope = self.module.weight, batch['slope']
        steep = (weight - weight.detach()) * slope * slope
        return {'squared': super().losses(batch)['squared'].detach(), 'steep': steep.sum()}


@pytest.mark.parametrize('clip_gradient', [10.0, 0.0])
def test_a_gradient_that_is_no_number_stops_the_run_at_its_batch(tmp_path, clip_gradient):
    stage = SteepStage(steep_at=9, slope=1e30)
    with pytest.raises(DivergedError, match=r'the gradient of line is no number at step 9; .*--resume'):
        fit(stage, settings(20, clip_gradient=clip_gradient), tmp_path, CPU)
    with np.load(tmp_path / 'line-diverged-9.npz') as saved:
        assert saved['slope'] == 1e30
    assert torch.isfinite(stage.module.weight).all()
    assert not (tmp_path / 'line.safetensors').exists()


@pytest.mark.parametrize('last', [20, 40])
@pytest.mark.parametrize(
    ('slope', 'what'), [(1e9, 'a weight'), (3e5, 'the loss after the update')], ids=['no number', 'too large']
)
def test_weights_of_no_use_never_replace_a_good_checkpoint(tmp_path, last, slope, what):
    rates = {'optimiser': 'sgd', 'clip_gradient': 0.0, 'schedule': 'tenth'}
    fit(SteepStage(99, 0), settings(10, **rates), tmp_path, CPU)
    with pytest.raises(DivergedError, match=f'{what} of line is no number at step 19; .*--resume'):
        fit(SteepStage(19, slope), settings(last, **rates, learning_rate=1e25), tmp_path, CPU, resume=True)
    assert checkpoint.steps_taken(tmp_path / 'line.safetensors') == 10
    again = LineStage()
    fit(again, settings(last, **rates), tmp_path, CPU, resume=True)
    assert torch.isfinite(again.module.weight).all()


def test_a_damaged_checkpoint_is_refused_with_advice(tmp_path):
    (tmp_path / 'line.safetensors').write_bytes(b'nothing')
    with pytest.raises(ModelError, match='--runs'):
        fit(LineStage(), settings(20), tmp_path, CPU, resume=True)


@pytest.mark.parametrize('notes', [None, {'computes_in': 'bf16'}], ids=['no notes', 'half of them'])
def test_a_checkpoint_whose_notes_are_lost_is_refused_with_advice(tmp_path, notes):
    save_file({'x': torch.zeros(1)}, tmp_path / 'line.safetensors', notes)
    with pytest.raises(ModelError, match='--runs'):
        fit(LineStage(), settings(20), tmp_path, CPU, resume=True)


@pytest.mark.parametrize(
    'wrong', [{'step': '-3'}, {'step': '9' * 30}, {'computes_in': 'fp7'}, {'asked_for': 'fp7'}]
)
def test_a_checkpoint_with_notes_of_no_sense_is_refused_with_advice(tmp_path, wrong):
    path = tmp_path / 'line.safetensors'
    fit(LineStage(), settings(10), tmp_path, CPU)
    notes = {'step': '10', 'computes_in': 'fp32', 'asked_for': 'fp32', **wrong}
    save_file(load_file(path), path, notes)
    with pytest.raises(ModelError, match=r'(step|precision) is .*--runs'):
        fit(LineStage(), settings(20), tmp_path, CPU, resume=True)


def test_a_checkpoint_with_damaged_tensors_is_refused_with_advice(tmp_path):
    path = tmp_path / 'line.safetensors'
    fit(LineStage(), settings(10), tmp_path, CPU)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r'its tensors are not those that were written.*--runs'):
        fit(LineStage(), settings(20), tmp_path, CPU, resume=True)


def test_a_checkpoint_of_an_earlier_version_is_resumed_from(tmp_path):
    now, earlier = tmp_path / 'now', tmp_path / 'earlier'
    fit(LineStage(), settings(10), now, CPU)
    shutil.copytree(now, earlier)
    path = earlier / 'line.safetensors'
    tensors = {
        name.replace('optimiser/weight', 'optimiser/0').replace('optimiser/bias', 'optimiser/1'): tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, {'step': '10', 'computes_in': 'fp32', 'asked_for': 'fp32'})
    for folder in (now, earlier):
        fit(LineStage(), settings(20), folder, CPU, resume=True)
    assert curve(earlier) == curve(now)
    assert list(curve(now)) == list(range(20))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    fit(LineStage(), settings(10), tmp_path, CPU)
    other = LineStage()
    other.module = nn.Linear(3, 1)
    with pytest.raises(ModelError, match='cannot be resumed') as error:
        fit(other, settings(10), tmp_path, CPU, resume=True)
    assert '\n' not in str(error.value)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / 'a.safetensors'
    checkpoint.write_tensors(path, {'x': torch.ones(2)}, {})
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError('disk full')

    monkeypatch.setattr(checkpoint, 'save_file', fail)
    with pytest.raises(OSError, match='disk full'):
        checkpoint.write_tensors(path, {'x': torch.zeros(2)}, {})
    assert path.read_bytes() == before


def test_a_full_disk_is_an_error_of_the_system_and_leaves_no_draft(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match='File too large'):
            checkpoint.write_tensors(tmp_path / 'a.safetensors', {'x': torch.ones(1000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_log_that_does_not_fit_on_the_disk_is_told_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(step_log, '_board', lambda *_: None)  # TensorBoard writes in a thread of its own
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = StepLog(tmp_path, 'line', 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OutputError, match=f'{tmp_path} cannot be written: File too large'):
            log.write(0, {'loss': 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_rate_warms_up_and_falls_to_zero():
    fitting = FitSettings(100, learning_rate=1.0, warmup_steps=10)
    rates = [fitting.rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[99] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)
