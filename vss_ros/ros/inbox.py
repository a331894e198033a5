"""Hands messages from a subscription's callback to the worker thread."""

from __future__ import annotations

import time
from collections import deque
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar('T')


class Inbox(Generic[T]):
    """The newest `capacity` items; the oldest makes room for a new one.

    With a capacity of 1 this is the slot of the latest frame. `put` never blocks.
    """

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque(maxlen=capacity)
        self._changed = Condition()
        self._closed = False

    def put(self, item: T) -> bool:
        """Adds an item; False if the oldest was dropped for it."""
        with self._changed:
            fits = len(self._items) < (self._items.maxlen or 0)
            self._items.append(item)
            self._changed.notify()
        return fits

    def take(self, not_before: float = 0.0) -> T | None:
        """Waits for the oldest item and removes it; None once closed.

        Args:
            not_before: time of `time.monotonic()` until which items are left to be replaced.
        """
        with self._changed:
            while not self._closed:
                wait = not_before - time.monotonic()
                if wait > 0:
                    self._changed.wait(wait)
                elif self._items:
                    return self._items.popleft()
                else:
                    self._changed.wait()
        return None

    def wait(self, longest_s: float) -> bool:
        """Waits for an item and leaves it; False if none came in time. True once closed."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._items) or self._closed, longest_s)

    def clear(self) -> None:
        """Forgets what waits."""
        with self._changed:
            self._items.clear()

    def close(self) -> None:
        """Ends every `take`, now and later."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._items)
