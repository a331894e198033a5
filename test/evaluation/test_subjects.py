"""Rows of the report: the model, warping alone, and every frame in full."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from vss_ros.core.engines import load_engine
from vss_ros.core.errors import PrecisionError, SettingsError
from vss_ros.core.frame import Frame
from vss_ros.core.model.cost import Cost
from vss_ros.core.model.folder import load_model
from vss_ros.core.motion.dis import DisMotion
from vss_ros.core.resize import fit, fit_labels
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.stream.segmenter import VideoSegmenter
from vss_ros.evaluation.deciding import decide
from vss_ros.evaluation.subjects import load_subjects

INTERVAL = 4


def step(stream, frame):
    [answer] = stream.answers(frame)
    return answer.segmentation


def frames_of(street):
    return [Frame(image, index * 10**8) for index, image in enumerate(street)]


def test_the_model_row_is_exactly_what_the_segmenter_gives(subjects, tiny_model, street):
    model = load_model(tiny_model)
    settings = StreamSettings(INTERVAL, max_frame_gap_s=float('inf'))
    segmenter = VideoSegmenter(model, load_engine(model, EngineSettings(threads=1)), settings)
    stream = subjects[0].stream(INTERVAL)
    for frame in frames_of(street):
        ours, theirs = step(stream, frame), segmenter.step(frame)
        assert np.array_equal(ours.mask, theirs.mask)
        assert ours.age_frames == theirs.age_frames


def test_warping_alone_carries_the_scores_of_the_key_frame_and_nothing_else(subjects, street):
    subject, stream, motion = subjects[1], subjects[1].stream(INTERVAL), DisMotion()
    for frame in frames_of(street)[:INTERVAL]:
        segmentation = step(stream, frame)
        flow = motion.update(frame.image, wanted=not segmentation.is_key)
        if segmentation.is_key:
            scores = subject.engine.run('segmenter', {'image': frame.image[None]})['scores']
            continue
        scores = subject.engine.run('warp', {'previous_scores': scores, 'flow': flow})['warped']
        expected, confidence = decide(scores[0], subject.model)
        assert np.array_equal(segmentation.mask, fit_labels(expected, frame.size))
        assert np.array_equal(segmentation.confidence, fit(confidence, frame.size))


def test_the_warped_mask_of_a_model_is_that_of_warping_alone_on_the_first_frame(subjects, street):
    model, warp_only, _ = (subject.stream(INTERVAL) for subject in subjects)
    for frame in frames_of(street)[:2]:
        full, warped = step(model, frame), step(warp_only, frame)
    assert not full.is_key
    assert np.array_equal(model.warped_mask(frame.size), warped.mask)
    assert not np.array_equal(model.warped_mask(frame.size), full.mask)


def test_a_key_frame_has_no_warped_mask_and_no_old_one(subjects, street):
    stream = subjects[0].stream(interval=2)
    found = []
    for frame in frames_of(street)[:4]:
        step(stream, frame)
        found.append(stream.warped_mask(frame.size) is not None)
    assert found == [False, True, False, True]


def test_per_frame_computes_every_frame_in_full(subjects, street):
    stream = subjects[2].stream(INTERVAL)
    assert all(step(stream, frame).is_key for frame in frames_of(street)[:3])


def test_without_correction_a_model_costs_less_and_in_full_it_costs_a_key_frame(subjects):
    pytest.importorskip('onnx')
    model, warp_only, per_frame = subjects
    assert warp_only.mean_gmacs(9) < model.mean_gmacs(9) < per_frame.mean_gmacs(9)
    assert per_frame.mean_gmacs(9) == pytest.approx(model.gmacs['key'])
    expected = (model.gmacs['key'] + 4 * model.gmacs['propagated']) / 5
    assert model.mean_gmacs(4) == pytest.approx(expected)


def test_flow_that_the_host_brings_costs_nothing(subjects):
    pytest.importorskip('onnx')
    model = subjects[0]
    with_flow = replace(
        model, model=replace(model.model, flow='network'), costs={**model.costs, 'flow': Cost(7 * 10**9, 0)}
    )
    propagated = model.gmacs['propagated']
    assert with_flow.gmacs['propagated'] == pytest.approx(propagated + 7)
    assert replace(with_flow, settings=StreamSettings(motion='dis')).gmacs['propagated'] == pytest.approx(
        propagated
    )


def test_where_every_nth_frame_is_corrected_all_rows_go_from_the_same_frames_and_the_model_costs_less(
    tiny_model, street
):
    every_third = StreamSettings(correction_interval=3)
    rows = load_subjects([str(tiny_model)], [EngineSettings(threads=1)], every_third, True, True)
    streams = [row.stream(interval=7) for row in rows]
    kinds = [[step(stream, frame).kind[0] for frame in frames_of(street)[:7]] for stream in streams]
    assert [''.join(row) for row in kinds] == ['kccpccp', 'kccpccp', 'kkkkkkk']
    pytest.importorskip('onnx')
    model, _, per_frame = rows
    assert model.mean_gmacs(6) == pytest.approx((model.gmacs['key'] + 2 * model.gmacs['propagated']) / 7)
    assert model.mean_gmacs(5) == pytest.approx((model.gmacs['key'] + model.gmacs['propagated']) / 6)
    assert per_frame.mean_gmacs(6) == pytest.approx(model.gmacs['key'])


def test_before_the_first_correction_a_model_carries_its_mask_to_where_warping_alone_carries_scores(
    tiny_model, street
):
    every_third = StreamSettings(correction_interval=3)
    rows = load_subjects([str(tiny_model)], [EngineSettings(threads=1)], every_third, True, False)
    model, warp_only = (row.stream(interval=7) for row in rows)
    for number, frame in enumerate(frames_of(street)[:4]):
        ours, theirs = step(model, frame), step(warp_only, frame)
        assert np.array_equal(ours.mask, theirs.mask) == (number == 0)
        if number < 3:
            assert np.mean(ours.mask == theirs.mask) > 0.8, 'but for outlines'
        assert (model.warped_mask(frame.size) is not None) == (number == 3)


def test_models_of_one_name_are_told_apart_by_their_folders(tiny_model, tmp_path):
    names = [str(tiny_model), str(shutil.copytree(tiny_model, tmp_path / 'copy'))]
    rows = load_subjects(names, [EngineSettings(threads=1)], StreamSettings(), True, False)
    models = [f'tiny ({name})' for name in names]
    assert [row.name for row in rows] == [row for name in models for row in (name, f'{name}, warp only')]


@pytest.mark.parametrize(
    ('times', 'engines', 'message'),
    [(2, ['auto'], 'is named twice'), (1, ['onnxruntime'] * 2, 'would be measured twice')],
)
def test_nothing_is_scored_twice(tiny_model, times, engines, message):
    settings = [EngineSettings(engine, threads=1) for engine in engines]
    with pytest.raises(SettingsError, match=message):
        load_subjects([str(tiny_model)] * times, settings, StreamSettings(), False, False)


def test_what_an_engine_does_not_compute_in_is_left_out_unless_nothing_is_left(tiny_model, caplog):
    def load(*precisions):
        engines = [EngineSettings('onnxruntime', precision, threads=1) for precision in precisions]
        return load_subjects([str(tiny_model)], engines, StreamSettings(), False, False)

    assert [row.name for row in load('bf16', 'fp32')] == ['tiny, onnxruntime fp32']
    assert 'left out: engine onnxruntime with provider cpu runs fp32 and int8' in caplog.text
    with pytest.raises(PrecisionError, match='precision is bf16'):
        load('bf16', 'fp16')
