"""`vss evaluate --against`: truth from a model where nobody labelled."""

from __future__ import annotations

import json
import operator
from dataclasses import replace

import cv2
import numpy as np
import pytest

from vss_ros.cli.main import main
from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import SettingsError
from vss_ros.core.model.folder import load_model
from vss_ros.core.settings import EngineSettings
from vss_ros.evaluation.data import open_data
from vss_ros.evaluation.reference import judged_by
from vss_ros.evaluation.subjects import load_reference

ENGINE = EngineSettings(threads=1)


@pytest.fixture
def unlabelled(tmp_path, street):
    """A folder of images, and nothing else."""
    folder = tmp_path / 'drive'
    folder.mkdir()
    for index, image in enumerate(street[:6]):
        cv2.imwrite(str(folder / f'{index:03}.png'), image)
    return folder


def run(*words):
    return main(['evaluate', *[str(word) for word in words], '--threads', '1'])


def test_every_frame_is_scored_and_a_model_agrees_with_itself_where_it_computes_all(
    unlabelled, tiny_model, tmp_path
):
    words = ('--model', tiny_model, '--against', tiny_model, '--per-frame', '--no-plots')
    schedule = ('--protocol', 'deployment', '--key-frame-interval', 3)
    assert run(unlabelled, *words, *schedule, '-o', tmp_path / 'report') == 0
    report = json.loads((tmp_path / 'report' / 'report.json').read_text())
    assert report['data']['truth'] == 'masks of tiny, every frame in full'
    model, per_frame = (row['deployment'] for row in report['rows'])
    assert (per_frame['all']['frames'], per_frame['all']['miou_percent']) == (6, 100)
    assert (model['key']['frames'], model['key']['miou_percent']) == (2, 100)
    assert model['between']['frames'] == 4
    assert model['between']['miou_percent'] < 100


def test_masks_take_the_place_of_labels_frame_by_frame(subjects, tiny_model):
    model = subjects[0].model
    data = open_data(['synthetic:3x4'])
    judged = judged_by(data, load_reference(str(tiny_model), ENGINE, model))
    (clip,) = judged.clips
    assert operator.length_hint(clip) == 4
    plain = list(data.clips[0].frames(None))
    found = list(clip.frames(0))
    assert [number for number, _ in found] == [number for number, _ in plain]
    per_frame = subjects[2].stream(1)
    for (_, frame), (_, labelled) in zip(found, plain, strict=True):
        assert np.array_equal(frame.image, labelled.image)
        (answer,) = per_frame.answers(labelled)
        assert np.array_equal(frame.truth, answer.segmentation.mask)
        assert not np.array_equal(frame.truth, labelled.truth)


@pytest.mark.parametrize('delay', [1, 3])
def test_a_reference_whose_results_are_late_still_judges_every_frame(late_models, delay):
    path = str(late_models[delay])
    data = open_data(['synthetic:3x5'])
    judged = judged_by(data, load_reference(path, ENGINE, load_model(path)))
    found = list(judged.clips[0].frames(None))
    assert [number for number, _ in found] == [0, 1, 2, 3, 4]
    stamps = [frame.stamp_ns for _, frame in data.clips[0].frames(None)]
    assert [frame.stamp_ns for _, frame in found] == stamps
    assert all(frame.truth is not None for _, frame in found)


def test_labels_and_a_reference_exclude_each_other(unlabelled, tiny_model, capsys):
    assert run(unlabelled, '--model', tiny_model, '--against', tiny_model, '--labels', unlabelled) == 2
    assert '--against takes the place of labels' in capsys.readouterr().err


def test_a_reference_of_other_classes_is_refused(subjects, tiny_model):
    model = subjects[0].model
    names = ('background', *model.classes.names[1:])
    others = ClassSet('others', names, model.classes.colours)
    with pytest.raises(SettingsError, match='tiny is for camvid11, tiny for others'):
        load_reference(str(tiny_model), ENGINE, replace(model, classes=others))
