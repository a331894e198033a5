import pytest

from vss_ros.core.errors import SettingsError
from vss_ros.core.settings import EngineSettings, StreamSettings


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
        ('motion', 'farneback', 'use one of model, network, dis, dis_half, motion_vectors'),
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
