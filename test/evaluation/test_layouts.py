"""Layouts are read from files, and those of the package fit their class sets."""

from __future__ import annotations

import pytest

from vss_ros.core.classes import load_classes
from vss_ros.core.errors import SettingsError, SourceError
from vss_ros.evaluation.layouts import list_layouts, load_layout, stretches


@pytest.mark.parametrize(
    'text',
    ['', 'classes: camvid11', '[1, 2]', 'images: []\nlabels: []\nfoo: 1', "name: '('", '[' * 3000, 'a: ['],
)
def test_a_file_that_describes_no_data_set_is_refused(tmp_path, text):
    (tmp_path / 'bad.yaml').write_text(text)
    with pytest.raises(SettingsError, match='does not describe a data set'):
        load_layout(str(tmp_path / 'bad.yaml'))


def test_a_layout_without_any_labels_finds_none(tmp_path):
    file = tmp_path / 'mine.yaml'
    file.write_text("classes: camvid11\nimages: ['*.png']\nlabels: []\nname: '(?P<number>\\d+)'\nrate: 30\n")
    with pytest.raises(SourceError, match='has no labels of mine'):
        load_layout(str(file)).clips(tmp_path, None)


def test_an_unknown_layout_is_refused_with_the_known_ones():
    with pytest.raises(SettingsError, match=r'camvid-segnet.*cityscapes'):
        load_layout('kitti')


@pytest.mark.parametrize('name', list_layouts())
def test_layouts_of_the_package_name_classes_that_exist(name):
    layout = load_layout(name)
    names = load_classes(layout.classes).names
    for files in layout.labels:
        assert set(files.colours or {}) <= set(names)
        assert set((files.ids or {}).values()) <= set(range(len(names)))


def test_camvid_colours_are_31_classes_each_in_one_group():
    (files,) = load_layout('camvid-video').labels
    shades = [tuple(shade) for group in files.colours.values() for shade in group]
    assert len(shades) == len(set(shades)) == 31


def test_numbers_are_cut_where_they_leap():
    assert stretches([1, 2, 4, 9, 10], 2) == [[1, 2, 4], [9, 10]]
    assert stretches([5], 2) == [[5]]
