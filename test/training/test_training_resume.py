"""A run that is resumed is compared with what it was before."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import yaml

from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.training.recipe import load_recipe
from vss_ros.training.trainer import Trainer

NAMES = ['free', 'taken', 'sky', 'road']


@pytest.fixture
def labelled_folder(tmp_path):
    rng = np.random.default_rng(0)
    for part in ('images', 'labels'):
        (tmp_path / 'yard' / part).mkdir(parents=True)
    for number in range(2):
        image = cv2.GaussianBlur(rng.integers(0, 255, (64, 96, 3)).astype(np.uint8), (0, 0), 3)
        cv2.imwrite(str(tmp_path / 'yard' / 'images' / f'a_{number}.png'), image)
        cv2.imwrite(str(tmp_path / 'yard' / 'labels' / f'a_{number}.png'), image[..., 0] // 64)
    return tmp_path / 'yard'


def segmenter_run(tmp_path, folder, steps, resume, names=NAMES, **changes):
    """A short training with a class file."""
    entries = [{'name': name, 'colour': [20 * number, 0, 0]} for number, name in enumerate(names)]
    (tmp_path / 'mine.yaml').write_text(yaml.safe_dump({'classes': entries}))
    fit = {'steps': steps, 'precision': 'fp32'}
    content = {
        'method': 'evss-lite',
        'classes': str(tmp_path / 'mine.yaml'),
        'image': {'height': 64, 'width': 96},
        'held_out': 0,
        'stages': {'segmenter': {'fit': fit, 'sampling': {'batch': 2}, 'shares': {'yard': 1}}},
        **changes,
    }
    (tmp_path / 'tiny.yaml').write_text(yaml.safe_dump(content, sort_keys=False))
    trainer = Trainer(load_recipe(str(tmp_path / 'tiny.yaml')), {'yard': folder}, tmp_path / 'run')
    trainer.run(torch.device('cpu'), resume, lambda *_: None)


def test_a_run_whose_classes_have_changed_is_not_resumed(tmp_path, labelled_folder):
    segmenter_run(tmp_path, labelled_folder, 1, False)
    kept = (tmp_path / 'run' / 'recipe.yaml').read_text()
    with pytest.raises(SettingsError, match=r'know the classes free, taken, sky, road, .* now has road, sky'):
        segmenter_run(tmp_path, labelled_folder, 2, True, names=NAMES[::-1])
    assert (tmp_path / 'run' / 'recipe.yaml').read_text() == kept
    segmenter_run(tmp_path, labelled_folder, 2, True)


def test_a_run_whose_data_or_start_has_changed_is_warned_of(tmp_path, labelled_folder, caplog):
    start = {'csrnet.stem': 'camvid-evss-lite/csrnet.stem'}
    segmenter_run(tmp_path, labelled_folder, 1, False, start=start)
    label = next((labelled_folder / 'labels').iterdir())
    cv2.imwrite(str(label), 3 - cv2.imread(str(label), cv2.IMREAD_GRAYSCALE))
    kept = tmp_path / 'run' / 'origins.yaml'
    kept.write_text(kept.read_text().replace('camvid-evss-lite, csrnet.stem', 'another, csrnet.stem'))
    segmenter_run(tmp_path, labelled_folder, 1, True, start=start)
    assert 'what it is made of is not that of the run before: start.csrnet.stem, data.yard' in caplog.text
    caplog.clear()
    segmenter_run(tmp_path, labelled_folder, 1, True, start=start)
    assert 'run before' not in caplog.text


def test_a_run_of_an_earlier_version_is_told_to_go_on_with_other_clips(tmp_path, labelled_folder, caplog):
    segmenter_run(tmp_path, labelled_folder, 1, False)
    (tmp_path / 'run' / 'origins.yaml').unlink()
    segmenter_run(tmp_path, labelled_folder, 2, True)
    assert 'is of an earlier version, which drew its clips otherwise' in caplog.text


@pytest.mark.parametrize('content', ['5', '{classes: 3}', 'classes: {names: [free'])
def test_damaged_origins_of_a_run_are_told_or_warned_of(tmp_path, labelled_folder, caplog, content):
    segmenter_run(tmp_path, labelled_folder, 1, False)
    (tmp_path / 'run' / 'origins.yaml').write_text(content)
    if content.endswith('free'):
        with pytest.raises(SettingsError, match=r'remove .*origins\.yaml to go on without comparing'):
            segmenter_run(tmp_path, labelled_folder, 1, True)
    else:
        segmenter_run(tmp_path, labelled_folder, 1, True)
        assert 'what it is made of is not that of the run before' in caplog.text


def test_a_resume_that_fails_does_not_forget_what_it_was_to_go_on_with(tmp_path, labelled_folder):
    segmenter_run(tmp_path, labelled_folder, 1, False)
    kept = (tmp_path / 'run' / 'recipe.yaml').read_text()
    with pytest.raises(ModelError, match='cannot be resumed from'):
        segmenter_run(tmp_path, labelled_folder, 2, True, options={'backbone': 'csrnet'})
    assert (tmp_path / 'run' / 'recipe.yaml').read_text() == kept
