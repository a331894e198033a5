"""Rates and latencies of a stream, without one."""

from __future__ import annotations

import math
import threading

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
def test_the_rate_falls_step_by_step_to_zero_when_nothing_comes_any_more(hz):
    late = rates(hz, 20, 20 + np.arange(0, 4, 0.25) / min(hz, 1))
    assert late == sorted(late, reverse=True)
    assert late[0] == pytest.approx(hz)
    assert 0 < late[4] < 0.8 * hz
    assert late[-1] == 0


def test_a_rate_after_a_long_pause_is_that_of_the_new_images():
    rate = Rate()
    for now in (0, 1, 2, 100, 100.1, 100.2):
        rate.tick(now)
    assert rate.hz(100.2) == pytest.approx(10)


def test_the_rate_of_images_that_come_unevenly_is_that_of_the_last_seconds():
    rate = Rate()
    for number in range(100):  # two at a time, five times a second
        rate.tick(0.2 * (number // 2) + 0.02 * (number % 2))
    assert rate.hz(9.82) == pytest.approx(10, rel=0.1)


def test_the_rate_of_a_camera_that_was_faster_before_is_that_of_the_last_seconds():
    rate = Rate()
    for now in (*np.arange(0, 20, 1 / 30), *np.arange(20, 25, 1 / 5)):
        rate.tick(now)
    assert rate.hz(24.8) == pytest.approx(5)


def test_latencies_are_told_by_their_median_and_by_what_one_of_a_hundred_exceeds(statistics):
    for latency_ms in (*[20] * 97, *[900] * 4):
        statistics.good_frame(latency_ms, None)
    assert statistics.latency_ms() == (20, 900)


def test_latencies_are_those_since_the_last_beginning(statistics):
    statistics.good_frame(900, None)
    statistics.start_over()
    assert statistics.latency_ms() == (0, 0)
    statistics.good_frame(20, None)
    assert statistics.latency_ms() == (20, 20)


def test_latencies_are_those_of_the_newest_frames_however_long_the_stream_is(statistics):
    for latency_ms in (*[900] * 50, *[20] * WINDOW):
        statistics.good_frame(latency_ms, None)
    assert statistics.latency_ms() == (20, 20)


def test_frames_are_slow_for_as_long_as_each_one_is(statistics, later):
    for seconds, slow_for_s in ((0.1, None), (0.3, 0), (0.3, 1), (0.21, 2), (0.2, None), (0.21, 0)):
        statistics.took(seconds, allowed_s=0.2)
        assert statistics.snapshot().slow_for_s == pytest.approx(slow_for_s, abs=0.5)
        later(1)


def test_a_pause_is_no_time_in_which_frames_were_slow(statistics, later):
    for pause_s, slow_for_s in ((0, 0.3), (0.5, 0.8), (20, 0.3)):
        later(pause_s)
        statistics.took(0.3, allowed_s=0.2)
        assert statistics.snapshot().slow_for_s == pytest.approx(slow_for_s, abs=0.2)


def test_what_is_counted_after_a_snapshot_does_not_change_it(statistics):
    statistics.bad_frame('bad', 'one')
    before = statistics.snapshot()
    statistics.bad_frame('bad', 'another')
    statistics.good_frame(1, 'gap')
    assert (before.counts, before.last_error, before.restarts) == ({'bad': 1}, 'one', {})


@pytest.mark.parametrize(
    ('count', 'in_a_row'),
    [(StreamStatistics.count, 0), (lambda statistics, what: statistics.bad_frame(what, 'an error'), 1)],
)
def test_a_snapshot_that_is_asked_for_while_a_frame_is_counted_has_all_of_it_or_nothing(
    statistics, count, in_a_row
):
    class Counted(str):
        """Is looked up once while it is counted."""

        def __hash__(self):
            if reader.ident is None:
                reader.start()
                reader.join(0.2)  # within which it would be done if it did not wait
            return super().__hash__()

    seen = []
    reader = threading.Thread(target=lambda: seen.append(statistics.snapshot()))
    count(statistics, Counted('bad'))
    reader.join()
    [tally] = seen
    assert (tally.counts, tally.bad_in_a_row, bool(tally.last_error)) == ({'bad': 1}, in_a_row, in_a_row == 1)


@pytest.mark.parametrize('end', ['start_over', None, 'requested'])
def test_what_frames_in_a_row_have_in_common_ends_at_a_new_beginning_and_with_a_frame_that_is_well(
    statistics, end
):
    for _ in range(2):
        statistics.good_frame(1, 'gap')
    statistics.count('received')
    assert [statistics.bad_frame('bad', error) for error in ('one', 'another')] == [1, 2]
    tally = statistics.snapshot()
    assert (tally.restarts, tally.last_error) == ({'gap': 2}, 'another')
    assert tally.unanswered_since_s is not None
    statistics.start_over() if end == 'start_over' else statistics.good_frame(1, end)
    tally = statistics.snapshot()
    assert (tally.restarts, tally.bad_in_a_row, tally.unanswered_since_s) == ({}, 0, None)


def test_a_frame_tells_how_many_were_dropped_since_the_one_before(statistics):
    told = []
    for dropped in (2, 0, 3):
        statistics.count('dropped', dropped)
        told.append(statistics.good_frame(1, None))
    assert told == [2, 0, 3]


def test_each_topic_that_does_not_connect_is_news_of_its_own(statistics):
    assert statistics.qos_problem('/mask', 'reliability') == math.inf
    assert statistics.qos_problem('/confidence', 'reliability') == math.inf
    assert statistics.qos_problem('/mask', 'durability') < 60
