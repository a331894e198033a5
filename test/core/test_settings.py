import dataclasses
from dataclasses import dataclass, fields

import numpy as np
import pytest

from vss_ros.core.described import Described, setting
from vss_ros.core.errors import SettingsError
from vss_ros.core.settings import EngineSettings, StreamSettings, engine_settings_for
from vss_ros.ros.settings import NodeSettings

WRONG = {  # kind of a field -> what it does not take, and what to use
    'bool': (['false', 'no', 1, 0.0, None], 'true or false'),
    'int': (['5', 2.5, 3.0, True, None, [5]], 'a whole number'),
    'float': (['0.5', False, None, (0.5,)], 'a number'),
    'str': ([5, True, None, ['auto'], b'auto'], 'a text'),
}


@pytest.mark.parametrize(
    ('setting', 'value', 'advice'),
    [
        ('engine', 'cuda', 'use one of auto, '),
        ('precision', 'fp7', 'use one of fp32, '),
        ('gpu_id', -1, 'use 0 to 255'),
        ('threads', -2, 'use 0 to 1024'),
        ('threads', 100_000, 'use 0 to 1024'),
    ],
)
def test_an_unusable_engine_setting_is_refused_with_its_value_and_what_to_use(setting, value, advice):
    with pytest.raises(SettingsError, match=f'{setting} is {value!r}; {advice}'):
        EngineSettings(**{setting: value})


@pytest.mark.parametrize(
    ('setting', 'value', 'advice'),
    [
        ('key_frame_interval', 0, 'use 1 to 100000'),
        ('key_frame_interval', -5, 'use 1 to 100000'),
        ('scheduler', 'random', 'use one of fixed, adaptive'),
        ('key_frame_threshold', 90.0, 'use 0 to 1'),
        ('key_frame_threshold', float('nan'), 'use 0 to 1'),
        ('min_interval', 0, 'use 1 to 100000'),
        ('max_interval', 1, r'use min_interval \(2\) or more'),
        ('max_key_share', 0.0, 'use 1e-05 to 1'),
        ('max_key_share', 1.2, 'use 1e-05 to 1'),
        ('key_share_window', 0, 'use 1 to 100000'),
        ('max_frame_gap_s', 0.0, 'use 0.001 or more'),
        ('max_frame_gap_s', float('nan'), 'use 0.001 or more'),
        ('confidence_threshold', 1.5, 'use 0 to 1'),
        ('confidence_threshold', -0.1, 'use 0 to 1'),
        ('confidence_threshold', float('nan'), 'use 0 to 1'),
        ('output_size', 'half', 'use one of input, network'),
        ('motion', 'farneback', 'use one of model, network, dis, dis_third, dis_half, motion_vectors'),
    ],
)
def test_an_unusable_stream_setting_is_refused_with_its_value_and_what_to_use(setting, value, advice):
    with pytest.raises(SettingsError, match=f'{setting} is {value!r}; {advice}'):
        StreamSettings(**{setting: value})


def test_the_limits_themselves_are_allowed():
    EngineSettings(gpu_id=0, threads=0)
    StreamSettings(key_frame_interval=1, confidence_threshold=0.0)
    StreamSettings(confidence_threshold=1.0)


def test_a_budget_that_the_intervals_break_is_refused():
    with pytest.raises(SettingsError, match=r'max_key_share is 0.05, and max_interval 15 alone makes'):
        StreamSettings(max_key_share=0.05)
    StreamSettings(max_key_share=0.05, max_interval=20)


def test_a_window_in_which_the_budget_is_no_key_frame_is_refused():
    with pytest.raises(SettingsError, match='key_share_window is 9; use 10 frames or more'):
        StreamSettings(max_key_share=0.1, key_share_window=9)


@pytest.mark.parametrize(
    ('owner', 'field'),
    [(owner, field) for owner in (EngineSettings, StreamSettings, NodeSettings) for field in fields(owner)],
    ids=lambda each: getattr(each, 'name', None),
)
def test_a_setting_of_another_kind_is_refused_with_its_value_and_what_to_use(owner, field):
    values, advice = WRONG[field.type]
    for value in values:
        with pytest.raises(SettingsError) as refused:
            owner(**{field.name: value})
        assert str(refused.value).startswith(f'{field.name} is {value!r}; use {advice}')


def test_of_a_number_that_is_none_the_range_is_told_too():
    with pytest.raises(SettingsError, match="min_interval is '2'; use a whole number, 1 to 100000 "):
        StreamSettings(min_interval='2')


def test_a_whole_number_is_a_number_and_those_of_numpy_are_as_good():
    settings = StreamSettings(np.int64(3), max_frame_gap_s=1, confidence_threshold=np.float32(0.5))
    assert settings == StreamSettings(3, max_frame_gap_s=1.0, confidence_threshold=0.5)


@pytest.mark.parametrize(
    ('sides', 'is_taken'),
    [((4, 8), True), ([4, 8], True), ((), True), (4, False), ('48', False), ([4, 8.5], False)],
)
def test_a_setting_of_several_numbers_takes_a_list_of_them(sides, is_taken):
    @dataclass(frozen=True)
    class Crop(Described):
        sides: tuple[int, ...] = setting((), 'height, width')

    if is_taken:
        assert Crop(sides).sides == sides
    else:
        with pytest.raises(SettingsError, match=r'sides is .*; use a list, each entry a whole number'):
            Crop(sides)


def test_graphs_that_may_run_at_once_share_one_pool_of_threads():
    engine = EngineSettings(threads=2)
    assert engine_settings_for(StreamSettings(), engine) == engine
    shared = engine_settings_for(StreamSettings(background_key_frames=True), engine)
    assert shared == dataclasses.replace(engine, spinning=True)
