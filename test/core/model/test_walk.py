"""The one walk over a model's stages that checks and calibration share."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vss_ros.core.engines import load_engine
from vss_ros.core.frame import Frame
from vss_ros.core.model.folder import load_model
from vss_ros.core.model.walk import walk
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.core.stream.segmenter import VideoSegmenter

pytest.importorskip('onnxruntime')


def of(folder):
    model = load_model(folder)
    return model, load_engine(model, EngineSettings('onnxruntime'))


def stages(model, engine, images, **settings):
    return [visit.stage for visit in walk(model, images, engine.run, **settings)]


def test_a_walk_gives_what_a_stream_gives(tiny_model, street):
    model, engine = of(tiny_model)
    segmenter = VideoSegmenter(model, engine, StreamSettings(correction_interval=2))
    expected = [segmenter.step(Frame(image, n * 50_000_000)) for n, image in enumerate(street[:5])]
    found = [visit.given for visit in walk(model, street[:5], engine.run) if 'mask' in visit.given]
    assert [bool(result.is_key) for result in expected] == [True, False, False, False, False]
    for one, other in zip(found, expected, strict=True):
        assert one['confidence'].mean() == pytest.approx(other.confidence.mean(), abs=1)
        share = float((one['corrected'] if 'corrected' in one else np.float32(0)).item())
        assert share == pytest.approx(other.corrected_share or 0)


def test_every_stage_is_seen_with_the_tensors_that_the_model_names(tiny_model, street):
    model, engine = of(tiny_model)
    for stage, taken, given in walk(model, street[:3], engine.run):
        for tensors, specs in ((taken, model.graphs[stage].inputs), (given, model.graphs[stage].outputs)):
            assert {name: array.shape for name, array in tensors.items()} == {
                name: spec.shape for name, spec in specs.items()
            }


def test_key_frames_come_again_where_they_are_asked_for(tiny_model, street):
    model, engine = of(tiny_model)
    propagated, carried = ['warp', 'correction'], ['carry']
    assert stages(model, engine, street[:4]) == ['segmenter', *carried, *propagated, *carried]
    assert stages(model, engine, street[:4], key_every=2) == 2 * ['segmenter', *carried]


def test_a_model_without_carried_step_propagates_every_frame_between(tiny_model, street):
    model, engine = of(tiny_model)
    steps = {name: model.steps[name] for name in ('key', 'propagated')}
    model = dataclasses.replace(model, steps=steps)
    assert stages(model, engine, street[:3]) == ['segmenter', *2 * ['warp', 'correction']]


def test_a_model_that_does_not_propagate_sees_key_frames_only(tiny_model, street):
    model, engine = of(tiny_model)
    in_full = dataclasses.replace(model, steps={'key': model.steps['key']}, state={})
    assert stages(in_full, engine, street[:3]) == 3 * ['segmenter']


@pytest.mark.parametrize('delay', [1, 2])
def test_a_model_whose_results_are_late_is_started_once(late_models, delay):
    model, engine = of(late_models[delay])
    images = [np.full((*model.image_size, 3), 10 * (n + 1), np.uint8) for n in range(4)]
    assert stages(model, engine, images, key_every=2) == ['start', *4 * ['echo']]
    masks = [
        visit.given['mask'][0, 0, 0] for visit in walk(model, images, engine.run) if visit.stage == 'echo'
    ]
    assert masks == [10] * (delay + 1) + [10 * (n + 1) for n in range(1, 4 - delay)]
