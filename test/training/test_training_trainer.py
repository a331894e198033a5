"""A whole recipe ends in a model folder; what cannot be trained is refused before it is."""

from __future__ import annotations

import logging

import cv2
import pytest
import torch
import yaml

from vss_ros.cli.main import main
from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.core.model.folder import load_model
from vss_ros.training.gather import Gathered
from vss_ros.training.processes import ALONE
from vss_ros.training.recipe import load_recipe, parse_recipe
from vss_ros.training.report import write_card, write_report
from vss_ros.training.stages.segmenter import SegmenterStage
from vss_ros.training.streets import draw_street
from vss_ros.training.trainer import Trainer, differences

CPU = torch.device('cpu')
HEIGHT, WIDTH = 64, 96
SEGMENTER = {'fit': {'steps': 1, 'precision': 'fp32'}, 'sampling': {'batch': 2}, 'shares': {'camvid': 1}}


@pytest.fixture(scope='module')
def streets():
    return [draw_street(0, number, 4, HEIGHT, WIDTH, drive=8) for number in range(2)]


def tiny_recipe(**changes):
    stage = {'fit': {'steps': 2, 'precision': 'fp32'}, 'shares': {'camvid': 0.5, 'streets': 0.5}}
    return {
        'method': 'evss-lite',
        'classes': 'camvid11',
        'image': {'height': HEIGHT, 'width': WIDTH},
        'streets': {'clips': 1, 'frames': 3},
        'held_out': 0.5,
        'stages': {
            'segmenter': {**stage, 'sampling': {'batch': 2}},
            'correction': {**stage, 'sampling': {'batch': 2, 'frames': 3, 'judged': 1}},
        },
        **changes,
    }


@pytest.fixture
def labelled_folder(tmp_path, streets):
    for part in ('images', 'labels'):
        (tmp_path / 'camvid' / part).mkdir(parents=True)
    for index, (image, label) in enumerate(zip(streets[0].images, streets[0].labels, strict=True)):
        cv2.imwrite(str(tmp_path / 'camvid' / 'images' / f'a_{index}.png'), image)
        cv2.imwrite(str(tmp_path / 'camvid' / 'labels' / f'a_{index}.png'), label)
    return tmp_path / 'camvid'


def check_report(folder, recipe):
    """The report says what was trained from what, and the card of the model leads there."""
    report = (folder / 'report.md').read_text()
    for said in (
        'Data: camvid | 2 labelled images, 2 more kept aside; sha256 of the files ',
        'Data: streets | 1 clips of 3 frames, drawn from seed 1000',
        'Seed | 0',
        f'PyTorch {torch.__version__}',
        '| segmenter | 2 | 2 | fp32 |',
        '| miou |',
        '| frames after the key frame, % | 1 | 2 |\n| --- | --- | --- |\n| corrected |',
        '![Losses and scores](curves.png)',
    ):
        assert said in report
    assert str(recipe.parent) not in report
    assert cv2.imread(str(folder / 'curves.png')).shape[0] > 300
    assert yaml.safe_load((folder / 'recipe.yaml').read_text()) == yaml.safe_load(recipe.read_text())
    card = (folder / 'README.md').read_text()
    assert 'report.md' in card
    assert 'miou' not in card  # the card would keep it when the model is trained anew


def test_a_card_that_somebody_wrote_stays(tmp_path, labelled_folder):
    trainer = Trainer(parse_recipe('tiny', tiny_recipe()), {'camvid': labelled_folder}, tmp_path)
    (tmp_path / 'README.md').write_text('Mine.')
    write_card(trainer, tmp_path)
    assert (tmp_path / 'README.md').read_text() == 'Mine.'


def test_vss_train_ends_in_a_model_that_loads_and_resumes_to_the_same(tmp_path, labelled_folder, capsys):
    recipe = tmp_path / 'tiny.yaml'
    recipe.write_text(yaml.safe_dump(tiny_recipe(), sort_keys=False))
    words = ['train', str(recipe), '--data', f'camvid:{labelled_folder}', '--runs', str(tmp_path / 'runs')]
    assert main([*words, '-o', str(tmp_path / 'model'), '--device', 'cpu']) == 0
    model = load_model(tmp_path / 'model')
    assert model.method == 'evss-lite'
    assert model.training['recipe'] == 'tiny'
    check_report(tmp_path / 'model', recipe)
    weights = tmp_path / 'runs' / 'tiny' / 'weights.safetensors'
    before = weights.read_bytes()
    weights.unlink()
    (tmp_path / 'runs' / 'tiny' / 'recipe.yaml').write_text('[' * 3000)
    assert main([*words, '--resume', '--device', 'cpu']) == 2
    assert 'recipe.yaml to go on without comparing' in capsys.readouterr().err
    (tmp_path / 'runs' / 'tiny' / 'recipe.yaml').unlink()
    assert main([*words, '--resume', '--device', 'cpu']) == 0
    assert weights.read_bytes() == before
    resumed = Trainer(load_recipe(str(recipe)), {'camvid': labelled_folder}, tmp_path / 'runs' / 'tiny')
    resumed.run(CPU, True, lambda *_: None)
    assert resumed.scores == {name: model.training[name] for name in resumed.scores} != {}


