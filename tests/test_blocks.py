"""The loop on the host: signals, the hook that saves, lengths of blocks, progress."""

import io
import signal
import sys
import threading

import pytest

from bilo_ppl._blocks import BlockReport, Ended, Interrupts, Lengths, run_blocks

INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.fixture(autouse=True)
def default_handlers():
    """Those of a Python program, whatever started the tests; put back afterwards."""
    before = {number: signal.getsignal(number) for number in (INT, TERM)}
    signal.signal(INT, signal.default_int_handler)
    signal.signal(TERM, signal.SIG_DFL)
    yield
    assert signal.getsignal(INT) is signal.default_int_handler
    assert signal.getsignal(TERM) == signal.SIG_DFL
    for number, handler in before.items():
        signal.signal(number, handler)


class Work:
    """Blocks that note their lengths, and raise signals in some of them."""

    def __init__(self, signals=None, finished_at=None, seconds=0.0):
        self.lengths, self.signals, self.finished_at = [], signals or {}, finished_at
        self.seconds, self.now = seconds, 0.0

    def __call__(self, length):
        for number in self.signals.get(len(self.lengths), ()):
            signal.raise_signal(number)
        self.lengths.append(length)
        self.now += self.seconds * length
        done = sum(self.lengths)
        return BlockReport(length, f"at {done}", done == self.finished_at)

    def clock(self):
        return self.now


def run(work, total=100, *, lengths=None, progress=False, **options):
    lengths = lengths or Lengths(10, fixed=True)
    options = {"label": "work", "unit": "step", "clock": work.clock, **options}
    return run_blocks(work, total, lengths=lengths, progress=progress, **options)


# Lengths.


def test_all_the_work_is_done_in_blocks_of_fixed_length():
    work = Work()
    assert run(work, 25) is Ended.FINISHED
    assert work.lengths == [10, 10, 5]


def test_a_block_that_says_so_is_the_last():
    work = Work(finished_at=20)
    assert run(work) is Ended.FINISHED
    assert work.lengths == [10, 10]


def test_nothing_to_do():
    work = Work()
    assert run(work, 0) is Ended.FINISHED
    assert work.lengths == []


def test_lengths_follow_the_time():
    work = Work(seconds=0.05)
    run(work, 100, lengths=Lengths(1000))
    assert work.lengths == [1, 2, 4, 8, 16, 20, 20, 20, 9], "20 steps take a second"
    work = Work(seconds=0.05)
    run(work, 60, lengths=Lengths(12, growth=4))
    assert work.lengths == [1, 4, 12, 12, 12, 12, 7]
    work = Work(seconds=5.0)
    run(work, 3, lengths=Lengths(10))
    assert work.lengths == [1, 1, 1]
    # A clock that has not moved is no reason to leap.
    assert Lengths(1000).after(8, 8, 0.0) == 16


# Signals.


@pytest.mark.parametrize("number", [INT, TERM])
def test_a_signal_in_a_block_ends_the_loop_after_it(number):
    work = Work({1: [number]})
    with Interrupts() as interrupts:
        assert run(work) is Ended.INTERRUPTED
        assert work.lengths == [10, 10]
        assert (interrupts.count, interrupts.number) == (1, number)
        assert interrupts.exit_status == 128 + number
        with pytest.raises(KeyboardInterrupt):
            interrupts.raise_if_any()


def test_a_signal_in_the_last_block_is_not_forgotten():
    assert run(Work({9: [INT]})) is Ended.INTERRUPTED
    assert run(Work({1: [INT]}, finished_at=20)) is Ended.INTERRUPTED


def test_ctrl_c_in_a_loop_of_the_library_ends_it_and_no_more():
    assert run(Work({0: [INT]})) is Ended.INTERRUPTED


def test_sigterm_in_a_loop_of_the_library_saves_and_exits():
    work, saved = Work({2: [TERM]}), []
    with pytest.raises(SystemExit) as stopped:
        run(work, save=lambda: saved.append(sum(work.lengths)))
    assert stopped.value.code == 143
    assert saved == [30]


