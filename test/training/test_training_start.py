"""Networks that begin with the weights of an existing model."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.methods import build_method
from vss_ros.methods.blocks.light_fpn import ENCODERS
from vss_ros.training.origins import origins_of
from vss_ros.training.recipe import load_recipe, parse_recipe
from vss_ros.training.start import start_from
from vss_ros.training.trainer import Trainer

DEFAULT = 'camvid-evss-lite'


def lite(classes=11, **options):
    return build_method('evss-lite', classes, options)


def test_a_network_starts_with_the_weights_of_a_model_and_nothing_else_changes(tmp_path):
    recipe = {
        'method': 'evss-lite',
        'classes': 'camvid11',
        'image': {'height': 64, 'width': 96},
        'stages': {'correction': {'fit': {'steps': 1}, 'shares': {'streets': 1}}},
    }
    fresh = Trainer(parse_recipe('a', recipe), {}, tmp_path).method.state_dict()
    started = Trainer(parse_recipe('a', {**recipe, 'start': {'csrnet': f'{DEFAULT}/csrnet'}}), {}, tmp_path)
    again = lite()
    start_from(again, {'csrnet': f'{DEFAULT}/csrnet', 'conet': f'{DEFAULT}/conet'})
    for name, value in started.method.state_dict().items():
        expected = again.state_dict()[name] if name.startswith('csrnet.') else fresh[name]
        assert torch.equal(value, expected), name


def test_a_part_of_a_network_can_start_alone():
    method = build_method('davss', 11, {'backbone': 'lite'})
    start_from(method, {'deeplab.stem': f'{DEFAULT}/csrnet.stem'})
    whole = lite()
    start_from(whole, {'csrnet': f'{DEFAULT}/csrnet'})
    assert torch.equal(method.deeplab.stem[0][0].weight, whole.csrnet.stem[0][0].weight)
    assert not torch.equal(
        method.deeplab.encoder_4[0].first[0].weight, whole.csrnet.encoder_4[0].first[0].weight
    )


def test_a_glance_can_start_as_a_segmenter_to_which_nothing_was_carried():
    method = lite(backbone='csrnet', glance='full')
    start_from(method, {'glance': f'{DEFAULT}/csrnet'})
    segmenter = lite()
    start_from(segmenter, {'csrnet': f'{DEFAULT}/csrnet'})
    rgb, carried = torch.rand(1, 3, 64, 96), torch.randn(1, 11, 16, 24)
    method.eval(), segmenter.eval()
    assert torch.equal(method.glance(rgb, carried).scores, segmenter.csrnet(rgb))


@pytest.mark.parametrize(
    ('start', 'error', 'message'),
    [
        ({'csrnet': DEFAULT}, SettingsError, 'MODEL/PREFIX'),
        ({'deeplab': f'{DEFAULT}/csrnet'}, SettingsError, 'no network deeplab; it has csrnet'),
        ({'csrnet': f'{DEFAULT}/deeplab'}, ModelError, r'no weights deeplab\.\*; it has conet, csrnet'),
        ({'csrnet': f'{DEFAULT}/conet'}, ModelError, 'does not fit csrnet: no .* and .* more'),
        ({'csrnet': 'no-such/csrnet'}, ModelError, "'no-such' was not found"),
    ],
)
def test_a_start_that_cannot_be_made_is_explained(start, error, message):
    with pytest.raises(error, match=message):
        start_from(lite(), start)


def test_weights_for_another_number_of_classes_are_refused_and_what_to_leave_out_is_said():
    message = (
        r'scores.weight is \(11, 64, 1, 1\), not \(5, 64, 1, 1\).* has 11 classes, the recipe 5: .* '
        r'csrnet: \{from: camvid-evss-lite/csrnet, without: \[scores\]\}'
    )
    with pytest.raises(ModelError, match=message):
        start_from(lite(classes=5), {'csrnet': f'{DEFAULT}/csrnet'})


def test_what_depends_on_the_classes_can_begin_anew():
    method = lite(classes=5)
    fresh = {name: value.clone() for name, value in method.state_dict().items()}
    start_from(method, {'csrnet': {'from': f'{DEFAULT}/csrnet', 'without': ['scores']}})
    whole = lite()
    start_from(whole, {'csrnet': f'{DEFAULT}/csrnet'})
    for name, value in method.state_dict().items():
        learnt = name.startswith('csrnet.') and not name.startswith('csrnet.scores.')
        assert torch.equal(value, (whole.state_dict() if learnt else fresh)[name]), name


TORCHVISION = {  # encoder: what else is in its file, and how an entry of `start` says what is wanted of it
    'resnet18': (['fc.weight', 'fc.bias'], {'without': ['fc']}),
    'mobilenet_v2': (
        ['features.18.0.weight', 'classifier.1.weight'],
        {'prefix': 'features', 'without': ['18']},
    ),
}


@pytest.fixture(params=TORCHVISION)
def pretrained(request, tmp_path):
    """An encoder, its layers, and the entry that begins with them, out of a file like torchvision's."""
    torch.manual_seed(1)
    layers = ENCODERS[request.param].build()
    more, entry = TORCHVISION[request.param]
    inside = f'module.{entry["prefix"]}.' if 'prefix' in entry else 'module.'
    content = {f'{inside}{name}': value for name, value in layers.state_dict().items() if value.ndim}
    content |= {f'module.{name}': torch.zeros(3) for name in more}
    torch.save(content, file := tmp_path / 'pretrained.pth')
    return request.param, layers, {'file': str(file), **entry}


