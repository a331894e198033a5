"""Segmenters that learn from the answers of an existing model."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.core.frame import UNLABELLED
from vss_ros.methods import build_method
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.resize import resize
from vss_ros.training.data import LabelledImages
from vss_ros.training.loop import FitSettings, fit
from vss_ros.training.recipe import parse_recipe
from vss_ros.training.stages.segmenter import SegmenterSettings, SegmenterStage
from vss_ros.training.teacher import Panel, distillation_loss, load_teacher, load_teachers
from vss_ros.training.trainer import Trainer

CPU = torch.device('cpu')
CAMVID = load_classes('camvid11')
FIT = {'learning_rate': 5e-3, 'warmup_steps': 2, 'averaging': 0.5, 'precision': 'fp32'}
RECIPE = {
    'method': 'davss',
    'options': {'backbone': 'lite', 'flow': 'dis', 'fusion': 'quarter', 'decision': 'quarter'},
    'classes': 'camvid11',
    'image': {'height': 64, 'width': 96},
}


@pytest.fixture(scope='module')
def teacher(tiny_model):
    return load_teacher(f'{tiny_model}/csrnet', CAMVID)


@pytest.fixture
def drive(street, tmp_path):
    """A video without labels."""
    path = tmp_path / 'drive.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 15, (96, 64))
    for image in street:
        writer.write(image)
    writer.release()
    return path


def recipe_of(shares, **sampling):
    stage = {'fit': {'steps': 2, **FIT}, 'sampling': {'batch': 2, **sampling}, 'shares': shares}
    return parse_recipe('taught', {**RECIPE, 'stages': {'segmenter': stage}})


def unlabelled(images):
    nothing = np.full(images[0].shape[:2], UNLABELLED, np.uint8)
    return LabelledImages([f'a_{n}' for n in range(len(images))], images, [nothing] * len(images))


def agreement(student, teacher, images):
    with torch.no_grad():
        rgb = to_rgb(torch.from_numpy(np.stack(images)))
        return (student(rgb).argmax(1) == teacher(rgb).argmax(1)).float().mean().item()


def test_the_loss_is_the_divergence_from_the_softened_answers_of_the_teacher():
    taught, scores = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    ours, theirs = ((each / 2).softmax(1).double() for each in (scores, taught))
    expected = 4 * (theirs * (theirs / ours).log()).sum(1).mean()
    assert distillation_loss(scores, taught, 2.0).item() == pytest.approx(expected.item(), rel=1e-4)
    assert distillation_loss(taught + 7, taught, 2.0).item() == pytest.approx(0, abs=1e-6)


def test_a_teacher_with_another_stride_is_brought_to_the_size_of_the_student():
    scores = torch.randn(1, 3, 8, 8)
    coarse = torch.randn(1, 3, 1, 1)
    same = distillation_loss(scores, coarse.expand(1, 3, 8, 8), 1.0)
    assert distillation_loss(scores, coarse, 1.0).item() == pytest.approx(same.item(), rel=1e-5)


def test_a_student_learns_the_answers_of_its_teacher_where_nothing_is_labelled(teacher, street, tmp_path):
    """The student is of another method, and has no label to learn from."""
    torch.manual_seed(1)
    student = build_method('davss', 11, {'backbone': 'lite'}).deeplab
    taught = {name: value.clone() for name, value in teacher.state_dict().items()}
    settings = SegmenterSettings(batch=4, scales=(0.9, 1.2), paste=0.0)
    images = unlabelled(street)
    stage = SegmenterStage(student, 11, [(images, 1.0)], images.where([]), settings, 0, teacher)
    before = agreement(student.eval(), teacher, street)
    fit(stage, FitSettings(60, **FIT), tmp_path, CPU)
    assert agreement(student, teacher, street) > max(0.5, 2 * before)
    assert all(torch.equal(value, taught[name]) for name, value in teacher.state_dict().items())
    assert not teacher.training


def test_several_teachers_teach_the_mean_of_their_scores_at_the_size_of_the_first():
    coarse, fine = nn.AvgPool2d(8), nn.AvgPool2d(4)
    rgb = torch.rand(1, 3, 32, 48)
    taught = Panel([fine, coarse])(rgb)
    assert torch.allclose(taught, (fine(rgb) + resize(coarse(rgb), (8, 12))) / 2)


def test_teachers_of_a_recipe_are_joined_by_plus_signs(tiny_model, street):
    origin = f'{tiny_model}/csrnet'
    rgb = to_rgb(torch.from_numpy(np.stack(street)))
    with torch.no_grad():
        one, two = (load_teachers(origins, CAMVID)(rgb) for origins in (origin, f'{origin} + {origin}'))
    assert torch.allclose(one, two)
    with pytest.raises(ModelError, match='has no network conet'):
        load_teachers(f'{origin} + {tiny_model}/conet', CAMVID)


def test_the_weight_of_the_teacher_scales_its_term_alone(teacher, street):
    student = build_method('evss-lite', 11).csrnet.eval()
    terms = []
    for weight in (1.0, 3.0):
        settings = SegmenterSettings(batch=2, teacher_weight=weight)
        images = unlabelled(street)
        stage = SegmenterStage(student, 11, [(images, 1.0)], images.where([]), settings, 0, teacher)
        batch = {name: torch.from_numpy(array) for name, array in stage.batch(0).items()}
        terms.append({name: term.item() for name, term in stage.losses(batch).items()})
    assert terms[1]['teacher'] == pytest.approx(3 * terms[0]['teacher'], rel=1e-5)
    assert terms[0]['cross_entropy'] == terms[1]['cross_entropy'] == 0  # nothing is labelled


def test_with_a_teacher_a_recipe_may_learn_from_a_video_without_labels(tiny_model, drive, tmp_path):
    alone = Trainer(recipe_of({'drive': 1}), {'drive': drive}, tmp_path / 'runs' / 'alone')
    with pytest.raises(SettingsError, match='this stage needs labels; drive has none'):
        alone.run(CPU, False, lambda stage, step, values: None)
    seen = {}
    recipe = recipe_of({'drive': 1}, teacher=f'{tiny_model}/csrnet')
    Trainer(recipe, {'drive': drive}, tmp_path / 'runs' / 'taught').run(
        CPU, False, lambda stage, step, values: seen.update(values)
    )
    assert seen['teacher'] > 0


def test_classes_are_weighed_by_the_first_images_that_have_labels(teacher, street):
    labels = [np.full((64, 96), 3, np.uint8)] * len(street)
    labelled = LabelledImages([f'b_{n}' for n in range(len(street))], street, labels)
    settings = SegmenterSettings(batch=2)
    student = build_method('evss-lite', 11).csrnet
    stages = [
        SegmenterStage(student, 11, sets, labelled.where([]), settings, 0, teacher)
        for sets in ([(labelled, 1.0)], [(unlabelled(street), 0.5), (labelled, 0.5)])
    ]
    assert torch.equal(stages[0]._balance.weights, stages[1]._balance.weights)


@pytest.mark.parametrize(
    ('prefix', 'message'),
    [
        ('/conet', 'tiny has no network conet that segments images; it has csrnet'),
        ('/deeplab', 'tiny has no network deeplab that segments images; it has csrnet'),
        ('-gone/csrnet', 'was not found'),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_with_what_there_is(tiny_model, prefix, message):
    with pytest.raises(ModelError, match=message):
        load_teacher(f'{tiny_model}{prefix}', CAMVID)


def test_a_teacher_without_a_prefix_is_refused_with_an_example():
    with pytest.raises(SettingsError, match="teacher is 'camvid-evss-lite'; write MODEL/PREFIX"):
        load_teacher('camvid-evss-lite', CAMVID)


def test_a_teacher_of_other_classes_is_refused(tiny_model):
    with pytest.raises(ModelError, match='tiny knows camvid11, the recipe trains cityscapes19'):
        load_teacher(f'{tiny_model}/csrnet', load_classes('cityscapes19'))


@pytest.mark.parametrize('names', [CAMVID.names[::-1], (*CAMVID.names[:-1], 'dog')], ids=['order', 'name'])
def test_a_teacher_of_as_many_classes_of_another_order_or_name_is_refused(tiny_model, names):
    with pytest.raises(ModelError, match='use a teacher with the classes of the recipe'):
        load_teacher(f'{tiny_model}/csrnet', replace(CAMVID, names=names))


@pytest.mark.parametrize(
    ('sampling', 'message'),
    [
        ({'teacher_weight': -1}, 'segmenter: sampling: teacher_weight is -1; use 0 or more'),
        ({'teacher_temperature': 0}, 'teacher_temperature is 0; use more than 0'),
        ({'teachers': 'a/b'}, 'has no entry teachers'),
    ],
)
def test_settings_of_a_teacher_without_sense_are_refused(sampling, message):
    with pytest.raises(SettingsError, match=message):
        recipe_of({'streets': 1}, **sampling)
