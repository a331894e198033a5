"""What the adaptive scheduler is taught, and the command that writes it into a model."""

from __future__ import annotations

import dataclasses
import shutil
from argparse import Namespace

import cv2
import numpy as np
import pytest
import yaml

from vss_ros.calibration.enough import LEAST_CORRECTED, LEAST_PROPAGATED
from vss_ros.calibration.scheduler import Samples, collect, cross_validate, fit, quality
from vss_ros.cli import calibrate
from vss_ros.cli.main import main
from vss_ros.core.engines import load_engine
from vss_ros.core.errors import ModelError, SourceError
from vss_ros.core.model.accuracy_model import SIGNALS, AccuracyModel
from vss_ros.core.model.folder import MODEL_FILE, load_model
from vss_ros.core.settings import EngineSettings
from vss_ros.core.sources.synthetic import SyntheticSource
from vss_ros.evaluation.variants import in_full

SIZE = {'height': 64, 'width': 96}


@pytest.fixture(scope='module')
def model(tiny_model):
    pytest.importorskip('onnxruntime')
    return load_model(tiny_model)


@pytest.fixture(scope='module')
def engine(model):
    return load_engine(model, EngineSettings('onnxruntime', threads=1))


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


def test_samples_are_the_propagated_frames_against_the_same_in_full(model, engine):
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
    from vss_ros.cli.calibrate_scheduler import _clips, drives

    for kind in ('images', 'labels'):
        (tmp_path / kind).mkdir()
    for number in range(6):
        [still] = SyntheticSource(number, 1, **SIZE)
        cv2.imwrite(str(tmp_path / 'images' / f'a_{number}.png'), still.image)
        cv2.imwrite(str(tmp_path / 'labels' / f'a_{number}.png'), still.truth)
    args = Namespace(sources=['synthetic:1x2'], stills=tmp_path, clips=12, span=2, frames=2)
    vars(args).update(dict.fromkeys(('rate', 'labels', 'topic', 'mask_topic')))
    numbers = [number for number, _ in _clips(args, drives(args, load_model(tiny_model), 1.0, 2))]
    assert numbers == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


def test_what_cannot_be_calibrated_is_refused(model, engine):
    with pytest.raises(SourceError, match=r'2 propagated frames .* with --frames, .* \(30 or more beside'):
        collect(model, engine, [(0, SyntheticSource(1, 3, **SIZE))], span=8)
    with pytest.raises(ModelError, match='computes every frame in full'):
        collect(in_full(model), engine, [], span=8)


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
    ('words', 'frames'),
    [
        (['street.mp4', '--frames', '30'], 28),
        (['street.mp4', '--frames', '8', '--span', '4'], 6),
        (['synthetic:1x9', 'synthetic:2x20'], 26),
    ],
)
def test_what_cannot_be_enough_is_refused_before_a_frame_is_read(
    tiny_model, tmp_path, capsys, monkeypatch, words, frames
):
    monkeypatch.setattr('vss_ros.core.engines.load_engine', lambda *_: pytest.fail('too late'))
    monkeypatch.chdir(tmp_path)
    writer = cv2.VideoWriter('street.mp4', cv2.VideoWriter_fourcc(*'mp4v'), 10, (96, 64))
    for frame in SyntheticSource(1, 40, **SIZE):
        writer.write(frame.image)
    writer.release()
    assert main(['calibrate', str(tiny_model), *words, '--dry-run']) == 2
    error = capsys.readouterr().err
    assert f'{frames} propagated frames are too few to fit to; give more frames with --frames' in error
    assert '30 or more beside the key frames' in error


def test_all_sources_are_opened_before_the_first_is_read(tiny_model, capsys, monkeypatch):
    monkeypatch.setattr('vss_ros.core.engines.load_engine', lambda *_: pytest.fail('too late'))
    assert main(['calibrate', str(tiny_model), 'synthetic:1x99', 'no-such.mp4', '--dry-run']) == 2
    assert 'no-such.mp4 does not exist' in capsys.readouterr().err


def test_the_help_says_how_many_frames_it_takes():
    for least in (LEAST_PROPAGATED, LEAST_CORRECTED):
        assert f'takes {least} frames or more beside the key frames' in ' '.join(calibrate.__doc__.split())


@pytest.mark.parametrize(
    ('words', 'message'),
    [([], 'there is nothing to fit to'), (['synthetic:1x9', '--span', '1'], 'span is 1; use 2 or more')],
)
def test_a_calibration_without_sense_is_one_line_and_code_2(tiny_model, capsys, words, message):
    assert main(['calibrate', str(tiny_model), *words]) == 2
    assert message in capsys.readouterr().err
