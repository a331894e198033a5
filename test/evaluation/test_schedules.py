"""Accuracy against cost of schedules."""

from __future__ import annotations

import hashlib
import json

import pytest

from vss_ros.cli.main import main
from vss_ros.core.errors import SettingsError
from vss_ros.core.metrics import ConfusionMatrix
from vss_ros.core.model.cost import graph_costs, step_macs
from vss_ros.core.model.folder import MODEL_FILE
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.sources.synthetic import SyntheticSource
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
