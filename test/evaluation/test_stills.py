"""`vss evaluate --stills`: drives into labelled stills."""

from __future__ import annotations

import json
import re
import shutil

import cv2
import numpy as np
import pytest
import yaml

from vss_ros.cli.main import main
from vss_ros.core.model.folder import load_model
from vss_ros.core.sources.synthetic import SyntheticSource

pytest.importorskip('torch')


@pytest.fixture(scope='module')
def stills(tmp_path_factory):
    """Ten stills of a drive, of which only the last two know more than the class 0."""
    folder = tmp_path_factory.mktemp('stills') / 'train'
    for part in ('images', 'labels'):
        (folder / part).mkdir(parents=True)
    for number in range(10):
        seen = next(iter(SyntheticSource(number, 1, height=64, width=96)))
        truth = seen.truth if number >= 8 else np.zeros_like(seen.truth)
        cv2.imwrite(str(folder / f'images/a_{number:03d}.png'), seen.image)
        cv2.imwrite(str(folder / f'labels/a_{number:03d}.png'), truth)
    return folder


def run(*words):
    return main(['evaluate', *[str(word) for word in words], '--threads', '1'])


def test_what_training_kept_aside_is_driven_into_and_scored_at_every_distance(tiny_model, stills, tmp_path):
    words = ('--stills', stills, '--clips', 3, '--held-out', 0.2, '--model', tiny_model, '--no-plots')
    assert run(*words, '--distances', 0, 2, '-o', tmp_path / 'report') == 0
    report = json.loads((tmp_path / 'report' / 'report.json').read_text())
    assert report['data']['name'] == '3 drives into the last 0.2 of the stills of train'
    assert report['data']['clips'] == 3
    (row,) = report['rows']
    assert [row['distance'][distance]['frames'] for distance in ('0', '2')] == [18, 18]
    pixels = row['distance']['0']['iou_percent']
    assert sum(iou is not None for iou in pixels.values()) > 3


def test_it_is_said_what_of_a_model_was_fitted_to_these_stills(tiny_model, stills, tmp_path, caplog):
    folder = shutil.copytree(tiny_model, tmp_path / 'fitted')
    description = yaml.safe_load((folder / 'model.yaml').read_text())
    fitted_on = ['60 drives into the last 0.2 of the stills of train']
    description['training'] = {'recipe': 'x', 'confidence': {'fitted_on': fitted_on}}
    (folder / 'model.yaml').write_text(yaml.safe_dump(description))
    words = ('--stills', stills, '--clips', 1, '--held-out', 0.2, '--distances', 0, '--no-plots')
    with caplog.at_level('WARNING'):
        assert run(*words, '--model', tiny_model, '-o', tmp_path / 'one') == 0
        assert 'fitted' not in caplog.text
        rows = ('--warp-only', '--per-frame', '--engine', 'onnxruntime', '--engine', 'torch')
        assert run(*words, '--model', folder, *rows, '-o', tmp_path / 'two') == 0
    assert caplog.text.count('its confidence was fitted to stills of train') == 1


def test_a_run_on_stills_is_not_taken_up_again_with_other_labels(
    tiny_model, stills, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr('vss_ros.evaluation.evaluate.Checkpoint.remove', lambda self: None)
    own = shutil.copytree(stills, tmp_path / 'train')
    words = ('--stills', own, '--clips', 2, '--held-out', 0.2, '--model', tiny_model, '--no-plots')
    words += ('--protocol', 'distance', '--distances', 0, '-o', tmp_path / 'out', '--overwrite', '--resume')
    assert run(*words) == run(*words) == 0
    label = own / 'labels' / 'a_009.png'
    cv2.imwrite(str(label), np.zeros_like(cv2.imread(str(label), cv2.IMREAD_UNCHANGED)))
    capsys.readouterr()
    assert run(*words) == 2
    assert 'was made with other models, data or settings' in capsys.readouterr().err


def test_drives_depend_on_their_number_and_their_stills_only(tiny_model, stills):
    from vss_ros.training.driven_stills import drives_into

    model = load_model(tiny_model)
    few, many = (drives_into(stills, model, 0.2, clips, 4) for clips in (2, 6))
    assert [clip.group for clip in many] == [0, 0, 0, 1, 1, 1]
    by_name = {clip.name: clip for clip in many}
    for clip in few:
        for (number, frame), (same, other) in zip(clip.frames(), by_name[clip.name].frames(), strict=True):
            assert number == same
            assert np.array_equal(frame.image, other.image)
            assert np.array_equal(frame.truth, other.truth)
    images = [frame.image for clip in many for _, frame in clip.frames()]
    assert len({image.tobytes() for image in images}) == len(images) == 24


def test_frames_that_are_scored_at_all_distances_lie_next_to_the_still(tiny_model, stills):
    from vss_ros.training.driven_stills import drives_into

    model = load_model(tiny_model)
    forwards, backwards = (drives_into(stills, model, 0.2, 2, 6, way)[0] for way in (False, True))
    images, back = ([frame.image for _, frame in clip.frames()] for clip in (forwards, backwards))
    assert all(np.array_equal(*pair) for pair in zip(images, back[::-1], strict=True))


def test_drives_that_are_fitted_to_go_one_way_and_the_other_in_turn(tiny_model, stills):
    from vss_ros.training.driven_stills import drives_into

    model = load_model(tiny_model)
    found, forwards, backwards = (drives_into(stills, model, 0.2, 4, 3, way) for way in (None, False, True))

    def first_images(clips):
        return [next(clip.frames())[1].image for clip in clips]

    expected = zip(first_images(forwards), first_images(backwards), strict=True)
    for index, (image, (ahead, back)) in enumerate(zip(first_images(found), expected, strict=True)):
        assert np.array_equal(image, back if index % 2 else ahead)


def test_stills_stand_beside_other_data(tiny_model, stills, tmp_path):
    words = ('--model', tiny_model, '--protocol', 'deployment', '--no-plots', '-o', tmp_path / 'report')
    assert run('synthetic:3x2', '--stills', stills, '--clips', 1, '--distances', 0, *words) == 0
    data = json.loads((tmp_path / 'report' / 'report.json').read_text())['data']
    assert data['name'] == 'synthetic:3x2, 1 drives into the last 0.1 of the stills of train'
    assert data['clips'] == 2


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'name DATA, or labelled stills with --stills'),
        (['--stills', 'no/such/folder'], 'has no images'),
        (['--stills', 'HERE', '--held-out', '0'], 'held_out is 0.0; use a share above 0'),
        (['--stills', 'HERE', '--held-out', '0.01'], '0.01 of each drive in .* is less than one image'),
        (['--stills', 'HERE', '--clips', '0'], 'clips is 0; use 1 or more'),
    ],
)
def test_stills_that_cannot_be_used_are_answered_in_one_line(tiny_model, stills, capsys, words, message):
    words = [str(stills) if word == 'HERE' else word for word in words]
    assert run(*words, '--model', tiny_model) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count('\n') == 1
