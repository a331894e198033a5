"""The hand-over from callback to worker."""

import threading
import time

from vss_ros.ros.inbox import Inbox


def test_a_slot_keeps_the_newest_item():
    inbox = Inbox(1)
    assert [inbox.put(n) for n in range(3)] == [True, False, False]
    assert inbox.take() == 2


def test_a_queue_keeps_the_order_and_drops_the_oldest():
    inbox = Inbox(3)
    assert [inbox.put(n) for n in range(5)] == [True, True, True, False, False]
    assert [inbox.take() for _ in range(3)] == [2, 3, 4]


def test_taking_early_waits_and_gets_the_newest_of_that_time():
    inbox = Inbox(1)
    inbox.put('old')
    threading.Timer(0.05, inbox.put, ['new']).start()
    start = time.monotonic()
    assert inbox.take(not_before=start + 0.3) == 'new'
    assert time.monotonic() - start >= 0.3


def test_closing_ends_a_waiting_take():
    inbox = Inbox(1)
    threading.Timer(0.05, inbox.close).start()
    assert inbox.take() is None
    assert inbox.take() is None
