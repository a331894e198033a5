"""Temperatures fitted to labelled clips, and the command that writes a model with them."""

from __future__ import annotations

import dataclasses
import shutil

import cv2
import numpy as np
import pytest
import torch
import yaml

from vss_ros.calibration.confidence import (
    Samples,
    best_temperature,
    collect,
    cross_validate,
    fit,
    quality,
)
from vss_ros.calibration.watched import told_of_calls
from vss_ros.cli.main import main
from vss_ros.core.engines import load_engine
from vss_ros.core.errors import SourceError
from vss_ros.core.model.folder import MODEL_FILE, load_model
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.sources.synthetic import SyntheticSource
from vss_ros.core.stream.segmenter import VideoSegmenter
from vss_ros.evaluation.deciding import temperature_at
from vss_ros.evaluation.measures import Calibration
from vss_ros.exporting.weights import load_method

SIZE = {'height': 64, 'width': 96}
TRUE = [1.6, 0.7, 1.2, 2.5]
CLIPS = ['synthetic:1x24', 'synthetic:2x24']
ONCE = ['--frames', '24', '--span', '4', '--threads', '1']


def drawn(per_age=8000, classes=6, clips=4):
    """Pixels whose truth has the shares softmax(scores / temperature) with the temperatures TRUE by age."""
    rng = np.random.default_rng(0)
    age = np.repeat(np.arange(len(TRUE)), per_age)
    scores = rng.normal(0, 3, (len(age), classes)).astype(np.float32)
    noise = rng.gumbel(size=scores.shape)
    truth = (scores / temperature_at(TRUE, age)[:, None] + noise).argmax(1).astype(np.uint8)
    return Samples(scores, truth, age, np.arange(len(age)) % clips)


def test_the_temperatures_behind_the_samples_are_found():
    assert fit(drawn()) == pytest.approx(TRUE, rel=0.05)


@pytest.mark.parametrize('clips', [1, 4])
def test_what_was_not_fitted_to_gets_a_confidence_that_is_right(clips):
    samples = drawn(clips=clips)
    if clips == 1:  # the folds are stretches, which should hold every age
        samples = samples.of(np.random.default_rng(1).permutation(len(samples.age)))
    before, after = (quality(samples, t) for t in (np.ones(len(samples.age)), cross_validate(samples)))
    assert before.ece_percent > 5
    assert after.ece_percent < 1
    assert after.nll < before.nll


def test_the_likelihood_is_least_at_the_temperature_that_is_found():
    samples = drawn().of(np.arange(8000))
    found = best_temperature(samples)
    nlls = [quality(samples, np.full(8000, each * found)).nll for each in (0.8, 1, 1.25)]
    assert nlls[1] < min(nlls[0], nlls[2])


def test_quality_is_that_of_the_formulas():
    scores = np.log(np.array([[0.8, 0.2], [0.8, 0.2], [0.4, 0.6]], np.float32))
    samples = Samples(scores, np.array([0, 1, 1], np.uint8), np.zeros(3, int), np.zeros(3, int))
    found = quality(samples, np.ones(3))
    assert found.nll == pytest.approx(-np.log(0.8 * 0.2 * 0.6) / 3, abs=1e-4)
    # Bins of equal width: two pixels at 0.8, half of them right, and one at 0.6 that is right.
    assert found.ece_percent == pytest.approx(100 * (2 * 0.3 + 0.4) / 3, abs=1e-3)


def test_scores_without_an_end_to_their_temperature_get_the_highest_or_lowest():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 3, (5000, 4)).astype(np.float32)
    same = {'age': np.zeros(5000, int), 'clip': np.zeros(5000, int)}
    always, never = (each(1).astype(np.uint8) for each in (scores.argmax, scores.argmin))
    assert best_temperature(Samples(scores, always, **same)) == pytest.approx(0.2, rel=0.01)
    assert best_temperature(Samples(scores, never, **same)) == pytest.approx(5.0, rel=0.01)


def test_an_age_with_few_pixels_gets_what_lies_between_its_neighbours():
    samples = drawn()
    few = samples.of((samples.age != 1) | (np.arange(len(samples.age)) % 1000 == 0))
    found = fit(few)
    assert found[1] == pytest.approx((found[0] + found[2]) / 2, abs=1e-3)
    assert found[2] == fit(samples)[2]


def test_samples_are_labelled_pixels_of_every_age_with_the_scores_behind_the_mask(tiny_model):
    model = load_model(tiny_model)
    samples = collect(model, [(7, SyntheticSource(1, 30, **SIZE))], span=6)
    assert samples.scores.shape == (len(samples.truth), 11)
    assert set(samples.age) == set(range(6))
    assert set(samples.clip) == {7}
    engine = load_engine(model, EngineSettings('onnxruntime', threads=1))
    segmenter = VideoSegmenter(model, engine, StreamSettings(6))
    calibration = Calibration(11)
    for frame in list(SyntheticSource(1, 30, **SIZE))[:6]:  # the first segment has its full length
        found = segmenter.step(frame)
        calibration.update(frame.truth, found.mask, found.confidence)
    right = samples.scores.argmax(1) == samples.truth
    first = right[: 6 * 1500]
    pixels, hits = calibration.counts.sum(0)
    assert first.mean() == pytest.approx(hits / pixels, abs=0.03)


