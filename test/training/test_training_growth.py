"""CSRNet that begins as a trained light segmenter made wider."""

from __future__ import annotations

from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.exporting.export import export
from vss_ros.methods import build_method
from vss_ros.methods.blocks.csrnet import CsrNet
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.training.data import LabelledImages
from vss_ros.training.loop import FitSettings, fit
from vss_ros.training.recipe import load_recipe, parse_recipe
from vss_ros.training.stages.growth import GrowthSettings, GrowthStage, features_at_quarter, grow
from vss_ros.training.streets import draw_street
from vss_ros.training.teacher import load_teacher
from vss_ros.training.trainer import Trainer

HEIGHT, WIDTH = 240, 320
ORIGIN = 'camvid-evss-lite/csrnet'


@pytest.fixture(scope='module')
def light():
    return load_teacher(ORIGIN, load_classes('camvid11'))


@pytest.fixture(scope='module')
def street():
    return draw_street(0, 0, 4, HEIGHT, WIDTH, drive=8)


@pytest.fixture(scope='module')
def rgb(street):
    return to_rgb(torch.from_numpy(np.stack(street.images)))


@pytest.fixture
def wide(light, rgb):
    torch.manual_seed(0)
    network = CsrNet(11, light.magnify)
    grow(network, light, rgb)
    return network.eval()


@contextmanager
def taught(wide, light, rgb):
    """As if the stem had learnt to give exactly the features of the light one."""
    features = functional.pad(features_at_quarter(light, rgb), (0, 0, 0, 0, 0, 32))
    hook = wide.backbone.layer1.register_forward_hook(lambda *_: features)
    yield
    hook.remove()


def agreement(one, other):
    return (one.argmax(1) == other.argmax(1)).float().mean().item()


@pytest.mark.parametrize('training', [False, True])
@torch.no_grad()
def test_a_grown_network_answers_as_the_light_one_but_for_its_stem(wide, light, rgb, training):
    """Also by the statistics of the batch, by which training goes on."""
    with taught(wide, light, rgb):
        found = wide.train(training)(rgb)
    assert agreement(found, light(rgb)) > 0.95


def test_new_channels_say_nothing_yet_and_learn_from_the_first_step(wide, light, rgb):
    read_by = wide.backbone.layer2[0].conv1.weight
    old, new = read_by[:64, :32], read_by[:64, 32:]
    assert old.abs().sum() > 0
    assert new.abs().sum() == 0
    wide(rgb).square().mean().backward()
    assert read_by.grad[:64, 32:].abs().sum() > 0


def test_the_stem_learns_the_features_of_the_light_one_and_nothing_else_changes(light, street, tmp_path):
    torch.manual_seed(0)
    wide = CsrNet(11, light.magnify)
    stills = LabelledImages(['a', 'b', 'c', 'd'], list(street.images), list(street.labels))
    settings = GrowthSettings(light=ORIGIN, batch=2, crop=(96, 96))
    stage = GrowthStage(wide, light, [(stills, 1.0)], stills, settings)
    grown = {name: value.clone() for name, value in wide.state_dict().items()}
    before = stage.validate(wide.eval())['explained']
    rate = FitSettings(30, learning_rate=4e-3, warmup_steps=2, averaging=0.5, precision='fp32')
    fit(stage, rate, tmp_path, torch.device('cpu'))
    assert stage.validate(wide)['explained'] > before + 20
    stem = ('backbone.conv1', 'backbone.bn1', 'backbone.layer1')
    changed = {name for name, value in wide.state_dict().items() if not torch.equal(value, grown[name])}
    assert changed
    assert all(name.startswith(stem) for name in changed)


def small_recipe(light, backbone='csrnet'):
    stage = {
        'fit': {'steps': 1, 'precision': 'fp32'},
        'sampling': {'batch': 2, 'light': light},
        'shares': {'camvid': 1},
    }
    return parse_recipe(
        'grown',
        {
            'method': 'evss-lite',
            'options': {'backbone': backbone},
            'classes': 'camvid11',
            'image': {'height': 64, 'width': 96},
            'stages': {'growth': stage},
        },
    )


@pytest.fixture
def drive(tmp_path):
    """A video without labels."""
    path = tmp_path / 'drive.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 15, (96, 64))
    for _ in range(3):
        writer.write(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(('backbone', 'taken'), [('lite', 'lite'), ('csrnet', 'csrnet')])
def test_only_a_csrnet_grows_and_only_out_of_a_light_segmenter(drive, tmp_path, backbone, taken):
    origin = ORIGIN
    if taken == 'csrnet':
        method = build_method('evss-lite', 11, {'backbone': 'csrnet'})
        export(method, tmp_path / 'wide', name='wide', class_set='camvid11', image_size=(64, 96))
        origin = f'{tmp_path}/wide/csrnet'
    trainer = Trainer(small_recipe(origin, backbone), {'camvid': drive}, tmp_path / 'run')
    with pytest.raises(ModelError, match='makes a CSRNet'):
        trainer.run(torch.device('cpu'), False, lambda *_: None)


def test_what_is_grown_looks_at_images_as_the_light_one_does(drive, tmp_path):
    light = build_method('evss-lite', 11, {'magnify': 1.5})
    export(light, tmp_path / 'light', name='light', class_set='camvid11', image_size=(64, 96))
    trainer = Trainer(small_recipe(f'{tmp_path}/light/csrnet'), {'camvid': drive}, tmp_path / 'run')
    with pytest.raises(SettingsError, match=r'1.5 times as large .* set magnify: 1.5'):
        trainer.run(torch.device('cpu'), False, lambda *_: None)


def test_the_recipe_that_grows_trains_the_key_frame_network_of_evss():
    recipe = load_recipe('evss-grown')
    assert recipe.options['backbone'] == 'csrnet'
    assert [stage.name for stage in recipe.stages] == ['growth', 'segmenter', 'glance', 'correction']
