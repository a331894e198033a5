"""How well a frame is expected to be propagated, and the key frames that follow from it."""

from __future__ import annotations

import dataclasses
import math
import shutil

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vss_ros.core.engines import load_engine
from vss_ros.core.errors import ModelError
from vss_ros.core.frame import Frame
from vss_ros.core.model.accuracy_model import NEEDS, SIGNALS, AccuracyModel
from vss_ros.core.model.folder import MODEL_FILE, load_model
from vss_ros.core.motion import dis
from vss_ros.core.motion.dis import cells_of
from vss_ros.core.motion.followed import difference
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.stream.expected_accuracy import Expectation
from vss_ros.core.stream.segmenter import VideoSegmenter

ADAPTIVE = StreamSettings(scheduler='adaptive', key_frame_threshold=0.5, min_interval=1)
FALLING = AccuracyModel(2.5, {'age': -1.0})  # 0.82, 0.62, 0.38: a key frame every third


def frames(images):
    return [Frame(image, number * 10**8) for number, image in enumerate(images)]


def predicting(model, bias, **weights):
    return dataclasses.replace(model, expected_accuracy=AccuracyModel(bias, weights))


def line_of(found):
    return ''.join('K' if each.is_key else '.' for each in found)


def test_the_prediction_is_the_logistic_function_of_the_weighted_signals():
    model = AccuracyModel(1.0, {'age': -0.5, 'path': 2.0})
    signals = {'age': 4.0, 'path': 0.25, 'residual': 99.0}
    assert model.predict(signals) == pytest.approx(1 / (1 + math.exp(0.5)))


@pytest.mark.parametrize('bias', [-20.0, -7.0, 7.0, 20.0])
def test_predictions_near_the_ends_are_told_apart(bias):
    assert AccuracyModel(bias, {}).predict({}) == pytest.approx(1 / (1 + math.exp(-bias)), rel=1e-9)


@given(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30))
def test_the_prediction_is_a_share_however_large_the_signals(bias, weight):
    assert 0 <= AccuracyModel(bias, {'age': weight}).predict({'age': 1000.0}) <= 1


def test_a_flow_that_is_not_a_number_promises_nothing_and_makes_a_key_frame(model, engine, street):
    segmenter = VideoSegmenter(predicting(model, 3.0, path=-1.0), engine, ADAPTIVE)
    real = segmenter._motion

    class NotANumber:
        def update(self, *arguments, **options):
            flow = real.update(*arguments, **options)
            return None if flow is None else np.full_like(flow, np.nan)

        def __getattr__(self, name):
            return getattr(real, name)

    assert line_of(map(segmenter.step, frames(street[:3]))) == 'K..'
    segmenter._motion = NotANumber()
    assert segmenter.step(Frame(street[3], 3 * 10**8)).is_key
    assert math.isnan(AccuracyModel(3.0, {'path': -1.0}).predict({'path': math.nan}))


@pytest.mark.parametrize(
    ('changes', 'ages'),
    [
        ({}, [0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2]),
        (
            {'max_key_share': 0.25, 'key_share_window': 8, 'key_frame_threshold': 1.0},
            [0, 1, 1, 2, 3, 4, 5, 6, 7, 1, 1, 2],
        ),
    ],
    ids=['where they are due', 'within the budget'],
)
def test_adaptive_key_frames_come_in_the_background_as_they_do_beside_it(
    model, engine, street, changes, ages
):
    settings = dataclasses.replace(ADAPTIVE, background_key_frames=True, background_delay_frames=1, **changes)
    falling = dataclasses.replace(model, expected_accuracy=FALLING)
    segmenter = VideoSegmenter(falling, engine, settings)
    try:
        assert [segmenter.step(frame).age_frames for frame in frames(street[:12])] == ages
    finally:
        segmenter.close()


