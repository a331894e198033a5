from __future__ import annotations

import copy
from dataclasses import fields

import pytest
import yaml

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.core.files.share import share_path
from vss_ros.methods import build_method
from vss_ros.training.clips import SceneClasses
from vss_ros.training.optimiser import FitSettings
from vss_ros.training.recipe import load_recipe, parse_recipe
from vss_ros.training.stages import STAGES, stage_class
from vss_ros.training.streets import StreetSettings

RECIPE = {
    'method': 'evss-lite',
    'classes': 'camvid11',
    'image': {'height': 64, 'width': 96},
    'stages': {'segmenter': {'fit': {'steps': 3}, 'shares': {'camvid': 1, 'streets': 0.5}}},
}


def stage(name, **sampling):
    return {name: {'fit': {'steps': 1}, 'sampling': sampling, 'shares': {'camvid': 1}}}


def changed(**changes):
    """RECIPE with entries replaced; `stages__fit__steps=...` reaches into the segmenter stage."""
    recipe = copy.deepcopy(RECIPE)
    for name, value in changes.items():
        *path, last = name.split('__')
        target = recipe['stages']['segmenter'] if path else recipe
        for key in path[1:]:
            target = target.setdefault(key, {})
        target[last] = value
    return recipe


def test_a_recipe_tells_its_stages_and_the_data_it_needs():
    recipe = parse_recipe('mine', RECIPE)
    assert (recipe.name, recipe.height, recipe.width) == ('mine', 64, 96)
    assert recipe.stages[0].fit.steps == 3
    assert recipe.data == {'camvid'}


@pytest.mark.parametrize(
    'file', sorted(share_path('config/train').glob('*.yaml')), ids=lambda file: file.stem
)
def test_every_recipe_that_comes_with_the_package_can_be_read(file):
    assert load_recipe(file.stem).stages
    assert load_recipe(file.stem).name == file.stem


@pytest.mark.parametrize(
    ('recipe', 'message'),
    [
        (None, 'expected entries'),
        (changed(epochs=3), 'epochs'),
        (changed(stages__fit__step=3), r'step\b.*it has'),
        (changed(stages__fit__steps='many'), 'use a whole number'),
        (changed(stages__fit__steps=2.5), 'use a whole number'),
        (changed(stages__fit__steps=0), 'segmenter: fit: steps is 0; use 1 or more'),
        (changed(stages__fit__learning_rate=-1), 'more than 0'),
        (changed(stages__fit__learning_rate='1e-3'), r'1\.0e-3'),
        (changed(stages__fit__learning_rate=float('inf')), 'use a number'),
        (changed(stages__sampling__scales=3), 'a list, each entry a number'),
        (changed(stages__sampling__scales=[2.0]), 'smallest and the largest'),
        (changed(stages__sampling__scales=[0, 1]), 'sampling: scales is .* 0.01 to 100'),
        (changed(stages__sampling__teacher=5), 'use a text'),
        (changed(stages=stage('flow', batch=0)), 'flow: sampling: batch is 0; use 1 or more'),
        (changed(stages=stage('flow', shift=-1)), 'shift'),
        (changed(stages=stage('correction', pseudo_labels='maybe')), 'true or false'),
        (changed(name='../elsewhere'), 'no entry name'),
        (changed(method=['evss']), 'use a text'),
        (changed(classes=11), 'use a text'),
        (changed(classes='no-such'), 'no-such'),
        (changed(scene={'clouds': [0]}), 'clouds'),
        ({key: value for key, value in RECIPE.items() if key != 'classes'}, 'classes is None'),
        (changed(layouts={'camvid': 5}), 'use a text'),
        (changed(layouts={'camvid': 'no-such/train'}), "camvid is 'no-such/train'; .*no layout"),
        (
            changed(layouts={'camvid': 'camvid-video'}),
            "layouts: camvid is 'camvid-video'; name the part, such as camvid-video/train",
        ),
        (changed(layouts={'camvid': 'camvid-segnet'}), 'name the part'),
        (changed(layouts={'camvid': 'camvid-video/trian'}), "no part 'trian', use one of train, test, all"),
        (changed(layouts={'camvid': 'camvid-folder/train'}), 'has no parts, write camvid-folder'),
        (changed(layouts={'camvid': 'cityscapes/train'}), 'has the classes cityscapes19'),
        (changed(weights='fp8'), 'fp16'),
        (changed(seed=-1), 'seed'),
        (changed(seed=99999999999999999999999), 'seed'),
        (changed(image={'height': 4800000000, 'width': 64}), 'sides of'),
        (changed(stages__sampling__paste=7), 'segmenter: sampling: paste is 7; use 0 to 1'),
        (changed(stages__sampling__paste_classes=[99]), 'paste_classes has 99; use ids of camvid11, 0 to 10'),
        (changed(stages__sampling__paste_classes=[1.5]), r'paste_classes is \[1\.5\]; .* whole number'),
        (changed(stages=stage('correction', thin_classes=[-1])), 'thin_classes has -1'),
        (changed(stages__sampling__crop=[100000, 100000]), r'crop is .*multiples of 4 up to 8192'),
        (changed(scene={'objects': [8, 11]}), 'scene: objects has 11; use ids of camvid11, 0 to 10'),
        (changed(scene={'horizon': 158}), 'scene: horizon is 158; use a share .* below 1'),
        ({key: value for key, value in RECIPE.items() if key != 'method'}, 'the recipe lacks method'),
        (changed(stages__fit={}), 'segmenter: fit lacks steps'),
        (changed(stages__sampling__scales=[1e9, 1e10]), r'scales is .*0\.01 to 100'),
        ({**RECIPE, True: 5}, 'entry True, which is no text'),
        (changed(options={5: 6}), 'entry 5, which is no text'),
        (changed(held_out=1), 'held_out'),
        (changed(held_out=-0.5), 'held_out'),
        (changed(image={'height': 0, 'width': 96}), 'use multiples of 4'),
        (changed(image={'height': 480, 'width': 854}), 'image is 854x480; use multiples of 4'),
        (changed(image={'height': 63.5, 'width': 96}), 'whole number'),
        (changed(stages__sampling__batch=1), 'batch is 1; use 2 or more .* batch norm'),
        (changed(stages__loss={}), 'loss'),
        (changed(stages__shares={}), 'shares'),
        (changed(stages__shares={'camvid': 0}), 'shares are 0'),
        (changed(stages__shares={'camvid': -1}), 'shares'),
        (changed(image={'height': 3}), 'height'),
        (changed(stages={'segment': {}}), 'segment'),
        (changed(streets={'count': 3}), 'count'),
        ({'method': 'evss'}, 'image'),
    ],
)
def test_a_mistake_in_a_recipe_is_named(recipe, message):
    with pytest.raises(SettingsError, match=message):
        parse_recipe('mine', recipe)