def test_an_encoder_starts_with_a_file_of_pretrained_weights(pretrained):
    encoder, layers, entry = pretrained
    method = build_method('twnet', 5, {'encoder': encoder, 'flow': 'dis'})
    start_from(method, {'cnn.encoder': entry})
    method.nonkey.start_from(method.cnn)
    for name, value in layers.state_dict().items():
        assert torch.equal(method.cnn.encoder.state_dict()[name], value), name
        kept = method.nonkey.cnn.encoder.state_dict().get(name, value)
        assert torch.equal(kept, value), name


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        ({'without': []}, ModelError, r'fc.weight is of no use; fc.bias is of no use. .* prefix: features'),
        ({'prefix': 'stem'}, ModelError, r'has no weights stem\.\*; it has .*fc, layer1'),
        ({'without': ['fc', 'tail']}, SettingsError, 'has no part tail to be without'),
        ({'file': 'nowhere.pth'}, ModelError, 'nowhere.pth does not exist'),
        ({'from': 'a/b'}, SettingsError, r'or \{file: resnet18.pth'),
        ({'without': 'fc'}, SettingsError, r'or \{file: resnet18.pth'),
    ],
)
@pytest.mark.parametrize('pretrained', ['resnet18'], indirect=True)
def test_a_file_that_does_not_fit_is_refused(pretrained, changes, error, message):
    encoder, _, entry = pretrained
    method = build_method('twnet', 5, {'encoder': encoder, 'layer': 3, 'flow': 'dis'})
    with pytest.raises(error, match=message):
        start_from(method, {'cnn.encoder': {**entry, **changes}})


def test_the_file_that_a_network_started_from_is_told_by_its_digest(pretrained):
    _, _, entry = pretrained
    recipe = SimpleNamespace(stages=(), start={'cnn.encoder': entry})
    data = SimpleNamespace(class_set=load_classes('camvid11'), describe=dict)
    told = origins_of(recipe, data)['start']['cnn.encoder']
    assert re.fullmatch(r'pretrained.pth(, features)?; sha256 of the file [0-9a-f]{16}; without .*', told)


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ({'from': f'{DEFAULT}/csrnet'}, r'write MODEL/PREFIX.*or \{from: MODEL/PREFIX, without'),
        ({'from': f'{DEFAULT}/csrnet', 'without': 'scores'}, 'or {from'),
        ({'from': f'{DEFAULT}/csrnet', 'without': []}, 'or {from'),
        (5, 'or {from'),
        (
            {'from': f'{DEFAULT}/csrnet', 'without': ['score']},
            'csrnet has no part score to be without; it has .*scores',
        ),
    ],
)
def test_a_start_without_parts_that_cannot_be_made_is_explained(entry, message):
    with pytest.raises(SettingsError, match=message):
        start_from(lite(), {'csrnet': entry})


def test_the_recipe_in_the_docs_starts_from_a_trained_model_with_classes_of_its_own(tmp_path):
    docs = (Path(__file__).parents[2] / 'docs' / 'training.md').read_text()
    section = docs.partition('## Your own classes, from a trained model')[2].partition('\n## ')[0]
    classes, written = re.findall(r'```yaml\n(.*?)```', section, re.DOTALL)
    (tmp_path / 'yard.yaml').write_text(classes)
    (tmp_path / 'yard-lite.yaml').write_text(
        written.replace('classes: yard.yaml', f'classes: {tmp_path / "yard.yaml"}')
    )
    recipe = load_recipe(str(tmp_path / 'yard-lite.yaml'))
    assert [stage.name for stage in recipe.stages] == ['segmenter', 'glance', 'correction']
    (tmp_path / 'drive').touch()
    Trainer(recipe, {name: tmp_path for name in recipe.data}, tmp_path)
