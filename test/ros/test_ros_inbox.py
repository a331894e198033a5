"""The hand-over from callback to worker."""

import threading
import time

import pytest

from vss_ros.ros.inbox import Inbox


def test_a_slot_keeps_the_newest_item():
    inbox = Inbox(1)
    assert [inbox.put(n) for n in range(3)] == [True, False, False]
    assert inbox.take() == 2


def test_a_queue_keeps_the_order_and_drops_the_oldest():
    inbox = Inbox(3)
    assert [inbox.put(n) for n in range(5)] == [True, True, True, False, False]
    assert [inbox.take() for _ in range(4)] == [2, 3, 4, None]


def test_taking_early_waits_and_gets_the_newest_of_that_time():
    inbox, due = Inbox(1), [float('inf')]
    inbox.put('old')

    def renew():
        inbox.put('new')
        due[0] = 0.0

    threading.Timer(0.05, renew).start()
    assert inbox.take(lambda: due[0]) == 'new'


def test_nothing_is_taken_before_its_time():
    inbox, start = Inbox(1), time.monotonic()
    inbox.put('item')
    assert inbox.take(lambda: start + 0.3) == 'item'
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize('far_s', [1e12, float('inf')])
def test_a_time_that_never_comes_can_be_waited_for_and_moved_up(far_s):
    inbox, due = Inbox(1), [far_s]
    inbox.put('item')
    threading.Timer(0.05, due.__setitem__, [0, 0.0]).start()
    assert inbox.take(lambda: due[0]) == 'item'


def test_closing_ends_every_wait():
    inbox = Inbox(1)
    threading.Timer(0.05, inbox.close).start()
    assert inbox.wait(30)
    assert inbox.is_closed
    assert inbox.take() is None


@pytest.mark.parametrize('end', [Inbox.close, Inbox.clear])
def test_an_item_that_is_forgotten_while_it_waits_for_its_time_is_not_waited_for(end):
    inbox = Inbox(1)
    inbox.put('item')
    threading.Timer(0.05, end, [inbox]).start()
    assert inbox.take(lambda: float('inf')) is None


def test_clearing_tells_how_many_items_were_forgotten():
    inbox = Inbox(3)
    for item in range(5):
        inbox.put(item)
    assert [inbox.clear(), inbox.clear()] == [3, 0]
