"""Accuracy against cost of schedules, and what the scheduler is taught."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from argparse import Namespace

import cv2
import numpy as np
import pytest
import yaml

from vss_ros.cli.main import main
from vss_ros.core.errors import ModelError, SettingsError, SourceError
from vss_ros.core.metrics import ConfusionMatrix
from vss_ros.core.model.accuracy_model import SIGNALS, AccuracyModel
from vss_ros.core.model.cost import graph_costs, step_macs
from vss_ros.core.model.folder import MODEL_FILE, load_model
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.sources.synthetic import SyntheticSource
from vss_ros.evaluation.calibrate import Samples, collect, cross_validate, fit, quality
from vss_ros.evaluation.evaluate import evaluate
from vss_ros.evaluation.schedules import ScheduleProtocol
from vss_ros.evaluation.subjects import load_subjects

SIZE = {'height': 64, 'width': 96}
NEVER = StreamSettings(scheduler='adaptive', key_frame_threshold=0.0, max_interval=4)
ALWAYS = StreamSettings(scheduler='adaptive', key_frame_threshold=1.0, min_interval=1)


class Street:
    name = 'street'

    def frames(self, before, after=0):
        return iter(enumerate(SyntheticSource(5, 8, **SIZE)))


@pytest.fixture(scope='module')
def report(subjects):
    protocol = ScheduleProtocol(
        subjects, subjects[0].model.classes, [StreamSettings(4), StreamSettings(1), NEVER, ALWAYS]
    )
    evaluate([Street()], [protocol])
    return protocol.report(subjects[0])


def test_every_schedule_has_its_share_of_key_frames_and_its_cost(subjects, report):
    shares = {name: found['key_share_percent'] for name, found in report.items()}
    assert shares == {'every 4': 25.0, 'every 1': 100.0, 'adaptive 0': 25.0, 'adaptive 1': 100.0}
    model = subjects[0].model
    macs = {step: count / 1e9 for step, count in step_macs(model.steps, graph_costs(model)).items()}
    assert report['every 1']['gmac_per_frame'] == pytest.approx(macs['key'])
    assert report['every 4']['gmac_per_frame'] == pytest.approx(macs['key'] / 4 + macs['propagated'] * 3 / 4)


def test_schedules_that_choose_the_same_frames_score_the_same(report):
    assert report['every 4']['miou_percent'] == report['adaptive 0']['miou_percent']
    assert report['every 1']['miou_percent'] == report['adaptive 1']['miou_percent']
    assert report['every 1']['miou_percent'] != report['every 4']['miou_percent']


def test_a_schedule_scores_what_its_stream_gives(subjects, report):
    matrix = ConfusionMatrix(len(subjects[0].model.classes))
    stream = subjects[0].stream(4)
    for frame in SyntheticSource(5, 8, **SIZE):
        [answer] = stream.answers(frame)
        matrix.update(frame.truth, answer.segmentation.mask)
    assert report['every 4']['miou_percent'] == pytest.approx(100 * matrix.miou(), abs=1e-3)


def test_of_frames_in_regions_those_are_counted_that_were_computed_in_full(tiny_model):
    [subject] = load_subjects(
        [str(tiny_model)], [EngineSettings(threads=1)], StreamSettings(regions='2x1'), False, False
    )
    once = step_macs(subject.model.steps, graph_costs(subject.model))
    macs = {step: 2 * count / 1e9 for step, count in once.items()}
    assert subject.gmacs == macs
    protocol = ScheduleProtocol([subject], subject.model.classes, [StreamSettings(4)])
    protocol.start_clip('street')
    stream = protocol._streams[subject.name, 0]
    for number, frame in enumerate(SyntheticSource(5, 8, **SIZE)):
        if number == 2:
            stream._segmenters[0].request_key_frame()
        protocol.take(number, frame)
    found = protocol.report(subject)['every 4']
    # The left one at 0, 2 and 6, the right one at 0 and 4.
    assert found['key_share_percent'] == pytest.approx(100 * 5 / 16, abs=0.01)
    assert found['gmac_per_frame'] == pytest.approx(macs['key'] * 5 / 16 + macs['propagated'] * 11 / 16)


def test_the_command_scores_regions_and_says_so(tiny_model, tmp_path, capsys):
    words = ['evaluate', 'synthetic:5x8', '--model', str(tiny_model), '--threads', '1', '--no-plots']
    words += ['--distances', '0', '3', '--warp-only', '--regions', '2x2', '-o', str(tmp_path / 'out')]
    assert main(words) == 0
    rows = json.loads((tmp_path / 'out' / 'report.json').read_text())['rows']
    assert [row['regions'] for row in rows] == ['2x2', '2x2']
    assert rows[0]['distance']['3']['miou_percent'] != rows[1]['distance']['3']['miou_percent']
    assert main([*words[:-2], '--background-delay-frames', '2']) == 2
    assert 'background_key_frames is true and regions is 2x2' in capsys.readouterr().err


def test_what_was_counted_can_be_taken_up_again(subjects, report):
    schedules = [StreamSettings(4), NEVER]
    first = ScheduleProtocol(subjects, subjects[0].model.classes, schedules)
    evaluate([Street()], [first])
    second = ScheduleProtocol(subjects, subjects[0].model.classes, schedules)
    second.add(first.arrays())
    assert second.report(subjects[0]) == first.report(subjects[0])


def test_models_without_key_frames_are_refused(subjects):
    with pytest.raises(SettingsError, match='no model here has key frames to schedule'):
        ScheduleProtocol(subjects[2:], subjects[0].model.classes, [NEVER])
    with pytest.raises(SettingsError, match='there is no schedule to score'):
        ScheduleProtocol(subjects, subjects[0].model.classes, [])


def test_the_command_reports_and_draws_the_schedules(tiny_model, tmp_path, capsys):
    pytest.importorskip('matplotlib')
    words = ['evaluate', 'synthetic:5x8', '--model', str(tiny_model), '--protocol', 'schedules']
    words += ['--intervals', '2', '4', '--thresholds', '0.5', '--threads', '1', '-o', str(tmp_path / 'out')]
    assert main(words) == 0
    [row] = json.loads((tmp_path / 'out' / 'report.json').read_text())['rows']
    assert list(row['schedules']) == ['every 2', 'every 4', 'adaptive 0.5']
    settings = [
        (each['key_frame_interval'], each['key_frame_threshold']) for each in row['schedules'].values()
    ]
    assert settings == [(2, None), (4, None), (None, 0.5)]
    assert row['sha256'] == hashlib.sha256((tiny_model / MODEL_FILE).read_bytes()).hexdigest()
    assert (tmp_path / 'out' / 'schedules.png').stat().st_size > 1000
    assert 'adaptive 0.5' in capsys.readouterr().out
    assert 'Schedules of key frames' in (tmp_path / 'out' / 'report.html').read_text()


def made(count=400, clips=4, seed=0):
    """Frames whose accuracy follows from path and residual exactly; the other signals are noise."""
    rng = np.random.default_rng(seed)
    signals = rng.uniform(0, 1, (count, len(SIGNALS)))
    truth = AccuracyModel(3.0, {'path': -2.0, 'residual': -1.0})
    rows = [dict(zip(SIGNALS, row, strict=True)) for row in signals]
    accuracy = np.array([truth.predict(row) for row in rows])
    return Samples(tuple(SIGNALS), signals, accuracy, np.arange(count) * clips // count)


def test_the_fit_finds_the_weights_behind_the_samples():
    found = fit(made())
    assert found.bias == pytest.approx(3.0, abs=0.1)
    assert found.weights['path'] == pytest.approx(-2.0, abs=0.1)
    assert found.weights['residual'] == pytest.approx(-1.0, abs=0.1)
    assert all(abs(weight) < 0.1 for name, weight in found.weights.items() if name in ('age', 'corrected'))


def test_a_signal_never_speaks_for_a_frame():
    samples = made()
    turned = dataclasses.replace(samples, accuracy=1 - samples.accuracy)
    assert all(weight <= 0 for weight in fit(turned).weights.values())
    assert 'path' not in fit(turned).weights


@pytest.mark.parametrize('clips', [1, 4])
def test_what_was_not_fitted_to_is_predicted_well_only_by_what_tells_of_it(clips):
    samples = made(clips=clips)
    told, untold = (
        quality(samples, cross_validate(samples, names)) for names in (['path', 'residual'], ['age'])
    )
    assert told['correlation'] > 0.98
    assert untold['correlation'] < 0.2
    assert told['mean_error_percent'] < untold['mean_error_percent'] / 3


def test_signals_that_never_change_do_no_harm():
    samples = made()
    samples.signals[:, samples.names.index('age')] = 1.0
    assert np.isfinite(fit(samples).bias)


def test_samples_are_the_propagated_frames_against_the_same_in_full(subjects):
    model, engine = subjects[0].model, subjects[0].engine
    clips = [(number, SyntheticSource(seed, 20, **SIZE)) for number, seed in ((0, 1), (2, 2))]
    samples = collect(model, engine, clips, span=8)
    assert len(samples.accuracy) == 2 * (20 - 3)  # a key frame every eight
    assert samples.names == tuple(SIGNALS)
    assert set(samples.signals[:, 0]) == set(range(1, 8))  # ages
    assert (samples.accuracy > 0).all()
    assert (samples.accuracy < 1).any()
    assert set(samples.clip) == {0, 2}


def test_drives_into_the_same_stills_are_left_out_together(tiny_model, tmp_path):
    pytest.importorskip('torch')
    from vss_ros.cli.calibrate_scheduler import _clips

    for kind in ('images', 'labels'):
        (tmp_path / kind).mkdir()
    for number in range(6):
        [still] = SyntheticSource(number, 1, **SIZE)
        cv2.imwrite(str(tmp_path / 'images' / f'a_{number}.png'), still.image)
        cv2.imwrite(str(tmp_path / 'labels' / f'a_{number}.png'), still.truth)
    args = Namespace(sources=['synthetic:1x2'], stills=tmp_path, clips=12, span=2, frames=2)
    vars(args).update(dict.fromkeys(('rate', 'labels', 'topic', 'mask_topic')))
    numbers = [number for number, _ in _clips(args, load_model(tiny_model))]
    assert numbers == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


def test_what_cannot_be_calibrated_is_refused(subjects):
    model, engine = subjects[0].model, subjects[0].engine
    with pytest.raises(SourceError, match='2 propagated frames are too few'):
        collect(model, engine, [(0, SyntheticSource(1, 3, **SIZE))], span=8)
    with pytest.raises(ModelError, match='computes every frame in full'):
        collect(subjects[2].model, engine, [], span=8)


def test_the_command_writes_weights_and_leaves_the_rest_as_it_was(tiny_model, tmp_path, capsys):
    folder = tmp_path / 'm'
    shutil.copytree(tiny_model, folder)
    before = (folder / MODEL_FILE).read_text()
    words = ['calibrate', str(folder), 'synthetic:1x36', '--frames', '36', '--span', '8', '--threads', '1']
    assert main([*words, '--dry-run']) == 0
    assert (folder / MODEL_FILE).read_text() == before
    for _ in range(2):  # the second time in place of the first
        assert main(words) == 0
    text = (folder / MODEL_FILE).read_text()
    assert text.startswith(before)
    entry = yaml.safe_load(text)['expected_accuracy']
    assert (entry['fitted_on'], entry['frames']) == (['synthetic:1x36'], 31)
    assert dict(load_model(folder).expected_accuracy.weights) == entry['weights']
    shown = capsys.readouterr().out
    assert 'on clips that were not fitted to' in shown
    assert f'written: {folder / MODEL_FILE}' in shown


@pytest.mark.parametrize(
    ('words', 'message'),
    [([], 'there is nothing to fit to'), (['synthetic:1x9', '--span', '1'], 'span is 1; use 2 or more')],
)
def test_a_calibration_without_sense_is_one_line_and_code_2(tiny_model, capsys, words, message):
    assert main(['calibrate', str(tiny_model), *words]) == 2
    assert message in capsys.readouterr().err