SETTINGS = [FitSettings, StreetSettings, *(stage_class(name).settings_class for name in STAGES)]


def made(owner, **settings):
    return owner(**({'steps': 1} if owner is FitSettings else {}) | settings)


@pytest.mark.parametrize('owner', SETTINGS)
@pytest.mark.parametrize('value', [None, {'a': None}, b'1', ['1']])
def test_a_setting_that_is_made_without_a_recipe_refuses_another_kind_of_value_too(owner, value):
    for field in fields(owner):
        with pytest.raises(SettingsError, match=f'{field.name} is .*; use '):
            made(owner, **{field.name: value})


@pytest.mark.parametrize('owner', SETTINGS)
def test_no_number_of_a_stage_may_be_below_zero_but_the_seed(owner):
    for field in fields(owner):
        if owner.types[field.name] in (int, float) and field.name != 'seed':
            with pytest.raises(SettingsError, match=f'{field.name} is -5; use '):
                made(owner, **{field.name: -5})


def test_whole_numbers_may_stand_for_numbers_in_a_recipe():
    recipe = parse_recipe('mine', changed(stages__fit__learning_rate=1, stages__sampling__scales=[1, 2]))
    assert recipe.stages[0].fit.learning_rate == 1
    assert recipe.stages[0].sampling.scales == (1, 2)


def test_what_a_recipe_leaves_open_about_its_classes_the_class_set_says():
    stages = {**changed()['stages'], **stage('correction')}
    segmenter, correction = parse_recipe('mine', changed(classes='cityscapes19', stages=stages)).stages
    names = load_classes('cityscapes19').names
    assert {names[i] for i in correction.sampling.thin_classes} == {'pole', 'person', 'rider'}
    assert {names[i] for i in segmenter.sampling.paste_classes} >= {'pole', 'car', 'bicycle'}
    written = {'segmenter': {**RECIPE['stages']['segmenter'], 'sampling': {'paste_classes': [8]}}}
    recipe = parse_recipe('mine', changed(stages=written, scene={'cars': [8, 10], 'horizon': 0.3}))
    assert recipe.stages[0].sampling.paste_classes == (8,)
    assert (recipe.scene.cars, recipe.scene.horizon, recipe.scene.sky) == ((8, 10), 0.3, (0,))


def test_classes_of_which_no_scene_is_known_train_but_make_no_clips_of_stills(tmp_path):
    file = tmp_path / 'two.yaml'
    file.write_text('classes: [{name: free, colour: [0, 0, 0]}, {name: taken, colour: [255, 0, 0]}]')
    assert parse_recipe('mine', changed(classes=str(file))).scene is None
    with pytest.raises(SettingsError, match=r'two.*nothing under `scene`; give it sky, ground'):
        SceneClasses.of(load_classes(str(file)))


def test_the_message_names_the_file(tmp_path):
    (tmp_path / 'mine.yaml').write_text(yaml.safe_dump(changed(epochs=3)))
    with pytest.raises(SettingsError, match=r'mine\.yaml.*epochs'):
        load_recipe(str(tmp_path / 'mine.yaml'))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[' * 3000, 'nested too deep'),
        ('seed: 2024-99-99', 'month must be'),
        ('seed: ' + '9' * 5000, 'digits'),
        ('seed: 1\nmethod: evss\nseed: 2', 'seed is given twice'),
        ('stages:\n  segmenter: {fit: {steps: 1, steps: 2}}', 'steps is given twice'),
        ('a: [', 'cannot be read as a recipe'),
    ],
)
def test_a_file_that_is_no_recipe_is_told_in_one_line(tmp_path, text, message):
    (tmp_path / 'mine.yaml').write_text(text)
    with pytest.raises(SettingsError, match=message) as refused:
        load_recipe(str(tmp_path / 'mine.yaml'))
    assert '\n' not in str(refused.value)


def test_options_of_a_method_that_are_no_text_are_refused():
    with pytest.raises(ModelError, match='has no option 5'):
        build_method('evss-lite', 11, {5: 6})


def test_a_recipe_that_does_not_exist_is_refused():
    with pytest.raises(SettingsError, match='no-such'):
        load_recipe('no-such')
