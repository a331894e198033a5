"""The hand-over from callback to worker."""

import threading
import time

import pytest

from vss_ros.ros import inbox as module
from vss_ros.ros.inbox import Inbox


@pytest.fixture
def rare_looks(monkeypatch):
    """What a test waits for is not found by the next look at the clock."""
    monkeypatch.setattr(module, 'LONGEST_S', 60)


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
    assert inbox.take(lambda: due[0], 30) == 'new'


@pytest.mark.usefixtures('rare_looks')
def test_an_item_is_taken_at_its_time_and_not_before():
    inbox, start = Inbox(1), time.monotonic()
    inbox.put('item')
    assert inbox.take(lambda: start + 0.3, 30) == 'item'
    assert 0.3 <= time.monotonic() - start < 20


@pytest.mark.parametrize('far_s', [1e12, float('inf')])
def test_a_time_that_never_comes_can_be_waited_for_and_moved_up(far_s):
    inbox, due, start = Inbox(1), [far_s], time.monotonic()
    inbox.put('item')
    threading.Timer(0.05, due.__setitem__, [0, 0.0]).start()
    assert inbox.take(lambda: due[0], 30) == 'item'
    assert time.monotonic() - start < 20


@pytest.mark.usefixtures('rare_looks')
def test_an_item_is_waited_for_no_longer_than_is_said_and_stays():
    inbox, start = Inbox(1), time.monotonic()
    assert inbox.take(longest_s=0.1) is None
    inbox.put('item')
    assert inbox.take(lambda: float('inf'), 0.1) is None
    assert 0.2 <= time.monotonic() - start < 20
    assert inbox.take() == 'item'


@pytest.mark.usefixtures('rare_looks')
def test_an_item_that_comes_meanwhile_is_taken_at_once():
    inbox, start = Inbox(1), time.monotonic()
    threading.Timer(0.05, inbox.put, ['item']).start()
    assert inbox.take(longest_s=30) == 'item'
    assert time.monotonic() - start < 20


@pytest.mark.usefixtures('rare_looks')
@pytest.mark.parametrize('items', [[], ['item']])
def test_closing_ends_every_wait_at_once(items):
    inbox, start = Inbox(1), time.monotonic()
    for item in items:
        inbox.put(item)
    threading.Timer(0.05, inbox.close).start()
    assert inbox.take(lambda: float('inf'), 30) is None
    assert time.monotonic() - start < 20
    assert inbox.is_closed
    assert inbox.take() is None


def test_an_item_that_is_forgotten_while_it_waits_for_its_time_is_not_taken():
    inbox, due = Inbox(1), [float('inf')]
    inbox.put('old')
    threading.Timer(0.05, inbox.clear).start()
    threading.Timer(0.1, inbox.put, ['new']).start()
    threading.Timer(0.15, due.__setitem__, [0, 0.0]).start()
    assert inbox.take(lambda: due[0], 30) == 'new'


def test_clearing_tells_how_many_items_were_forgotten():
    inbox = Inbox(3)
    for item in range(5):
        inbox.put(item)
    assert [inbox.clear(), inbox.clear()] == [3, 0]