def test_a_training_does_not_write_over_another(tmp_path):
    stages = {
        'segmenter': {
            'fit': {'steps': 2, 'save_every_steps': 1, 'precision': 'fp32'},
            'shares': {'streets': 1},
        }
    }
    recipe = parse_recipe('tiny', tiny_recipe(stages=stages))
    folder = tmp_path / 'tiny'

    def meanwhile(stage, step, values):
        for resume in (True, False):  # never with the advice to remove what is being written
            with pytest.raises(SettingsError, match='another training writes'):
                Trainer(recipe, {}, folder).run(CPU, resume, lambda *_: None)

    Trainer(recipe, {}, folder).run(CPU, False, meanwhile)
    with pytest.raises(SettingsError, match='--resume'):
        Trainer(recipe, {}, folder).run(CPU, False, lambda *_: None)


def test_a_stage_that_does_not_fit_into_the_memory_of_the_device_says_what_to_lower(tmp_path, monkeypatch):
    stages = {'segmenter': {'fit': {'steps': 1, 'precision': 'fp32'}, 'shares': {'streets': 1}}}
    trainer = Trainer(parse_recipe('tiny', tiny_recipe(stages=stages)), {}, tmp_path / 'tiny')

    def losses(self, batch):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')

    monkeypatch.setattr(SegmenterStage, 'losses', losses)
    with pytest.raises(SettingsError, match=r'segmenter does not fit.*lower its batch.*20\.00 GiB'):
        trainer.run(CPU, False, lambda *_: None)


def test_a_run_that_goes_on_as_no_unbroken_one_would_is_warned_of(tmp_path, labelled_folder, caplog):
    data, folder = {'camvid': labelled_folder}, tmp_path / 'runs' / 'tiny'

    def train(steps, resume):
        file, content = tmp_path / 'tiny.yaml', tiny_recipe()
        content['stages']['segmenter']['fit']['steps'] = steps
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        Trainer(load_recipe(str(file)), data, folder).run(CPU, resume, lambda *_: None)

    train(1, False)
    train(1, True)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    train(2, True)
    assert 'not that of the run before: stages.segmenter.fit.steps' in caplog.text
    assert 'correction.safetensors was trained behind segmenter as it was before' in caplog.text


def test_stages_in_another_order_are_not_the_recipe_of_the_run_before():
    before = {'stages': {'glance': {'fit': 1}, 'correction': {'fit': 2}}}
    now = {'stages': {'correction': {'fit': 2}, 'glance': {'fit': 3}}}
    assert differences(before, before) == []
    assert differences(before, now) == ['the order of stages', 'stages.glance.fit']


def test_a_report_is_written_of_a_stage_whose_log_was_lost(tmp_path, labelled_folder, recwarn):
    recipe = parse_recipe('tiny', tiny_recipe(stages={'segmenter': SEGMENTER}))
    trainer = Trainer(recipe, {'camvid': labelled_folder}, tmp_path / 'tiny')
    trainer.run(CPU, False, lambda *_: None)
    (tmp_path / 'tiny' / 'segmenter.jsonl').unlink()
    write_report(trainer, tmp_path / 'report', CPU, ALONE)
    assert '| ? | ? |' in (tmp_path / 'report' / 'report.md').read_text()
    assert not [warning for warning in recwarn if 'mean' in str(warning.message).lower()]


def test_a_report_is_written_of_a_stage_that_says_nothing_about_itself(
    tmp_path, labelled_folder, monkeypatch
):
    monkeypatch.setattr(SegmenterStage, '__doc__', None)
    recipe = parse_recipe('tiny', tiny_recipe(stages={'segmenter': SEGMENTER}))
    trainer = Trainer(recipe, {'camvid': labelled_folder}, tmp_path / 'tiny')
    trainer.run(CPU, False, lambda *_: None)
    write_report(trainer, tmp_path / 'report', CPU, ALONE)
    assert '## Scores of segmenter' in (tmp_path / 'report' / 'report.md').read_text()


