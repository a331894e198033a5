"""Hands messages from a subscription's callback to the worker thread."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar('T')
LONGEST_S = 0.5  # between two looks at the clock, so that a time that was moved up is noticed


class Inbox(Generic[T]):
    """The newest `capacity` items; the oldest makes room for a new one.

    With a capacity of 1 this is the slot of the latest frame. `put` never blocks.
    Threads: the executor's puts, clears and closes, the worker takes; all under one condition.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._items: deque[T] = deque(maxlen=capacity)
        self._changed = Condition()
        self._closed = False

    @property
    def is_closed(self) -> bool:
        with self._changed:
            return self._closed

    def put(self, item: T) -> bool:
        """Adds an item; False if the oldest was dropped for it."""
        with self._changed:
            fits = len(self._items) < self.capacity
            self._items.append(item)
            self._changed.notify()
        return fits

    def take(self, not_before: Callable[[], float] = lambda: 0.0, longest_s: float = 0.0) -> T | None:
        """Waits up to `longest_s` for an item that is due, and removes and returns the oldest.

        None if there is none.

        Args:
            not_before: time of `time.monotonic()` until which items are left to be replaced. It may change.
        """
        end_s = time.monotonic() + longest_s
        with self._changed:
            while not self._closed:
                now, due_s = time.monotonic(), not_before() if self._items else math.inf
                if due_s <= now:
                    return self._items.popleft()
                if end_s <= now:
                    return None
                self._changed.wait(min(due_s - now, end_s - now, LONGEST_S))
        return None

    def clear(self) -> int:
        """Forgets what waits; returns how many items that were."""
        with self._changed:
            count = len(self._items)
            self._items.clear()
        return count

    def close(self) -> None:
        """Ends every `take`, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
