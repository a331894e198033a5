"""The table of parameters, without a node."""

import math
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from vss_ros.core.errors import SettingsError
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.ros.parameters import TABLE, build, checked_change, defaults
from vss_ros.ros.settings import NodeSettings, Settings

CONFIG = Path(__file__).parents[2] / 'config' / 'segmentation.yaml'


def flat(tree: dict, prefix: str = '') -> dict:
    return {
        name: value
        for key, entry in tree.items()
        for name, value in (
            flat(entry, f'{prefix}{key}.') if isinstance(entry, dict) else {prefix + key: entry}
        ).items()
    }


def test_every_setting_is_a_parameter_with_a_description():
    for owner in (EngineSettings, StreamSettings, NodeSettings):
        assert {entry.setting for entry in TABLE if entry.owner is owner} == {f.name for f in fields(owner)}
    assert all(entry.descriptor().description for entry in TABLE)


def test_every_number_has_a_range_and_every_choice_its_constraint():
    for entry in TABLE:
        descriptor = entry.descriptor()
        if isinstance(entry.default, bool):
            continue
        if isinstance(entry.default, (int, float)):
            assert descriptor.integer_range or descriptor.floating_point_range, entry.name
        if entry.description.choices:
            assert all(choice in descriptor.additional_constraints for choice in entry.description.choices)


def test_a_parameter_tells_when_it_can_change_beside_what_it_takes():
    told = {entry.name: entry.descriptor().additional_constraints for entry in TABLE}
    assert told['autostart'] == 'can be set only at start'
    assert [entry.name for entry in TABLE if entry.descriptor().read_only] == ['autostart']
    assert told['scheduler'] == 'one of fixed, adaptive'  # at any time
    assert told['output_size'] == 'one of input, network; can change only while the node is unconfigured'
    for entry in TABLE:
        if not entry.description.live and entry.name != 'autostart':
            assert told[entry.name].endswith('can change only while the node is unconfigured')


def test_the_defaults_are_those_of_the_settings():
    assert build(defaults()) == Settings()


def test_the_example_file_lists_every_parameter_with_its_default():
    tree = yaml.safe_load(CONFIG.read_text())['/**']['ros__parameters']
    values = flat(tree)
    assert values == defaults()
    assert {name: type(value) for name, value in values.items()} == {
        name: type(value) for name, value in defaults().items()
    }


def test_live_parameters_change_while_configured():
    changes = {'overlay_alpha': 0.25, 'key_frame_interval': 9, 'max_rate': 5.0}
    settings = checked_change(defaults(), changes, configured=True)
    assert (settings.node.overlay_alpha, settings.stream.key_frame_interval) == (0.25, 9)


@pytest.mark.parametrize('entry', [e for e in TABLE if not e.description.live], ids=lambda e: e.name)
def test_structural_parameters_change_only_while_unconfigured(entry):
    if entry.description.choices:
        other = entry.description.choices[-1]
    else:
        other = {bool: not entry.default, int: 7, float: 0.25, str: 'other'}[type(entry.default)]
    with pytest.raises(SettingsError, match=f'{entry.name} can change only while'):
        checked_change(defaults(), {entry.name: other}, configured=True)
    needed = {'provider': {'engine': 'onnxruntime'}}.get(entry.name, {})
    assert checked_change(defaults(), {entry.name: other, **needed}, configured=False) != build(
        {**defaults(), **needed}
    )
    assert checked_change(defaults(), {entry.name: entry.default}, configured=True) == Settings()


def test_one_bad_value_refuses_the_whole_set():
    with pytest.raises(SettingsError, match=r'engine is .warp drive.; use one of auto'):
        checked_change(defaults(), {'overlay_alpha': 0.1, 'engine': 'warp drive'}, configured=False)


def test_several_values_that_cannot_be_used_are_mended_one_by_one():
    given = {**defaults(), 'engine': 'onnx', 'precision': 'float32'}
    for change in ({'overlay_alpha': 0.25}, {'engine': 'onnxruntime'}, {'precision': 'fp32'}):
        checked_change(given, change, configured=False)
        given |= change
    assert build(given).node.overlay_alpha == 0.25


@pytest.mark.parametrize('entry', [e for e in TABLE if isinstance(e.default, float)], ids=lambda e: e.name)
def test_what_is_no_number_is_refused(entry):  # ranges of ROS let it through
    with pytest.raises(SettingsError, match=f'{entry.setting} is nan; use'):
        checked_change(defaults(), {entry.name: math.nan}, configured=False)


@pytest.mark.parametrize('name', ['max_rate', 'label_info_period'])
def test_next_to_nothing_is_refused_where_nothing_means_without_limit(name):
    for value in (5e-324, 1e-12):
        with pytest.raises(SettingsError, match=f'{name} is {value}; use 0, or .* and more'):
            checked_change(defaults(), {name: value}, configured=False)
    assert checked_change(defaults(), {name: 0.0}, configured=False)


def test_the_scheduler_and_its_budget_change_together_or_not_at_all():
    changes = {'scheduler': 'adaptive', 'key_frame_threshold': 0.8, 'max_key_share': 0.05}
    with pytest.raises(SettingsError, match='max_interval 15 alone makes one frame in 15 a key frame'):
        checked_change(defaults(), changes, configured=True)
    changes |= {'max_interval': 40}
    with pytest.raises(SettingsError, match='max_interval 15 alone'):
        checked_change(defaults() | changes, {'max_interval': 15}, configured=True)
    stream = checked_change(defaults(), changes, configured=True).stream
    assert (stream.scheduler, stream.key_frame_threshold, stream.max_interval) == ('adaptive', 0.8, 40)
