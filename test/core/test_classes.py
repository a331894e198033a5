from dataclasses import replace

import numpy as np
import pytest
import yaml

from vss_ros.core.classes import classes_of, load_classes
from vss_ros.core.drawing import painted
from vss_ros.core.errors import SettingsError
from vss_ros.core.files import share
from vss_ros.core.files.share import share_path


@pytest.mark.parametrize(('name', 'count'), [('camvid11', 11), ('cityscapes19', 19)])
def test_a_class_set_has_unlike_names_and_colours(name, count):
    classes = load_classes(name)
    assert classes.name == name
    assert len(classes) == len(set(classes.names)) == len(set(classes.colours)) == count


def test_camvid_ids_are_those_of_the_published_weights():
    names = load_classes('camvid11').names
    assert [names[i] for i in (0, 2, 3, 8, 9, 10)] == [
        'sky',
        'pole',
        'road',
        'car',
        'pedestrian',
        'bicyclist',
    ]


def test_a_mask_is_painted_in_the_colours_of_its_classes_and_unlabelled_is_black():
    classes = load_classes('camvid11')
    colours = painted(np.array([[0, 3], [255, 11]], np.uint8), classes.palette)
    assert colours.dtype == np.uint8
    assert colours.tolist() == [
        [list(classes.colours[0]), list(classes.colours[3])],
        [[0, 0, 0], [0, 0, 0]],
    ]


@pytest.mark.parametrize('name', ['camvid11', 'cityscapes19'])
def test_every_class_is_one_thing_in_a_street(name):
    classes = load_classes(name)
    kinds = [classes.scene[kind] for kind in ('sky', 'ground', 'background', 'objects')]
    assert sorted(sum(kinds, ())) == list(range(len(classes)))
    assert set(classes.scene['cars']) < set(classes.scene['objects'])


def test_a_class_set_can_be_read_from_a_file(tmp_path):
    file = tmp_path / 'mine.yaml'
    file.write_text('classes:\n- {name: a, colour: [1, 2, 3]}\n- {name: b, colour: [4, 5, 6], thin: true}\n')
    classes = load_classes(str(file))
    assert (classes.name, classes.names, classes.thin) == ('mine', ('a', 'b'), (1,))


@pytest.mark.parametrize(
    'text',
    [
        '',
        'classes: 3',
        'classes: []',
        'classes:\n- {name: a}',
        'classes:\n- {name: a, colour: [1, 2]}',
        'classes:\n- {name: a, colour: [1, 2, 256]}',
        'classes: [unfinished',
        '[' * 5000,
        'classes: [{name: a, colour: [1, 2, 3]}]\nclasses: [{name: b, colour: [1, 2, 3]}]',
        'classes: [{name: a, colour: [1, 2, 3]}]\nscene: {sky: [b]}',
        'classes:\n' + '- {name: a, colour: [1, 2, 3]}\n' * 255,
    ],
)
def test_a_file_that_is_no_class_set_is_refused_by_name(tmp_path, text):
    file = tmp_path / 'broken.yaml'
    file.write_text(text)
    with pytest.raises(SettingsError, match=r'broken\.yaml'):
        load_classes(str(file))


def test_an_unknown_class_set_is_refused_with_those_there_are():
    with pytest.raises(SettingsError, match="no class set 'mars'; use one of camvid11, cityscapes19, or a"):
        load_classes('mars')


@pytest.mark.parametrize('name', ['camvid11', 'cityscapes19'])
def test_a_model_names_the_classes_of_the_package(name):
    assert load_classes(name).as_entry() == name


def test_a_model_holds_all_that_is_known_of_other_classes(tmp_path):
    for name in ('camvid11', 'other'):  # even if they are called as some of the package
        changed = replace(load_classes('camvid11'), name=name, colours=((1, 2, 3),) * 11)
        entry = changed.as_entry()
        assert classes_of(yaml.safe_load(yaml.safe_dump(entry)), entry['name'], 'a model') == changed


def test_share_files_are_found_through_the_ament_index_of_an_installed_package(tmp_path, monkeypatch):
    installed = tmp_path / 'prefix' / 'share' / 'vss_ros' / 'config' / 'site.yaml'
    installed.parent.mkdir(parents=True)
    installed.write_text('{}')
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path / "empty"}:{tmp_path / "prefix"}')
    assert share_path('config/site.yaml') == installed


@pytest.mark.parametrize('where', ['one user', 'all users of Debian'])
def test_share_files_are_found_where_pip_puts_them_outside_an_environment(tmp_path, monkeypatch, where):
    (tmp_path / 'share' / 'vss_ros').mkdir(parents=True)
    (tmp_path / 'share' / 'vss_ros' / 'site.yaml').write_text('{}')
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    if where == 'one user':
        monkeypatch.setattr('site.getuserbase', lambda: str(tmp_path))
    else:
        monkeypatch.setattr('sysconfig.get_path', {'data': str(tmp_path)}.get)
    assert share_path('site.yaml') == tmp_path / 'share' / 'vss_ros' / 'site.yaml'


def test_a_source_checkout_goes_before_what_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    (tmp_path / 'share' / 'vss_ros').mkdir(parents=True)
    checkout = share.share_folders()[0]
    if not (checkout / 'package.xml').is_file():
        pytest.skip('runs on an installed package')
    assert share_path('config').parent == checkout
