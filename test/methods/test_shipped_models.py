"""The models that come with the package: whole, small enough, documented, and able to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from method_models import run_step

from vss_ros.core.model.folder import list_models, load_model
from vss_ros.core.sources.synthetic import SyntheticSource
from vss_ros.exporting.weights import load_method

MODELS = Path(__file__).parents[2] / 'models'
NAMES = sorted(folder.name for folder in MODELS.iterdir())


def test_all_of_them_are_found_by_name():
    assert set(NAMES) <= set(list_models())


def test_together_they_stay_below_60_megabytes_and_each_file_below_30():
    sizes = [file.stat().st_size for file in MODELS.rglob('*') if file.is_file()]
    assert sum(sizes) < 60e6
    assert max(sizes) < 30e6


@pytest.mark.parametrize('name', NAMES)
def test_each_is_what_its_description_says_and_has_a_card(name):
    model = load_model(MODELS / name, graphs=False)  # which checks the sha256 of every file
    assert model.name == name
    assert model.expected_accuracy is not None
    assert model.options['temperatures']
    card = (MODELS / name / 'README.md').read_text()
    assert card.startswith(f'# {name}\n')
    for heading in ('How it was trained', 'Labels are CamVid'):
        assert heading in card


@pytest.mark.parametrize('name', NAMES)
@torch.no_grad()
def test_each_sees_a_street_on_a_key_frame_and_on_one_after_it(name):
    model = load_model(MODELS / name, graphs=False)
    method = load_method(model, {'temperatures': []})
    height, width = model.image_size
    key, later = SyntheticSource(7, 2, height=height, width=width)
    images = [torch.from_numpy(frame.image[None]) for frame in (key, later)]
    first = run_step(method, 'key', {'image': images[0]})
    found = {'image': images[1], **method.host_tensors(images[1]), **method.state_of(first)}  # no motion
    second = run_step(method, 'propagated', found)
    for frame, result in ((key, first), (later, second)):
        mask = result['mask'][0].numpy()
        cell = height // mask.shape[0]
        truth = frame.truth[cell // 2 :: cell, cell // 2 :: cell]
        assert np.mean((mask == truth)[truth != 255]) > 0.85
