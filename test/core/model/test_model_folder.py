import random
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vss_ros.core.errors import ModelError
from vss_ros.core.frame import MAX_SIDE
from vss_ros.core.model.files import sha256_of
from vss_ros.core.model.folder import MODEL_FILE, find_model, load_model


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    """A model folder of one's own to damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / 'model'))


def edit(folder, change):
    """Applies `change` to the content of model.yaml."""
    content = yaml.safe_load((folder / MODEL_FILE).read_text())
    change(content)
    (folder / MODEL_FILE).write_text(yaml.safe_dump(content))


def test_a_model_knows_its_classes_sizes_stages_and_files(folder):
    model = load_model(folder)
    assert (model.method, model.classes.name, model.image_size) == ('evss-lite', 'camvid11', (64, 96))
    assert model.steps == {
        'key': ('segmenter',),
        'propagated': ('flow', 'warp', 'correction'),
        'carried': ('flow', 'carry'),
    }
    assert model.propagates
    assert set(model.graphs) == {'segmenter', 'warp', 'correction', 'carry'}
    assert model.graphs['segmenter'].inputs['image'].shape == (1, 64, 96, 3)
    assert model.weights == folder / 'weights.safetensors'


def test_a_folder_that_is_not_there_is_refused_with_what_can_be_used(tmp_path):
    with pytest.raises(ModelError, match=r"'.*nowhere' was not found.*vss export.*models at hand"):
        find_model(tmp_path / 'nowhere')
    with pytest.raises(ModelError, match="'nonsense' was not found"):
        load_model('nonsense')


@pytest.mark.parametrize('name', ['', '.', '..', '../models', '/', '~nobody-of-this-name/model'])
def test_names_that_are_no_model_are_refused(name):
    with pytest.raises(ModelError, match='was not found'):
        find_model(name)


@pytest.mark.parametrize('file', ['warp.onnx', 'weights.safetensors'])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(ModelError, match=rf'{file} is missing; export or download the model again'):
        load_model(folder)


@pytest.mark.parametrize('file', ['correction.onnx', 'weights.safetensors'])
def test_one_damaged_byte_is_found_by_its_sha256(folder, file):
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(
        ModelError, match=rf'{file} is damaged or was changed: its sha256 is .*model\.yaml says'
    ):
        load_model(folder)


@pytest.mark.parametrize('place', ['../outside.onnx', '/etc/hostname', 'sub/../../outside.onnx'])
def test_a_file_outside_the_folder_is_refused_though_its_sha256_is_right(folder, place):
    outside = folder.parent / 'outside.onnx'
    shutil.copy(folder / 'warp.onnx', outside)

    entry = {'file': place, 'sha256': sha256_of(outside)}

    def escape(content):
        content['graphs']['warp'] |= entry

    def escape_in_another_precision(content):
        content['graphs']['warp']['precisions'] = {'fp16': entry}

    inside = (folder / 'model.yaml').read_text()
    for change in (escape, escape_in_another_precision):
        (folder / 'model.yaml').write_text(inside)
        edit(folder, change)
        with pytest.raises(ModelError, match='lies outside the model folder; refused'):
            load_model(folder)


def test_a_link_that_leads_outside_the_folder_is_refused(folder):
    outside = folder.parent / 'outside.onnx'
    shutil.move(folder / 'warp.onnx', outside)
    (folder / 'warp.onnx').symlink_to(outside)
    with pytest.raises(ModelError, match='lies outside the model folder; refused'):
        load_model(folder)


@pytest.mark.parametrize('classes', ['../../secret', '/etc/classes.yaml', 'mine.yaml', '', 5, ['road']])
def test_classes_are_a_name_and_never_a_path(folder, classes):
    edit(folder, lambda content: content.update(classes=classes))
    with pytest.raises(
        ModelError, match=r'classes is .*; expected one of camvid11, cityscapes19, or all of them'
    ):
        load_model(folder)


def test_classes_of_ones_own_are_part_of_the_model(folder):
    entries = [{'name': f'class {i}', 'colour': [i, 0, 0], 'thin': i == 3} for i in range(11)]
    edit(folder, lambda content: content.update(classes={'name': 'mine', 'classes': entries}))
    classes = load_model(folder).classes
    assert (classes.name, classes.names[2], classes.thin) == ('mine', 'class 2', (3,))
    assert load_model(folder).classes.as_entry()['classes'][3] == {
        'name': 'class 3',
        'colour': [3, 0, 0],
        'thin': True,
    }


ELEVEN = [{'name': f'class {number}', 'colour': [number, 0, 0]} for number in range(11)]


@pytest.mark.parametrize(
    ('classes', 'reason'),
    [
        ({'name': '../x', 'classes': ELEVEN}, r"the name of classes is '\.\./x'; expected letters"),
        ({'name': 'mine/../x', 'classes': ELEVEN}, 'the name of classes is .*; expected letters'),
        ({'name': 5, 'classes': ELEVEN}, 'the name of classes is 5; expected letters'),
        ({'classes': ELEVEN}, "no entry 'name'"),
        ({'name': 'mine'}, "is not a class set .'classes'"),
        ({'name': 'mine', 'classes': 3}, 'is not a class set .*not iterable'),
        ({'name': 'mine', 'classes': ELEVEN, 'grups': {}}, 'classes has unknown entries: grups'),
    ],
)
def test_classes_of_ones_own_that_cannot_be_read_are_refused(folder, classes, reason):
    edit(folder, lambda content: content.update(classes=classes))
    with pytest.raises(ModelError, match=reason):
        load_model(folder)


def test_an_unknown_class_set_is_refused_by_name(folder):
    edit(folder, lambda content: content.update(classes='mars'))
    with pytest.raises(
        ModelError, match=r"classes is 'mars'; .*\{name: mine, classes: \[\{name: road, colour:"
    ):
        load_model(folder)


@pytest.mark.parametrize(
    'text', ['', '- a list', 'just words', 'format: 1', '{unfinished', 'format: &a [*a]', '\0']
)
def test_a_text_that_describes_no_model_is_refused(folder, text):
    (folder / MODEL_FILE).write_text(text)
    with pytest.raises(ModelError, match=r'model\.yaml (is not a model description|cannot be read)'):
        load_model(folder)


@pytest.mark.parametrize(
    'text', ['x' * 10**5, '- a\n' * 3000, f'{"x" * 500}: 1\n' * 2, f'format: {"x" * 10**5}']
)
def test_a_large_file_that_describes_no_model_does_not_flood_the_log(folder, text):
    (folder / MODEL_FILE).write_text(text)
    with pytest.raises(ModelError) as refused:
        load_model(folder)
    assert len(str(refused.value)) < 1500
    assert str(folder / MODEL_FILE) in str(refused.value)


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / MODEL_FILE).write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ModelError, match=r'model\.yaml cannot be read'):
        load_model(folder)


def test_a_description_cannot_run_code(folder, tmp_path):
    (folder / MODEL_FILE).write_text(f'!!python/object/apply:os.mkdir ["{tmp_path / "made"}"]')
    with pytest.raises(ModelError):
        load_model(folder)
    assert not (tmp_path / 'made').exists()


def test_a_future_format_is_refused_with_both_numbers(folder):
    edit(folder, lambda content: content.update(format=99, depth=3))
    with pytest.raises(ModelError, match='format is 99; this version reads the number 1'):
        load_model(folder)


@pytest.mark.parametrize('written', ['1', 1.0, True])
def test_a_format_that_is_no_whole_number_is_refused_as_it_is_written(folder, written):
    edit(folder, lambda content: content.update(format=written))
    with pytest.raises(ModelError, match=f'format is {written!r}; this version reads the number 1'):
        load_model(folder)


@pytest.mark.parametrize('size', [0, -64, 100_000, 'wide', None, 96.0, 96.7, '96', True])
def test_an_image_size_that_is_no_whole_number_in_range_is_refused(folder, size):
    edit(folder, lambda content: content['image'].update(width=size))
    with pytest.raises(ModelError, match=f'width of image is {size!r}; expected a whole number, 1 to'):
        load_model(folder)


@pytest.mark.parametrize(
    'spec',
    [
        ['float64', [1]],
        ['float32', [1, -1]],
        ['float32', [1, 'N']],
        ['float32', [True]],
        ['float32'],
        'uint8',
    ],
    ids=str,
)
def test_a_tensor_of_another_type_or_without_fixed_shape_is_refused(folder, spec):
    edit(folder, lambda content: content['graphs']['warp']['outputs'].update(warped=spec))
    with pytest.raises(
        ModelError, match=f'tensor warped is {re.escape(repr(spec))}; expected a type, one of'
    ):
        load_model(folder)


@pytest.mark.parametrize(
    ('where', 'name', 'message'),
    [
        (
            (),
            'correctoin_interval',
            'it has unknown entries: correctoin_interval; it may have format, name',
        ),
        ((), 'flows', 'it has unknown entries: flows; .* flow, steps'),
        (('image',), 'depth', 'image has unknown entries: depth; .* height, width'),
        (('graphs', 'warp'), 'precision', 'graph warp has unknown entries: precision; .* precisions'),
        (('weights',), 'sha', 'weights has unknown entries: sha; .* file, sha256'),
        (('graphs', 'warp', 'precisions'), 'fp8', 'precisions of warp has unknown entries: fp8; .* fp16'),
    ],
)
def test_an_entry_that_nothing_reads_is_refused_with_those_there_are(folder, where, name, message):
    def change(content):
        for each in where:
            content = content.setdefault(each, {})
        content[name] = 4

    edit(folder, change)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


@pytest.mark.parametrize('text', ['flow: network\n', 'classes: cityscapes19\n', 'training: {a: 1, a: 2}\n'])
def test_an_entry_that_is_given_twice_is_refused(folder, text):
    with (folder / MODEL_FILE).open('a') as file:
        file.write(text)
    with pytest.raises(ModelError, match=r'model\.yaml cannot be read: \w+ is given twice'):
        load_model(folder)


@pytest.mark.parametrize('entry', ['image', 'steps'])
@pytest.mark.parametrize('value', [None, 'wide', [64, 96]])
def test_a_value_in_place_of_entries_is_named(folder, entry, value):
    edit(folder, lambda content: content.update({entry: value}))
    with pytest.raises(ModelError, match=f'{entry} is {re.escape(repr(value))}; expected entries'):
        load_model(folder)


@pytest.mark.parametrize('stages', ['segmenter', None, [['segmenter']]])
def test_a_step_that_is_no_list_of_stages_is_refused(folder, stages):
    edit(folder, lambda content: content.update(steps={'key': stages}))
    with pytest.raises(ModelError, match=r'step key is .*; expected a list of stages, such as \[segmenter\]'):
        load_model(folder)


def test_stages_of_which_none_is_a_graph_are_told_from_a_model_without_graphs(folder):
    edit(folder, lambda content: content.update(steps={'key': ['segmentr']}))
    with pytest.raises(ModelError, match="step key names 'segmentr', which is no graph of this model"):
        load_model(folder)


@pytest.mark.parametrize('flow', ['DIS', None, ['dis']])
def test_a_flow_of_another_name_is_refused_with_those_there_are(folder, flow):
    edit(folder, lambda content: content.update(flow=flow))
    known = 'none, network, dis, dis_third, dis_half'
    with pytest.raises(ModelError, match=rf'flow is .*; expected one of {known}'):
        load_model(folder)


def test_a_stage_flow_without_a_flow_says_what_flow_may_be(folder):
    edit(folder, lambda content: content.pop('flow'))
    known = 'dis, dis_third, dis_half'
    with pytest.raises(ModelError, match=rf"names 'flow'.*, and its flow is 'none', not one of {known}"):
        load_model(folder)


def test_a_sha256_may_be_written_in_capitals(folder):
    def change(content):
        content['graphs']['warp']['sha256'] = content['graphs']['warp']['sha256'].upper()

    edit(folder, change)
    assert load_model(folder).graphs['warp'].read()


def drop_flow(content):
    content['steps']['propagated'].remove('flow')


def rename_stage(content):
    content['steps']['propagated'][1] = 'worp'


def drop_key_step(content):
    del content['steps']['key']


def add_step(content):
    content['steps']['sometimes'] = ['segmenter']


def drop_mask(content):
    del content['graphs']['segmenter']['outputs']['mask']


def forget_labels(content):
    del content['state']['labels']


def keep_a_secret(content):
    content['state']['secret'] = 'previous_secret'


def swap_stages(content):
    content['steps']['propagated'] = ['flow', 'correction', 'warp']


def change_shape(content):
    content['graphs']['warp']['outputs']['warped'][1][2] = 8


def shrink_image(content):
    content['image']['width'] = 64


def change_state(content):
    content['graphs']['correction']['outputs']['scores'][1][1] = 7


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (shrink_image, "segmenter takes 'image' as .*, step key gives .*64, 3"),
        (change_state, "the next frame takes 'previous_scores' as .*, step propagated gives"),
        (drop_flow, "warp needs 'flow', which nothing before it in step propagated gives"),
        (rename_stage, "step propagated names 'worp', which is no graph of this model"),
        (drop_key_step, 'expected key, propagated'),
        (add_step, 'expected key, propagated'),
        (drop_mask, 'step key does not give mask'),
        (forget_labels, "correction needs 'reference_labels', which nothing before it"),
        (keep_a_secret, 'step key does not give secret'),
        (swap_stages, "correction needs 'warped', which nothing before it in step propagated gives"),
        (change_shape, "correction takes 'warped' as .* step propagated gives"),
    ],
)
def test_a_step_that_does_not_close_is_refused_with_stage_and_tensor(folder, change, message):
    edit(folder, change)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'correction_interval': 3}, 'correction_interval is 3, and 1 in options; make them one'),
        ({'flow': 'dis_half'}, "flow is 'dis_half', and 'dis' in options"),
    ],
)
def test_what_is_said_twice_must_be_the_same(folder, change, message):
    edit(folder, lambda content: content.update(change))
    with pytest.raises(ModelError, match=message):
        load_model(folder)
    edit(folder, lambda content: content['options'].update(change))
    model = load_model(folder)
    assert {name: getattr(model, name) for name in change} == change


def test_a_model_without_propagated_step_is_a_model_that_only_knows_key_frames(folder):
    edit(folder, only_key)
    model = load_model(folder)
    assert not model.propagates
    assert model.computes_all_in_full
    assert set(model.graphs) == {'segmenter'}


@pytest.mark.parametrize(
    'text',
    ['a: 2001-13-45', 'a: !!int ""', 'a: !!timestamp x', 'a: !!bool perhaps', '[' * 5000],
    ids=lambda text: text[:20],
)
def test_a_value_that_cannot_be_read_is_a_description_that_cannot_be_read(folder, text):
    (folder / MODEL_FILE).write_text(text)
    with pytest.raises(ModelError, match=r'model\.yaml cannot be read'):
        load_model(folder)


def test_a_few_lines_cannot_stand_for_gigabytes(folder):
    lines = ['a: &a [x, x, x, x, x, x, x, x, x]']
    lines += [f'{b}: &{b} [{", ".join([f"*{a}"] * 9)}]' for a, b in zip('abcdefgh', 'bcdefghi', strict=True)]
    with (folder / MODEL_FILE).open('a') as file:
        file.write('\n'.join([*lines, 'name: *i', '']))
    with pytest.raises(ModelError, match='refers to parts of itself'):
        load_model(folder)


@pytest.mark.parametrize(
    ('where', 'value'),
    [
        (('image', 'height'), float('inf')),
        (('state',), {'scores': ['a', 'list']}),
        (('steps', 'key'), [['segmenter']]),
        (('graphs', 'warp', 'file'), 'a\0b'),
        (('graphs', 'warp', 'file'), 7),
        (('graphs', 'warp', 'outputs'), {'warped': ['float32', 3]}),
        (('expected_accuracy',), {'bias': 10**400, 'weights': {}}),
    ],
    ids=str,
)
def test_a_value_that_makes_no_sense_is_no_model_description(folder, where, value):
    def change(content):
        for name in where[:-1]:
            content = content[name]
        content[where[-1]] = value

    edit(folder, change)
    with pytest.raises(ModelError, match='not a model description'):
        load_model(folder)


@pytest.mark.parametrize('name', ['loop', 'a' * 5000, 'locked/warp.onnx/x'], ids=lambda name: name[:8])
def test_a_file_that_cannot_be_opened_is_named(folder, name):
    (folder / 'loop').symlink_to('loop')
    edit(folder, lambda content: content['graphs']['warp'].update(file=name))
    with pytest.raises(ModelError, match=f'{name[:8]}.* (cannot be read|is missing)'):
        load_model(folder)


@pytest.mark.parametrize(
    'spec',
    [
        ['float32', [1, 64, 96]],
        ['uint8', [64, 96]],
        ['uint8', [1, 1, 64, 96]],
        ['uint8', [2, 64, 96]],
        ['uint8', [1, 0, 96]],
    ],
    ids=str,
)
@pytest.mark.parametrize('name', ['mask', 'confidence'])
def test_a_mask_or_confidence_that_is_no_map_of_bytes_is_refused(folder, name, spec):
    edit(folder, lambda content: content['graphs']['segmenter']['outputs'].update({name: spec}))
    with pytest.raises(ModelError, match=f'step key gives {name} as .*; expected uint8 .1, height, width'):
        load_model(folder)


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        ('cityscapes19', 'the class set cityscapes19 has 19'),
        ({'name': 'mine', 'classes': [{'name': 'road', 'colour': [1, 2, 3]}]}, 'the class set mine has 1'),
    ],
)
def test_a_class_set_of_another_length_than_the_scores_is_refused(folder, classes, message):
    edit(folder, lambda content: content.update(classes=classes))
    with pytest.raises(ModelError, match=f'scores of 11 classes, and {message}; set classes to'):
        load_model(folder)


def only_key(content):
    del content['steps']['propagated'], content['steps']['carried']
    content['state'] = {}


def test_scores_that_are_no_map_of_classes_are_a_matter_of_the_method(folder):
    def change(content):
        only_key(content)
        content['graphs']['segmenter']['outputs']['scores'] = ['float32', [7]]

    edit(folder, change)
    assert load_model(folder).graphs['segmenter'].outputs['scores'].shape == (7,)


@pytest.mark.parametrize('step', ['key', 'propagated', 'carried'])
def test_the_age_is_brought_to_all_but_key_frames(folder, step):
    def change(content):
        stage = content['steps'][step][-1]
        content['graphs'][stage]['inputs']['age'] = ['float32', [1, 1, 1, 1]]

    edit(folder, change)
    if step == 'key':
        with pytest.raises(ModelError, match="segmenter needs 'age', which nothing before it in step key"):
            load_model(folder)
    else:
        load_model(folder)


def test_a_part_of_a_cell_at_the_border_is_one_for_the_flow(folder):
    def change(content):
        content['image'] = {'height': 62, 'width': 93}
        for graph in content['graphs'].values():
            for tensors in (graph['inputs'], graph['outputs']):
                if 'image' in tensors:
                    tensors['image'][1][1:3] = [62, 93]

    edit(folder, change)
    assert load_model(folder).graphs['warp'].inputs['flow'].shape == (1, 2, 16, 24)


def test_the_largest_image_is_not_refused_for_its_size(folder):
    edit(folder, lambda content: content['image'].update(width=MAX_SIDE))
    with pytest.raises(ModelError, match=f"segmenter takes 'image' as .*, step key gives .* {MAX_SIDE}, 3"):
        load_model(folder)


def test_a_model_without_a_name_is_called_as_its_folder(folder, monkeypatch):
    edit(folder, lambda content: content.pop('name'))
    monkeypatch.chdir(folder)
    assert load_model('./').name == folder.name


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_no_damage_to_a_description_raises_anything_but_a_model_error(folder, seed):
    file, chance = folder / MODEL_FILE, random.Random(seed)
    text = whole = file.read_text()
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(text))
        cut = at + chance.choice([0, 1, 5])
        text = (
            text[:at]
            + chance.choice(['', '-', '1e999', '{', ': ', '[]', '\n', 'null', '&a', '*a'])
            + text[cut:]
        )
    file.write_text(text)
    try:
        with suppress(ModelError):
            load_model(folder, graphs=False)
    finally:
        file.write_text(whole)
