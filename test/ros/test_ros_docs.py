"""The page about the ROS interface says what the node does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vss_ros.ros.parameters import TABLE, Entry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs' / 'ros_interface.md').read_text()


def yaml_of(value: bool | int | float | str) -> str:
    """A default as the page writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value) or "''"


def row_of(entry: Entry) -> str:
    text, choices = entry.description.text, entry.description.choices
    if entry.name == 'regions':
        text += f' ({choices[0]} to {choices[-1]})'
    elif not all(f'{choice}:' in text for choice in choices):
        text += f' ({", ".join(choices)})'
    live = 'live' if entry.description.live else ''
    return f'| `{entry.name}` | `{yaml_of(entry.default)}` | {live} | {text} |'


def test_the_page_says_of_every_parameter_what_the_settings_say():
    rows = re.findall(r'^\| `[\w.]+` \| `.*?` \| (?:live)? ?\| .*$', PAGE, re.MULTILINE)
    assert rows == [row_of(entry) for entry in TABLE]


def test_the_example_file_marks_what_is_live():
    example = (ROOT / 'config' / 'segmentation.yaml').read_text()
    live = re.findall(r'^ +(\w+): .*# live', example, re.MULTILINE)
    assert sorted(live) == sorted(entry.setting for entry in TABLE if entry.description.live)


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
