"""The page about the ROS interface says what the node does."""

from __future__ import annotations

import re
from pathlib import Path

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


def test_the_page_names_every_output_topic_and_every_launch_argument():
    sink = (ROOT / 'vss_ros' / 'ros' / 'topic_sink.py').read_text()
    for name in re.findall(r"_create\('([\w/]+)'", sink):
        assert f'`~/{name}`' in PAGE
    for launch_file in (ROOT / 'launch').glob('*.launch.py'):
        assert f'`{launch_file.name}`' in PAGE
        for name in re.findall(r"^    \('(\w+)', ", launch_file.read_text(), re.MULTILINE):
            assert f'`{name}`' in PAGE, f'{launch_file.name} has the argument {name}'
