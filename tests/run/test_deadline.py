"""A process ends in time after a signal, whatever its main thread is busy with."""

import signal
import time

import pytest

from bilo_ppl.run import deadline
from bilo_ppl.run.deadline import Deadline


@pytest.fixture(autouse=True)
def noted(monkeypatch):
    """Signals that are noted and no more, as where a handler's exception is swallowed."""
    numbers = signal.SIGINT, signal.SIGTERM
    before = {n: signal.signal(n, lambda *args: None) for n in numbers}
    monkeypatch.setattr(deadline, "PATIENCE", 0.6)
    monkeypatch.setattr(deadline, "HASTE", 0.05)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def waited_for(ended, seconds=10.0):
    begun = time.monotonic()
    while not ended and time.monotonic() - begun < seconds:
        time.sleep(0.01)
    return time.monotonic() - begun


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_goes_on_is_ended(number):
    ended, said = [], []
    with Deadline(ended.append) as end:
        end.last_words = said.append
        signal.raise_signal(number)
        assert waited_for(ended) > 0.5
    assert ended == [128 + number]
    assert said == [number]


def test_a_second_signal_ends_it_at_once():
    ended = []
    with Deadline(ended.append):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.1)
        assert not ended
        signal.raise_signal(signal.SIGINT)
        waited_for(ended)
    assert ended == [130]


def test_last_words_that_take_long_are_cut_off(monkeypatch):
    monkeypatch.setattr(deadline, "LAST_WORDS", 0.1)
    ended = []
    with Deadline(ended.append) as end:
        end.last_words = lambda number: time.sleep(5)
        signal.raise_signal(signal.SIGINT)
        assert waited_for(ended) < 4
    assert ended == [130]


def test_a_process_that_has_ended_by_itself_is_left_alone():
    ended = []
    with Deadline(ended.append):
        signal.raise_signal(signal.SIGINT)
    with Deadline(ended.append):
        pass
    time.sleep(0.8)
    assert ended == []
    assert signal.set_wakeup_fd(-1) == -1


def test_a_process_that_ends_after_a_signal_is_not_ended_by_another():
    with deadline.ending_in_time():
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.raise_signal(signal.SIGTERM)
    with deadline.ending_in_time():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
