"""Counts what happens to the frames of a stream; written by two threads, read by the diagnostics."""

from __future__ import annotations

import copy
import math
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from vss_ros.core.stream.resets import WANTED

WINDOW = 300  # frames that the latency percentiles look back
RATE_WINDOW_S = 3.0
PAUSE_S = 1.0  # without a frame, after which slow ones are counted anew
RATE_LEAST = 4  # events that are looked at, however slowly they come


class Rate:
    """Events per second over the last RATE_WINDOW_S, or the last RATE_LEAST events if these are rarer.

    0 once they stop. Threads: as its owner, `StreamStatistics`, says.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def tick(self, now: float) -> None:
        if self._has_stopped(now):
            self._times.clear()
        self._times.append(now)
        while len(self._times) > RATE_LEAST and now - self._times[0] > RATE_WINDOW_S:
            self._times.popleft()

    def hz(self, now: float) -> float:
        if len(self._times) < 2 or self._has_stopped(now):
            return 0.0
        # The next event is late from one period after the last on.
        span_s = max(self._times[-1], now - self._period_s) - self._times[0]
        return (len(self._times) - 1) / max(span_s, 1e-3)

    def _has_stopped(self, now: float) -> bool:
        return bool(self._times) and now - self._times[-1] > max(RATE_WINDOW_S, 3 * self._period_s)

    @property
    def _period_s(self) -> float:
        """From one event to the next."""
        times = self._times
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else math.inf


@dataclass
class Tally:
    """What was counted until some moment.

    `counts` has `received` images, `dropped` (a newer one came), `discarded` (waited when the node was
    stopped or disabled), `undecoded` (packets of a video that gave no picture, before its first key picture
    or after a hole), `bad` (could not be used), `failed` (the engine or a publisher failed), `published`
    masks, `camera_info_received`, `camera_info_unmatched` (masks whose camera_info has another stamp, or that
    have none because those that came are of another camera or size); and what did not come to the node at
    all: `lost` on the way, as the middleware says, and `missed` by the publisher's count, which includes the
    lost ones and those that a newer image replaced before this process took them.
    """

    counts: Counter[str] = field(default_factory=Counter)  # since configure
    bad_in_a_row: int = 0
    last_error: str = ''
    last_received_s: float | None = None
    unanswered_since_s: float | None = None  # when the first image came after the last mask
    slow_for_s: float | None = None  # how long every frame has been too slow
    restarts: Counter[str] = field(default_factory=Counter)  # why each of the last frames began a new stream


class StreamStatistics:
    """Counts, rates and latencies of late, and why topics do not connect.

    Threads: the executor's and the worker write, and each may read; all under the lock.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._tally = Tally()
        self._slow_since_s = self._took_until_s = 0.0
        self._rates = {'received': Rate(), 'published': Rate()}
        self._latencies_ms: deque[float] = deque(maxlen=WINDOW)
        self._dropped_before = 0
        self._qos_problems: dict[str, tuple[float, str]] = {}  # by topic: when, what

    def snapshot(self) -> Tally:
        """What has been counted, all of it at one moment."""
        with self._lock:
            return copy.deepcopy(self._tally)

    def count(self, what: str, number: int = 1) -> None:
        """Adds to one of the totals."""
        with self._lock:
            self._count(what, number)

    def start_over(self) -> None:
        """Forgets what frames in a row have in common, and their latencies; the next one is the first."""
        with self._lock:
            self._latencies_ms.clear()
            self._tally.bad_in_a_row = 0
            self._tally.restarts.clear()
            self._tally.slow_for_s = self._tally.unanswered_since_s = None

    def forget_restarts(self) -> None:
        """What began new streams so far does not count any more."""
        with self._lock:
            self._tally.restarts.clear()

    def bad_frame(self, what: str | None, error: str) -> int:
        """Counts a `bad` or `failed` frame and returns how many came in a row; None: others count it."""
        with self._lock:
            if what is not None:
                self._count(what)
            self._tally.bad_in_a_row += 1
            self._tally.last_error = error
            return self._tally.bad_in_a_row

    def took(self, seconds: float, allowed_s: float) -> None:
        """Notes how long the worker had a frame, from the message to everything published."""
        now = time.monotonic()
        with self._lock:
            begun_s = now - seconds
            if self._tally.slow_for_s is None or begun_s - self._took_until_s > PAUSE_S:
                self._slow_since_s = begun_s
            self._tally.slow_for_s = now - self._slow_since_s if seconds > allowed_s else None
            self._took_until_s = now

    def good_frame(self, latency_ms: float, reset_reason: str | None) -> int:
        """Counts a published frame; returns how many were dropped since the one before.

        Args:
            reset_reason: why it began a new stream, if it did.
        """
        with self._lock:
            self._count('published')
            self._tally.bad_in_a_row = 0
            if reset_reason is None or reset_reason in WANTED:
                self._tally.restarts.clear()
            else:
                self._tally.restarts[reset_reason] += 1
            self._latencies_ms.append(latency_ms)
            dropped = self._tally.counts['dropped'] - self._dropped_before
            self._dropped_before = self._tally.counts['dropped']
        return dropped

    def qos_problem(self, topic: str, text: str) -> float:
        """Remembers why two ends of a topic do not connect; nobody says when it is mended.

        Returns:
            seconds since it last came up on this topic, infinite if it did not.
        """
        now = time.monotonic()
        with self._lock:
            before_s, _ = self._qos_problems.get(topic, (-math.inf, ''))
            self._qos_problems[topic] = (now, text)
        return now - before_s

    def forget_qos_problem(self, topic: str) -> None:
        """What made it is not there any more."""
        with self._lock:
            self._qos_problems.pop(topic, None)

    def qos_problems(self, newer_than_s: float, silent_topic: str = '') -> list[str]:
        """The problems that came up within the last seconds, and on a silent topic also older ones."""
        since = time.monotonic() - newer_than_s
        with self._lock:
            problems = self._qos_problems.items()
            return [text for topic, (when, text) in problems if when >= since or topic == silent_topic]

    def rate_hz(self, what: str) -> float:
        """Rate of `received` or `published` over the last few seconds."""
        with self._lock:
            return self._rates[what].hz(time.monotonic())

    def latency_ms(self) -> tuple[float, float]:
        """Median and 99th percentile from the arrival of an image to its published mask."""
        with self._lock:
            latencies = list(self._latencies_ms)
        if not latencies:
            return 0.0, 0.0
        median, tail = np.percentile(latencies, (50, 99))
        return float(median), float(tail)

    def _count(self, what: str, number: int = 1) -> None:
        now, tally = time.monotonic(), self._tally
        tally.counts[what] += number
        if what in self._rates:
            self._rates[what].tick(now)
        if what == 'received':
            tally.last_received_s = now
            if tally.unanswered_since_s is None:
                tally.unanswered_since_s = now
        if what == 'published':
            tally.unanswered_since_s = None