def test_a_model_is_exported_before_its_report_is_written(tmp_path, labelled_folder, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr('vss_ros.training.report.write_report', fail)
    recipe = tmp_path / 'tiny.yaml'
    recipe.write_text(yaml.safe_dump(tiny_recipe(stages={'segmenter': SEGMENTER}), sort_keys=False))
    words = ['train', str(recipe), '--data', f'camvid:{labelled_folder}', '--runs', str(tmp_path / 'runs')]
    with pytest.raises(ZeroDivisionError):
        main([*words, '-o', str(tmp_path / 'model'), '--device', 'cpu'])
    assert load_model(tmp_path / 'model').method == 'evss-lite'


def test_what_a_stage_begins_anew_is_the_same_when_the_stage_before_was_resumed(tmp_path):
    fit = {'steps': 1, 'precision': 'fp32'}
    stages = {
        'segmenter': {'fit': fit, 'sampling': {'batch': 2}, 'shares': {'streets': 1}},
        'fusion': {
            'fit': fit,
            'sampling': {'batch': 2, 'new_classifier': True},
            'shares': {'streets': 1},
        },
    }
    options = {'backbone': 'lite'}
    recipe = parse_recipe('tiny', tiny_recipe(method='st-memory', options=options, stages=stages))
    losses = []

    def keep(stage, step, values):
        if stage == 'fusion':
            losses.append(values['loss'])

    Trainer(recipe, {}, tmp_path / 'runs').run(CPU, False, keep)
    (tmp_path / 'runs' / 'fusion.safetensors').unlink()
    Trainer(recipe, {}, tmp_path / 'runs').run(CPU, True, keep)
    assert losses[0] == losses[1]


def test_data_that_is_not_given_is_asked_for_by_name(tmp_path):
    with pytest.raises(SettingsError, match=r'camvid.*--data'):
        Trainer(parse_recipe('tiny', tiny_recipe()), {}, tmp_path)


def test_an_option_of_another_kind_is_refused(tmp_path, labelled_folder):
    recipe = parse_recipe('tiny', tiny_recipe(options={'w_f': 'x'}))
    with pytest.raises(SettingsError, match="w_f is 'x'; use a number"):
        Trainer(recipe, {'camvid': labelled_folder}, tmp_path)


def test_streets_do_not_teach_the_ids_of_other_classes(tmp_path):
    stages = {'segmenter': {'fit': {'steps': 1}, 'shares': {'streets': 1}}}
    recipe = parse_recipe('tiny', tiny_recipe(classes='cityscapes19', stages=stages))
    with pytest.raises(SettingsError, match=r'streets are drawn with the classes camvid11'):
        Trainer(recipe, {}, tmp_path).run(CPU, False, lambda *_: None)


@pytest.mark.parametrize(('classes', 'drawn'), [('cityscapes19', False), ('camvid11', True)])
def test_without_labels_streets_say_how_frequent_classes_are_only_if_they_are_theirs(
    tmp_path, streets, monkeypatch, classes, drawn
):
    recipe = parse_recipe(
        'tiny',
        tiny_recipe(classes=classes, stages={'correction': {'fit': {'steps': 2}, 'shares': {'drive': 1}}}),
    )
    (tmp_path / 'drive.mp4').touch()
    data = Gathered(recipe, {'drive': tmp_path / 'drive.mp4'}, tmp_path)
    monkeypatch.setattr('vss_ros.training.gather.draw_streets', lambda *_: streets)
    assert len(data.frequencies) == data.classes
    assert (len(set(data.frequencies)) > 1) == drawn


def test_a_stage_of_another_method_is_refused_before_anything_is_trained(tmp_path):
    stage = {'fit': {'steps': 1}, 'shares': {'streets': 1}}
    recipe = parse_recipe('tiny', tiny_recipe(stages={'segmenter': stage, 'joint': stage}))
    with pytest.raises(SettingsError, match='joint trains Davss'):
        Trainer(recipe, {}, tmp_path)


def test_data_that_does_not_exist_is_refused_by_its_path(tmp_path):
    with pytest.raises(SettingsError, match=r'camvid:.*nowhere does not exist'):
        Trainer(parse_recipe('tiny', tiny_recipe()), {'camvid': tmp_path / 'nowhere'}, tmp_path)


@pytest.mark.parametrize(
    ('more', 'message'),
    [(['-o', 'FOLDER'], 'is no model folder'), (['--data', 'camvid:FOLDER'], 'given twice')],
)
def test_what_could_not_be_exported_or_is_not_clear_is_refused_at_once(
    tmp_path, capsys, labelled_folder, more, message
):
    recipe = tmp_path / 'tiny.yaml'
    recipe.write_text(yaml.safe_dump(tiny_recipe(), sort_keys=False))
    words = ['train', str(recipe), '--data', f'camvid:{labelled_folder}', '--runs', str(tmp_path / 'runs')]
    assert main([*words, *(word.replace('FOLDER', str(labelled_folder)) for word in more)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'runs').exists()


def test_a_stage_for_a_network_that_the_method_lacks_is_refused(tmp_path):
    flow = {'fit': {'steps': 1}, 'shares': {'streets': 1}}
    recipe = parse_recipe('tiny', tiny_recipe(options={'flow': 'dis'}, stages={'flow': flow}))
    with pytest.raises(SettingsError, match='flownet'):
        Trainer(recipe, {}, tmp_path).run(CPU, False, lambda *_: None)


def later(name, shares=None, **sampling):
    """A recipe whose second stage is as given."""
    stage = {'fit': {'steps': 1}, 'sampling': sampling, 'shares': shares or {'camvid': 1}}
    return {'stages': {'segmenter': SEGMENTER, name: stage}}


NO_SCENE = 'classes: [{name: free, colour: [0, 0, 0]}, {name: taken, colour: [255, 0, 0]}]'


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({**later('flow'), 'options': {'flow': 'dis'}}, 'flow: the method has no flownet'),
        ({**later('glance'), 'options': {'backbone': 'csrnet'}}, 'glance: a glance can begin as a light'),
        (later('glance', teacher='no-such/csrnet'), "glance: model 'no-such' was not found"),
        (later('correction', crop=[128, 128]), 'correction: crop is 128x128, the images are 96x64'),
        (
            later('correction', {'camvid': 1, 'streets': 0.001}, frames=8),
            'correction: streets: no clip has 8 frames',
        ),
        (later('correction', weight_softness=0.5), 'correction: weight_softness is 0.5'),
        ({**later('correction'), 'classes': 'NO_SCENE'}, 'correction: clips cannot be made of stills'),
        (
            {
                **later('refinement'),
                'method': 'st-memory',
                'options': {'backbone': 'lite', 'refinement': 'none'},
            },
            'refinement: the method has no memory',
        ),
        ({**later('correction'), 'held_out': 0.99}, 'held_out: 0.99 leaves no image of camvid'),
    ],
)
def test_what_a_later_stage_cannot_do_is_told_before_the_first_is_trained(
    tmp_path, labelled_folder, changes, message
):
    if changes.get('classes') == 'NO_SCENE':
        (tmp_path / 'two.yaml').write_text(NO_SCENE)
        changes = {**changes, 'classes': str(tmp_path / 'two.yaml')}
        for file in (labelled_folder / 'labels').iterdir():
            cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) % 2)
    trainer = Trainer(parse_recipe('a', tiny_recipe(**changes)), {'camvid': labelled_folder}, tmp_path / 'a')
    with pytest.raises((SettingsError, ModelError), match=message):
        trainer.run(CPU, False, lambda *_: pytest.fail('it trained'))
    assert [file.name for file in (tmp_path / 'a').iterdir()] == ['.lock']


def test_checking_the_stages_changes_nothing_of_what_is_trained(tmp_path, labelled_folder, monkeypatch):
    recipe = parse_recipe('a', tiny_recipe())

    def train(folder):
        trainer = Trainer(recipe, {'camvid': labelled_folder}, tmp_path / folder)
        return trainer.run(CPU, False, lambda *_: None).read_bytes()

    checked = train('checked')
    monkeypatch.setattr(Trainer, '_check_stages', lambda self, processes: None)
    assert train('unchecked') == checked


@pytest.mark.parametrize(
    'wrong',
    [('--device', 'no-such'), ('--device', 'meta'), ('--threads', '-3'), ('--threads', '99999999999')],
)
def test_a_device_or_threads_that_are_not_there_are_one_line(tmp_path, capsys, labelled_folder, wrong):
    recipe = tmp_path / 'tiny.yaml'
    recipe.write_text(yaml.safe_dump(tiny_recipe(), sort_keys=False))
    words = ['train', str(recipe), '--data', f'camvid:{labelled_folder}', *wrong]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert wrong[1] in error
    assert error.count('\n') == 1
