"""What other threads ask of a stream."""

from threading import Thread

import pytest

from vss_ros.core.settings import StreamSettings
from vss_ros.core.stream import requests as module
from vss_ros.core.stream.requests import Asked, Requests


def test_what_is_asked_is_taken_together_and_once():
    requests, settings = Requests(), StreamSettings(7)
    requests.ask(key_frame=True)
    requests.ask(settings=StreamSettings(3))
    requests.ask(reset_reason='bag loop')
    requests.ask(settings=settings)
    assert requests.take() == Asked(settings, 'bag loop', key_frame=True)
    assert requests.take() == Asked()


def test_nothing_is_lost_or_taken_twice_while_several_threads_ask():
    requests, taken = Requests(), []

    def ask(thread):
        for number in range(500):
            requests.ask(reset_reason=f'{thread} {number}', key_frame=True)

    threads = [Thread(target=ask, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken.append(requests.take())
    taken.append(requests.take())
    reasons = [asked.reset_reason for asked in taken if asked != Asked()]
    assert len(set(reasons)) == len(reasons)
    assert {asked.key_frame for asked in taken if asked.reset_reason} == {True}
    assert any(reason.endswith(' 499') for reason in reasons)


@pytest.mark.parametrize(
    ('step', 'first'), [('replace', lambda requests: requests.ask(key_frame=True)), ('Asked', Requests.take)]
)
def test_what_another_thread_asks_right_then_is_not_lost(monkeypatch, step, first):
    requests, work = Requests(), getattr(module, step)
    other = Thread(target=lambda: requests.ask(reset_reason='bag loop'))

    def meanwhile(*given, **wanted):
        if other.ident is None:
            other.start()
            other.join(0.2)  # within which it would be done if it did not wait
        return work(*given, **wanted)

    monkeypatch.setattr(module, step, meanwhile)
    first(requests)
    other.join()
    assert requests.take() == Asked(reset_reason='bag loop', key_frame=step == 'replace')
