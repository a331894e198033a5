import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vss_ros.core.settings import StreamSettings
from vss_ros.core.stream.scheduler import Adaptive, FixedInterval, make_scheduler


def places(scheduler, frames, expected=lambda age: None):
    """K where the schedule puts a key frame, starting with one; `expected` accuracy by age."""
    scheduler.took(True)
    line, age = 'K', 0
    while len(line) < frames:
        age = 0 if scheduler.is_key(age + 1, expected(age + 1)) else age + 1
        scheduler.took(age == 0)
        line += '.' if age else 'K'
    return line


def adaptive(**changes):
    return make_scheduler(StreamSettings(scheduler='adaptive', **{'key_frame_threshold': 0.9, **changes}))


@pytest.mark.parametrize(
    ('interval', 'line'), [(1, 'KKKKKKK'), (2, 'K.K.K.K'), (3, 'K..K..K'), (5, 'K....K.'), (99, 'K......')]
)
def test_fixed_interval_places_key_frames(interval, line):
    assert places(FixedInterval(interval), 7) == line


@given(st.integers(1, 20), st.integers(0, 100), st.none() | st.floats(0, 1))
def test_a_frame_is_a_key_frame_from_the_interval_on_whatever_is_expected_of_it(interval, age, expected):
    assert FixedInterval(interval).is_key(age, expected) == (age >= interval)


@pytest.mark.parametrize(
    ('changes', 'line'),
    [
        ({}, 'K..K..K..K'),
        ({'key_frame_threshold': 0.8}, 'K....K....'),
        ({'min_interval': 5}, 'K....K....'),
        ({'max_interval': 2}, 'K.K.K.K.K.'),
        ({'key_frame_threshold': 1.0, 'min_interval': 1}, 'KKKKKKKKKK'),
        ({'key_frame_threshold': 0.0}, 'K.........'),
        ({'max_key_share': 0.2, 'key_share_window': 10}, 'K..K......'),
        ({'max_key_share': 0.5, 'key_share_window': 4}, 'K..K..K..K'),
        ({'max_key_share': 0.25, 'key_share_window': 4}, 'K...K...K.'),  # as soon as the window allows it
    ],
)
def test_adaptive_places_key_frames_where_too_little_is_expected(changes, line):
    # What is expected falls by 0.045 a frame: under 0.9 at the third, under 0.8 at the fifth.
    assert places(adaptive(**changes), 10, lambda age: 1 - 0.045 * age) == line


def test_where_nothing_is_expected_adaptive_waits_for_its_longest_interval():
    assert places(adaptive(max_interval=4), 10) == 'K...K...K.'


def test_what_is_not_a_number_is_no_promise():
    assert places(adaptive(min_interval=1), 4, lambda age: math.nan) == 'KKKK'


def test_a_frame_of_which_just_enough_is_expected_is_propagated():
    assert not adaptive(min_interval=1, key_frame_threshold=0.75).is_key(1, 0.75)
    assert adaptive(min_interval=1, key_frame_threshold=0.75).is_key(1, 0.7499)


def test_asking_twice_about_a_frame_changes_nothing():
    scheduler = adaptive(max_key_share=0.5, key_share_window=4)
    scheduler.took(True)
    assert [scheduler.is_key(2, expected) for expected in (None, 0.95, 0.5, 0.95, 0.5)] == [
        False,
        False,
        True,
        False,
        True,
    ]


EXPECTED = st.lists(st.floats(0, 1), min_size=1, max_size=120)


@given(EXPECTED, st.integers(1, 6), st.integers(0, 10), st.floats(0, 1))
def test_no_interval_is_shorter_or_longer_than_allowed(expected, shortest, more, threshold):
    scheduler = adaptive(
        key_frame_threshold=threshold, min_interval=shortest, max_interval=shortest + more, max_key_share=1.0
    )
    values = iter(expected)
    line = places(scheduler, len(expected), lambda age: next(values))
    gaps = [len(gap) for gap in line[1:].split('K')]
    assert all(gap <= shortest + more - 1 for gap in gaps)
    assert all(gap >= shortest - 1 for gap in gaps[:-1])


@given(EXPECTED, st.integers(2, 30), st.floats(0.1, 1))
def test_no_window_has_more_key_frames_than_the_budget_allows(expected, window, share):
    window = max(window, math.ceil(1 / share))
    scheduler = adaptive(
        min_interval=1,
        max_interval=1000,
        max_key_share=share,
        key_share_window=window,
        key_frame_threshold=1.0,
    )
    values = iter(expected)
    line = places(scheduler, len(expected), lambda age: next(values))
    most = max(line[start : start + window].count('K') for start in range(len(line)))
    assert most <= max(1, share * window)


def test_the_longest_interval_is_kept_even_when_the_budget_is_spent():
    settings = {'max_key_share': 0.25, 'key_share_window': 8, 'max_interval': 4, 'min_interval': 1}
    line = places(adaptive(**settings), 12, lambda age: 0.0)
    assert line == 'KK...K...K..'


def test_the_settings_choose_the_scheduler():
    assert isinstance(make_scheduler(StreamSettings(scheduler='adaptive')), Adaptive)
    assert make_scheduler(StreamSettings(7)).frames == 7