def test_a_second_signal_raises_at_once():
    work = Work({1: [INT, INT]})
    with pytest.raises(KeyboardInterrupt):
        run(work)
    assert work.lengths == [10]
    work = Work({0: [INT], 1: [INT]})
    with Interrupts() as interrupts:
        run(work)
        with pytest.raises(KeyboardInterrupt):
            run(work)
        assert interrupts.count == 2


@pytest.mark.parametrize("number", [INT, TERM])
def test_outside_of_a_loop_a_signal_raises_at_once(number):
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert (interrupts.count, interrupts.number) == (1, number)


def test_after_an_interrupt_a_loop_still_does_a_block():
    """Its caller has something to go on with, and sees that it ended early."""
    work = Work({0: [INT]})
    with Interrupts():
        run(work)
        assert run(work) is Ended.INTERRUPTED
    assert work.lengths == [10, 10]


def test_nested_interrupts_are_the_outer_ones():
    with Interrupts() as outer:
        handler = signal.getsignal(INT)
        with Interrupts() as inner:
            assert inner is outer
        assert signal.getsignal(INT) == handler
        with outer.deferring(""):
            with Interrupts() as inner, inner.deferring(""):
                signal.raise_signal(INT)
            assert outer.count == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(INT)


def test_handlers_of_the_application_stay():
    heard = []
    signal.signal(TERM, lambda number, frame: heard.append(number))
    signal.signal(INT, signal.SIG_IGN)
    try:
        work = Work({0: [TERM, INT], 1: [INT]})
        assert run(work, 30) is Ended.FINISHED
        assert heard == [TERM]
        with Interrupts(own_process=True) as interrupts:
            assert run(Work({0: [INT]})) is Ended.INTERRUPTED
            assert run(Work()) is Ended.INTERRUPTED
        assert interrupts.number == INT
        assert signal.getsignal(INT) == signal.SIG_IGN
    finally:
        signal.signal(INT, signal.default_int_handler)
        signal.signal(TERM, signal.SIG_DFL)


def test_a_loop_in_another_thread_leaves_signals_alone():
    ended = []
    thread = threading.Thread(target=lambda: ended.append(run(Work())))
    thread.start()
    thread.join()
    assert ended == [Ended.FINISHED]


def test_an_error_in_a_block_goes_on_and_the_handlers_are_put_back():
    def broken(length):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_blocks(broken, 3, label="work", unit="step", lengths=Lengths(1), progress=False)


# Saving.


def test_the_hook_is_called_at_most_every_so_often():
    work, saved = Work(seconds=1.0), []
    run(work, 100, save=lambda: saved.append(sum(work.lengths)), save_seconds=25.0)
    assert saved == [30, 60, 90], "blocks of ten seconds"
    saved.clear()
    run(Work(seconds=1.0), 100, save=lambda: saved.append(None), save_seconds=1000.0)
    assert saved == []


def test_the_hook_is_called_once_at_an_interrupt():
    work, saved = Work({3: [INT]}, seconds=1.0), []
    ended = run(work, save=lambda: saved.append(sum(work.lengths)), save_seconds=40.0)
    assert ended is Ended.INTERRUPTED
    assert saved == [40]


# Progress.


def test_one_line_where_there_is_no_terminal(capsys):
    run(Work(), 20, progress=True)
    err = capsys.readouterr().err
    assert err.startswith("work: 20 steps, at 20 (")
    assert err.endswith(" s)\n")
    assert err.count("\n") == 1
    run(Work(), 1, progress=True)
    assert capsys.readouterr().err.startswith("work: 1 step, at 1 (")
    run(Work(), 0, progress=True)
    assert capsys.readouterr().err == ""


def test_an_interrupt_is_answered(capsys):
    run(Work({1: [INT]}), progress=True)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "work: stopping after this block; Ctrl-C again stops at once."
    assert second.startswith("work: interrupted after 20 steps, at 20 (")


def test_without_progress_nothing_is_written(capsys):
    run(Work({1: [INT]}))
    run(Work())
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    run(Work({9: [INT]}), progress=True)
    shown = terminal.getvalue()
    assert "100/100" in shown
    assert "at 100" in shown
    assert "\nwork: stopping after this block" in shown
    assert "interrupted after" not in shown
