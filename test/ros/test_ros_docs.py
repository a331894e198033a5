"""The page about the ROS interface says what the node does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vss_ros.ros.parameters import TABLE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'ros_interface.md').read_text()


def yaml_of(value: bool | int | float | str) -> str:
    """A default as the page writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value) or "''"


def test_the_page_lists_every_parameter_with_its_default():
    rows = dict(re.findall(r'^\| `([\w.]+)` \| `(.*?)` \| (?:live)? ?\|', PAGE, re.MULTILINE))
    expected = {entry.name: yaml_of(entry.default) for entry in TABLE}
    assert rows == expected


def test_the_page_says_which_parameters_are_live():
    live = set(re.findall(r'^\| `([\w.]+)` \| `.*?` \| live \|', PAGE, re.MULTILINE))
    assert live == {entry.name for entry in TABLE if entry.live}


def test_the_page_names_every_output_topic():
    sink = (ROOT / 'vss_ros' / 'ros' / 'topic_sink.py').read_text()
    for name in re.findall(r"_create\('([\w/]+)'", sink):
        assert f'`~/{name}`' in PAGE


@pytest.mark.parametrize('launch_file', sorted(path.name for path in (ROOT / 'launch').glob('*.launch.py')))
def test_the_page_names_every_argument_of_a_launch_file_in_its_row(launch_file):
    rows = dict(re.findall(r'^\| `(\w+\.launch\.py)` \| (.*)$', PAGE, re.MULTILINE))
    # The others take the arguments of the first one, too.
    row = rows[launch_file] + rows['segmentation.launch.py']
    text = (ROOT / 'launch' / launch_file).read_text()
    names = re.findall(r"^(?:    |ARGUMENTS = \()\('(\w+)', ", text, re.MULTILINE)
    assert names
    for name in names:
        assert re.search(rf'`{name}\b', row), f'{launch_file} has the argument {name}'