def test_a_model_whose_frames_are_all_computed_in_full_has_one_temperature(tmp_path):
    from vss_ros.exporting.export import export
    from vss_ros.methods import build_method

    method = build_method('per-frame', 11, {'backbone': 'lite'})
    model = export(method, tmp_path / 'm', name='m', class_set='camvid11', image_size=(64, 96))
    assert len(fit(collect(model, [(0, SyntheticSource(1, 4, **SIZE))], span=4))) == 1


@pytest.fixture(scope='module')
def scheduled(tiny_model, tmp_path_factory):
    """The tiny model with weights of the adaptive scheduler."""
    folder = tmp_path_factory.mktemp('models') / 'scheduled'
    shutil.copytree(tiny_model, folder)
    content = yaml.safe_load((folder / MODEL_FILE).read_text())
    entry = {'bias': 1.0, 'weights': {'doubt': -1.0}}
    (folder / MODEL_FILE).write_text(yaml.safe_dump({**content, 'expected_accuracy': entry}))
    return folder


@pytest.fixture(scope='module')
def calibrated(scheduled):
    """The same calibrated by the command."""
    folder = scheduled.parent / 'calibrated'
    assert main(['calibrate', str(scheduled), *CLIPS, '--confidence', *ONCE, '-o', str(folder)]) == 0
    return folder


def test_the_command_writes_a_model_with_the_same_masks_and_a_better_confidence(scheduled, calibrated):
    masks, eces = [], []
    for model in map(load_model, (scheduled, calibrated)):
        engine = load_engine(model, EngineSettings('onnxruntime', threads=1))
        segmenter, calibration = VideoSegmenter(model, engine, StreamSettings(4)), Calibration(11)
        for frame in SyntheticSource(3, 16, **SIZE):  # not one of those that were fitted to
            found = segmenter.step(frame)
            calibration.update(frame.truth, found.mask, found.confidence)
            masks.append(found.mask)
        eces.append(calibration.ece())
    assert np.array_equal(masks[:16], masks[16:])
    assert eces[1] < eces[0] / 2


def test_what_was_fitted_is_noted_and_all_else_of_the_model_is_kept(scheduled, calibrated):
    old, new = load_model(scheduled), load_model(calibrated)
    assert len(new.options['temperatures']) == 4
    assert {**old.options, 'temperatures': new.options['temperatures']} == new.options
    notes = new.training['confidence']
    assert notes['fitted_on'] == CLIPS
    assert notes['ece_percent_after'] < notes['ece_percent_before']
    assert new.weights.read_bytes() == old.weights.read_bytes()
    assert old.expected_accuracy is not None
    assert new.expected_accuracy is None  # it rests on the confidence


def test_a_calibrated_model_comes_out_the_same_if_it_is_calibrated_again(calibrated, tmp_path):
    words = [*CLIPS, '--confidence', *ONCE, '-o', str(tmp_path / 'again')]
    assert main(['calibrate', str(calibrated), *words]) == 0
    once, again = load_model(calibrated), load_model(tmp_path / 'again')
    assert once.options == again.options
    assert once.graphs['correction'].sha256 == again.graphs['correction'].sha256


def test_a_dry_run_says_what_it_would_be_worth_and_writes_nothing(scheduled, capsys):
    before = sorted(scheduled.parent.rglob('*'))
    assert main(['calibrate', str(scheduled), *CLIPS, '--confidence', *ONCE, '--dry-run']) == 0
    assert 'on clips that were not fitted to' in capsys.readouterr().out
    assert sorted(scheduled.parent.rglob('*')) == before


