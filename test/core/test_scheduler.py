import pytest
from hypothesis import given
from hypothesis import strategies as st

from vss_ros.core.scheduler import FixedInterval


def places(scheduler, frames):
    """K where the schedule puts a key frame, starting behind one."""
    line, age = 'K', 0
    while len(line) < frames:
        age = 0 if scheduler.is_key(age + 1) else age + 1
        line += '.' if age else 'K'
    return line


@pytest.mark.parametrize(
    ('interval', 'line'), [(1, 'KKKKKKK'), (2, 'K.K.K.K'), (3, 'K..K..K'), (5, 'K....K.'), (99, 'K......')]
)
def test_fixed_interval_places_key_frames(interval, line):
    assert places(FixedInterval(interval), 7) == line


@given(st.integers(1, 20), st.integers(0, 100))
def test_a_frame_is_a_key_frame_from_the_interval_on(interval, age):
    assert FixedInterval(interval).is_key(age) == (age >= interval)
