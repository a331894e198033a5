"""Rates and latencies of a stream, without one."""

from __future__ import annotations

import numpy as np
import pytest

from vss_ros.ros.statistics import WINDOW, Rate, StreamStatistics


def rates(hz: float, end_s: float, looked_at: np.ndarray) -> list[float]:
    """What a rate says at some times about events that come regularly until they stop."""
    rate, seen, events = Rate(), [], list(np.arange(0, end_s, 1 / hz))
    for now in looked_at:
        while events and events[0] <= now:
            rate.tick(events.pop(0))
        seen.append(rate.hz(now))
    return seen


@pytest.mark.parametrize('hz', [0.3, 0.5, 1, 2, 5, 30])
def test_the_rate_of_a_regular_camera_is_its_rate_however_slow_it_is(hz):
    assert rates(hz, 60, np.arange(20, 50, 0.1)) == pytest.approx([hz] * 300)


def test_a_second_image_tells_a_rate():
    assert rates(0.3, 60, np.array([3.0, 3.4, 5.0])) == pytest.approx([0, 0.3, 0.3])


@pytest.mark.parametrize('hz', [0.3, 1, 30])
def test_the_rate_falls_to_zero_when_nothing_comes_any_more(hz):
    late = rates(hz, 20, 20 + np.arange(0, 4, 0.25) / min(hz, 1))
    assert late == sorted(late, reverse=True)
    assert late[0] == pytest.approx(hz)
    assert late[-1] == 0


def test_a_rate_after_a_long_pause_is_that_of_the_new_images():
    rate = Rate()
    for now in (0, 1, 2, 100, 100.1, 100.2):
        rate.tick(now)
    assert rate.hz(100.2) == pytest.approx(10)


def test_latencies_are_those_since_the_last_beginning():
    statistics = StreamStatistics()
    statistics.good_frame(900, None)
    statistics.start_over()
    assert statistics.latency_ms() == (0, 0)
    statistics.good_frame(20, None)
    assert statistics.latency_ms() == (20, 20)


def test_latencies_are_those_of_the_newest_frames_however_long_the_stream_is():
    statistics = StreamStatistics()
    for latency_ms in (*[900] * 50, *[20] * WINDOW):
        statistics.good_frame(latency_ms, None)
    assert statistics.latency_ms() == (20, 20)


@pytest.mark.parametrize('end', ['start_over', 'good_frame'])
def test_what_frames_in_a_row_have_in_common_ends_at_a_new_beginning_and_with_a_frame_that_is_well(end):
    statistics = StreamStatistics()
    for _ in range(2):
        statistics.good_frame(1, 'gap')
    assert [statistics.bad_frame('bad', error) for error in ('one', 'another')] == [1, 2]
    assert (statistics.restarts, statistics.last_error) == ({'gap': 2}, 'another')
    statistics.start_over() if end == 'start_over' else statistics.good_frame(1, None)
    assert (statistics.restarts, statistics.bad_in_a_row) == ({}, 0)