def test_stills_are_those_that_training_kept_aside(tiny_model, tmp_path, capsys):
    """Only what is kept aside may be read: the other labels are of no class."""
    stills = tmp_path / 'stills'
    for part in ('images', 'labels'):
        (stills / part).mkdir(parents=True)
    for frame in range(10):
        seen = next(iter(SyntheticSource(frame, 1, **SIZE)))
        truth = seen.truth if frame >= 8 else np.full_like(seen.truth, 255)
        cv2.imwrite(str(stills / f'images/a_{frame:03d}.png'), seen.image)
        cv2.imwrite(str(stills / f'labels/a_{frame:03d}.png'), truth)
    words = ['calibrate', str(tiny_model), '--confidence', '--stills', str(stills), '--clips', '4', *ONCE]
    assert main([*words, '--held-out', '0.2', '--dry-run']) == 0
    out = capsys.readouterr().out
    assert ' labelled pixels of 2 clips or groups of stills' in out
    assert main([*words, '--held-out', '0.01', '--dry-run']) == 2
    assert '0.01 of each drive in' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['synthetic:1x9', '--confidence'], 'name a folder for the model with -o'),
        (['--confidence', '--dry-run'], 'there is nothing to fit to'),
        (['synthetic:1x9', '--confidence', '--dry-run', '--engine', 'onnxruntime'], 'leave --engine out'),
        (['synthetic:1x9', '--confidence', '--dry-run', '--held-out', '0'], 'held_out is 0.0; use a share'),
        (
            ['synthetic:1x9', '-o', 'somewhere'],
            '-o, --held-out, --layout and --split go with --confidence or',
        ),
        (['synthetic:1x9', '--split', 'train'], '--layout and --split go with --confidence or'),
        (['no-such.mp4', '--confidence', '--dry-run'], 'no-such.mp4 does not exist'),
    ],
)
def test_a_calibration_of_the_confidence_without_sense_is_one_line_and_code_2(
    tiny_model, capsys, words, message
):
    assert main(['calibrate', str(tiny_model), *words]) == 2
    assert message in capsys.readouterr().err


def test_the_part_of_a_data_set_that_is_fitted_to_must_be_named(tiny_model, tmp_path, capsys):
    """Otherwise it would be the one that `vss evaluate` takes."""
    for split in ('train', 'test'):
        for folder in (split, f'{split}annot'):
            (tmp_path / folder).mkdir()
            cv2.imwrite(str(tmp_path / folder / '0016E5_07959.png'), np.zeros((64, 96), np.uint8))
    words = ['calibrate', str(tiny_model), str(tmp_path), '--confidence', '--dry-run', *ONCE]
    assert main(words) == 2
    assert 'test is one part of a data set; name the part to fit to' in capsys.readouterr().err
    main([*words, '--split', 'train'])
    assert 'name the part' not in capsys.readouterr().err


def test_a_folder_that_is_no_model_is_refused_before_anything_is_fitted(tiny_model, tmp_path, capsys):
    (tmp_path / 'notes.txt').write_text('mine')
    words = ['calibrate', str(tiny_model), 'no-such.mp4', '--confidence', '-o', str(tmp_path), *ONCE]
    assert main(words) == 2
    assert 'is there and is no model folder' in capsys.readouterr().err


@pytest.mark.parametrize('is_data_set', [False, True])
def test_clips_without_any_label_are_refused_before_the_model_runs(
    tiny_model, tmp_path, capsys, monkeypatch, is_data_set
):
    monkeypatch.setattr(VideoSegmenter, 'answers', lambda *_: pytest.fail('the model has run'))
    frames = [tmp_path / f'0001TP/{number:06d}.png' for number in range(1880, 1890)]
    files, words = frames, [str(frames[0].parent)]
    if is_data_set:  # whose first label, of frame 1889, is beyond the frames that are asked for
        files = [*frames, tmp_path / 'LabeledApproved_full/0001TP_008550_L.png']
        words = [str(tmp_path), '--split', 'test', '--frames', '9']
    for file in files:
        file.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(file), np.zeros((64, 96, 3), np.uint8))
    assert main(['calibrate', str(tiny_model), *words, '--confidence', '--dry-run']) == 2
    assert 'there are too few labelled pixels to fit the confidence to; give' in capsys.readouterr().err


def test_labels_beside_images_that_are_none_are_refused_before_the_model_runs(tiny_model, tmp_path, capsys):
    for file in ('images/1.png', 'labels/1.png'):
        (tmp_path / file).parent.mkdir()
        cv2.imwrite(str(tmp_path / file), np.zeros((64, 96, 3), np.uint8))  # colours are no ids
    assert main(['calibrate', str(tiny_model), str(tmp_path), '--confidence', '--dry-run']) == 2
    assert '1.png is no label' in capsys.readouterr().err


def test_clips_without_labels_are_refused_with_what_to_give(tiny_model):
    blind = [dataclasses.replace(frame, truth=None) for frame in SyntheticSource(1, 5, **SIZE)]
    with pytest.raises(SourceError, match='too few labelled pixels'):
        collect(load_model(tiny_model), [(0, blind)], span=4)


def test_a_method_whose_calls_were_told_is_as_it_was(tiny_model):
    method = load_method(load_model(tiny_model))
    scores, told = torch.zeros(1, 11, 4, 6), []
    with told_of_calls(method, 'decided', lambda *given: told.append(given)):
        assert set(method.decided(scores, (16, 24))) == {'mask', 'confidence'}
    method.decided(scores, (16, 24))
    assert told == [(scores, (16, 24))]