def test_signals_of_a_shift_are_its_length_and_what_the_flow_does_not_explain(model):
    """A picture that moves by two cells: the true flow explains it, no flow does not."""
    height, width = model.image_size
    rng = np.random.default_rng(0)
    wide = cv2.resize(rng.integers(0, 255, (height // 8, width // 8 + 2, 3), np.uint8), (width + 16, height))
    before, now = wide[:, :width], wide[:, 8 : width + 8]
    shift = np.zeros((1, 2, height // 4, width // 4), np.float32)
    shift[:, 0] = 2.0
    found = {}
    for name, flow in (('true', shift), ('none', 0 * shift)):
        follower = Expectation(predicting(model, 0.0, path=1.0, residual=1.0))
        follower.note(before, True, True, lambda name: np.full(1, 200, np.uint8))
        follower.look(now, lambda name, flow=flow: flow)
        found[name] = dict(follower.signals)
    assert found['true']['path'] == pytest.approx(2 / (width / 4))
    assert found['none']['path'] == 0
    assert 4 * found['true']['residual'] < found['none']['residual']
    assert found['none']['residual'] == pytest.approx(cv2.absdiff(*map(cells_of, (now, before))).mean() / 255)
    assert found['true']['age'] == found['none']['age'] == 1


def test_what_a_prediction_was_made_from_stays_as_it_was_then(model):
    follower = Expectation(predicting(model, 0.0, age=1.0, doubt=1.0))
    image = np.zeros((*model.image_size, 3), np.uint8)
    follower.note(image, True, True, lambda name: np.full(1, 255, np.uint8))
    follower.look(image, pytest.fail)
    follower.note(image, False, True, lambda name: np.full(1, 51, np.uint8))
    assert (follower.seen['age'], follower.seen['doubt']) == (1, 0)
    assert follower.signals['doubt'] == pytest.approx(0.8)


def test_a_stream_is_looked_at_after_its_flow_or_else_after_its_first_stage(model):
    for stages, expected in [
        (('flow', 'warp', 'correction'), 'flow'),
        (('warp', 'flow', 'correction'), 'flow'),
        (('warp', 'correction'), 'warp'),
    ]:
        changed = predicting(model, 0.0, age=-1.0)
        changed = dataclasses.replace(changed, steps={**model.steps, 'propagated': stages})
        assert Expectation(changed).stage == expected


def test_signals_add_up_from_frame_to_frame_and_begin_anew_with_a_key_frame(model):
    follower = Expectation(predicting(model, 0.0, path=1.0, doubt=1.0, corrected=1.0))
    image = np.zeros((*model.image_size, 3), np.uint8)
    flow = np.full((1, 2, model.image_size[0] // 4, model.image_size[1] // 4), 3.0, np.float32)
    results = {'confidence': np.full((1, 4, 4), 204, np.uint8), 'corrected': np.float32(0.25)}
    follower.note(image, True, True, lambda name: np.full(1, 255, np.uint8))
    for _ in range(3):
        follower.look(image, lambda name: flow)
        follower.note(image, False, True, results.__getitem__)
    length = math.hypot(3, 3) / (model.image_size[1] // 4)
    assert follower.signals['path'] == pytest.approx(3 * length)
    assert follower.signals['doubt'] == pytest.approx(0.2)
    assert follower.signals['corrected'] == 0.25
    follower.note(image, True, True, results.__getitem__)
    assert set(follower.signals.values()) == {0.0}


def test_after_a_key_frame_of_the_background_the_signals_are_those_of_a_stream_that_began_with_it(model):
    rng, (height, width) = np.random.default_rng(0), model.image_size
    images = rng.integers(0, 256, (4, height, width, 3), np.uint8)
    flows = [np.full((1, 2, height // 4, width // 4), length, np.float32) for length in range(4)]
    confident = dict(enumerate(np.uint8([255, 230, 210, 200])))
    predicting_all = predicting(model, 0.0, age=1.0, path=1.0, residual=1.0, doubt=1.0)
    stream, beside = Expectation(predicting_all), Expectation(predicting_all)

    def go_on(follower, number, is_anchor):
        follower.look(images[number], lambda name: flows[number])
        follower.note(images[number], False, is_anchor, lambda name: confident[number])

    stream.note(images[0], True, True, lambda name: confident[0])
    go_on(stream, 1, is_anchor=True)
    stream.mark()
    go_on(stream, 2, is_anchor=True)
    beside.note(images[1], True, True, lambda name: np.uint8(240))  # that frame, computed in full
    go_on(beside, 2, is_anchor=False)
    stream.hand_over(lambda: np.uint8(240))
    assert stream.signals == pytest.approx(beside.signals)
    for follower in (stream, beside):
        go_on(follower, 3, is_anchor=True)
    assert stream.signals == pytest.approx(beside.signals)
    assert stream.signals['doubt'] == pytest.approx((240 - 200) / 255)
    assert stream.signals['path'] == pytest.approx(math.hypot(3, 3) / (width // 4))
    unexplained = difference(flows[3], cells_of(images[3]), cells_of(images[1]))
    assert stream.signals['residual'] == pytest.approx(unexplained.mean() / 255)


def test_what_was_corrected_behind_the_key_frame_before_says_nothing_after_one_of_the_background(model):
    follower = Expectation(predicting(model, 0.0, distortion=-1.0, corrected=-1.0))
    image = np.zeros((*model.image_size, 3), np.uint8)
    results = {'distortion': np.full((1, 1, 4, 4), 0.5, np.float32), 'corrected': np.float32(0.25)}
    follower.note(image, True, True, results.__getitem__)
    follower.mark()
    follower.note(image, False, True, results.__getitem__)
    assert (follower.signals['distortion'], follower.signals['corrected']) == (0.5, 0.25)
    follower.hand_over(lambda: np.full(1, 255, np.uint8))
    assert set(follower.signals.values()) == {0.0}


def test_key_frames_come_where_too_little_is_expected(model, engine, street):
    segmenter = VideoSegmenter(dataclasses.replace(model, expected_accuracy=FALLING), engine, ADAPTIVE)
    found = [segmenter.step(frame) for frame in frames(street[:7])]
    assert line_of(found) == 'K..K..K'
    assert [each.expected_accuracy is None for each in found] == [each.is_key for each in found]
    assert found[1].expected_accuracy == pytest.approx(1 / (1 + math.exp(-1.5)))


def test_a_frame_that_becomes_a_key_frame_is_as_if_it_had_been_one_from_the_start(
    model, engine, street, monkeypatch
):
    monkeypatch.setattr(dis, 'REACH', 0)  # but for its flow, which helps to find the next one
    adaptive = VideoSegmenter(dataclasses.replace(model, expected_accuracy=FALLING), engine, ADAPTIVE)
    fixed = VideoSegmenter(model, engine, StreamSettings(3))
    for frame in frames(street[:7]):
        one, other = adaptive.step(frame), fixed.step(frame)
        assert (one.is_key, one.age_frames) == (other.is_key, other.age_frames)
        assert np.array_equal(one.mask, other.mask)
        assert one.corrected_share == other.corrected_share


def test_a_cut_in_the_film_makes_a_key_frame_and_quiet_frames_make_none(model, engine, street):
    watching = predicting(model, 3.0, residual=-60.0)
    quiet = [street[0]] * 4
    cut = [np.ascontiguousarray(255 - street[5][::-1])] * 4
    segmenter = VideoSegmenter(watching, engine, ADAPTIVE)
    assert line_of([segmenter.step(frame) for frame in frames(quiet + cut)]) == 'K...K...'


def test_every_signal_of_a_real_stream_can_be_asked_for(model, engine, street):
    everything = AccuracyModel(0.0, dict.fromkeys(SIGNALS, 0.1))
    segmenter = VideoSegmenter(dataclasses.replace(model, expected_accuracy=everything), engine, ADAPTIVE)
    found = [segmenter.step(frame) for frame in frames(street[:5])]
    assert line_of(found) == 'K....'
    assert all(0.5 < each.expected_accuracy < 1 for each in found[1:])


def test_what_is_expected_is_the_same_with_an_engine_whose_tensors_are_not_arrays(model, engine, street):
    pytest.importorskip('torch')
    asked = predicting(model, 9.0, **dict.fromkeys(SIGNALS, -1.0))
    arrays, tensors = (
        VideoSegmenter(asked, each, ADAPTIVE)
        for each in (engine, load_engine(model, EngineSettings('torch')))
    )
    for frame in frames(street[:4]):
        expected, found = (segmenter.step(frame).expected_accuracy for segmenter in (arrays, tensors))
        assert found == (None if expected is None else pytest.approx(expected, abs=1e-3))
    assert expected is not None


def test_the_default_weights_serve_a_model_without_weights_of_its_own(model, engine, street):
    assert model.expected_accuracy is None
    segmenter = VideoSegmenter(model, engine, dataclasses.replace(ADAPTIVE, key_frame_threshold=0.01))
    found = [segmenter.step(frame) for frame in frames(street[:4])]
    assert line_of(found) == 'K...'
    assert all(0 < each.expected_accuracy < 1 for each in found[1:])


def test_a_scheduler_that_is_changed_follows_from_a_key_frame_on(model, engine, street):
    segmenter = VideoSegmenter(
        dataclasses.replace(model, expected_accuracy=FALLING), engine, StreamSettings(10)
    )
    stream = frames(street[:11])
    line = line_of([segmenter.step(frame) for frame in stream[:3]])
    segmenter.configure(ADAPTIVE)
    line += line_of([segmenter.step(frame) for frame in stream[3:8]])
    segmenter.configure(StreamSettings(3))
    line += line_of([segmenter.step(frame) for frame in stream[8:]])
    assert line == 'K..K..K..K.'


def test_what_does_not_decide_on_key_frames_may_change_without_one(model, engine, street):
    segmenter = VideoSegmenter(dataclasses.replace(model, expected_accuracy=FALLING), engine, ADAPTIVE)
    found = []
    for number, one in enumerate(frames(street[:8])):
        segmenter.configure(dataclasses.replace(ADAPTIVE, confidence_threshold=number / 100))
        found.append(segmenter.step(one))
    assert line_of(found) == 'K..K..K.'
    assert segmenter.settings.confidence_threshold == 0.07


def test_a_new_stream_starts_the_signals_anew(model, engine, street):
    segmenter = VideoSegmenter(dataclasses.replace(model, expected_accuracy=FALLING), engine, ADAPTIVE)
    stream = frames(street[:6])
    for frame in stream[:2]:
        segmenter.step(frame)
    segmenter.reset()
    assert line_of([segmenter.step(frame) for frame in stream[2:]]) == 'K..K'


@pytest.mark.parametrize('signal', NEEDS)
def test_a_signal_the_model_does_not_give_is_refused_by_name(model, engine, signal):
    poor = dataclasses.replace(
        model,
        steps={'key': ('segmenter',), 'propagated': ('segmenter', 'warp')},
        expected_accuracy=AccuracyModel(0.0, {signal: 1.0}),
    )
    with pytest.raises(ModelError, match=rf'needs {signal!r} .* but tiny gives no {NEEDS[signal]}; fit'):
        VideoSegmenter(poor, engine, ADAPTIVE)
    VideoSegmenter(poor, engine, StreamSettings())  # nobody asks


def test_a_change_that_is_refused_changes_nothing(model, engine, street):
    poor = dataclasses.replace(model, steps={'key': ('segmenter',), 'propagated': ('segmenter', 'warp')})
    segmenter = VideoSegmenter(poor, engine, StreamSettings(7))
    for change in (segmenter.check, segmenter.configure):
        with pytest.raises(ModelError, match='scheduler adaptive needs'):
            change(ADAPTIVE)
    segmenter.step(Frame(street[0], 0))
    assert segmenter.settings == StreamSettings(7)


def written(tiny_model, folder, entry):
    shutil.copytree(tiny_model, folder)
    content = yaml.safe_load((folder / MODEL_FILE).read_text())
    (folder / MODEL_FILE).write_text(yaml.safe_dump({**content, 'expected_accuracy': entry}))
    return folder


def test_the_weights_are_read_from_the_model_folder(tiny_model, tmp_path):
    entry = {'bias': 2, 'weights': {'age': -0.5}, 'fitted_on': 'a drive'}
    found = load_model(written(tiny_model, tmp_path / 'm', entry)).expected_accuracy
    assert found == AccuracyModel(2.0, {'age': -0.5}, {'fitted_on': 'a drive'})
    assert found.as_yaml() == entry


@pytest.mark.parametrize(
    ('entry', 'reason'),
    [
        ({'bias': 1, 'weights': {'weather': 1.0}}, 'there is no signal weather; use age, path'),
        ({'bias': float('nan'), 'weights': {}}, 'must be finite'),
        ({'bias': float('-inf'), 'weights': {}}, 'must be finite'),
        ({'bias': 1, 'weights': {'age': float('inf')}}, 'must be finite'),
        ({'bias': 1, 'weights': {'age': 'much'}}, 'could not convert string to float'),
        ({'weights': {}}, "no entry 'bias'"),
        ([1, 2], 'expected_accuracy is'),
    ],
)
def test_weights_that_cannot_be_used_are_refused_with_the_reason(tiny_model, tmp_path, entry, reason):
    with pytest.raises(ModelError, match=reason):
        load_model(written(tiny_model, tmp_path / 'm', entry))
