"""What a loop says that it will take, from the steps that it has timed and from what others cost."""

import io
import sys

import pytest

from bilo_ppl import _blocks
from bilo_ppl._blocks import BlockReport, Lengths, run_blocks
from bilo_ppl._expected import Costs, Forecast, Work, costing, duration


class Loop:
    """Blocks whose units take given seconds, and which may compile first."""

    def __init__(self, each=1.0, compiling=0.0, finished_at=None, most_left=None):
        self.each, self.compiling, self.finished_at = each, compiling, finished_at
        self.most_left, self.now, self.done, self.compiled = most_left, 0.0, 0, 0.0
        self.said = []

    def __call__(self, length):
        if not self.done:
            self.compiled += self.compiling
            self.now += self.compiling
        each = self.each(self.done) if callable(self.each) else self.each
        self.now += each * length
        self.done += length
        return BlockReport(length, "", self.done == self.finished_at, self.most_left)

    @property
    def seconds(self):
        """As of a compiler."""
        return self.compiled

    def run(self, monkeypatch, total=100, costs=None, **options):
        monkeypatch.setattr(_blocks, "compiler", lambda: self)
        costs = Costs(self.said.append) if costs is None else costs
        lengths = options.pop("lengths", Lengths(10, fixed=True))
        with costing(costs):
            run_blocks(
                self,
                total,
                label="work",
                unit="step",
                lengths=lengths,
                clock=lambda: self.now,
                **options,
            )
        return costs


def test_what_the_first_block_took_is_what_the_others_will_take(monkeypatch, capsys):
    loop = Loop(each=0.5)
    loop.run(monkeypatch)
    (found,) = loop.said
    assert (found.seconds, found.left, found.units) == (50.0, 45.0, 100)
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "work: about 50 s at most (100 steps of 0.5 s)"
    assert len(err) == 2
    loop = Loop(each=0.5)
    loop.run(monkeypatch, at_most=False)
    assert capsys.readouterr().err.startswith("work: about 50 s (100 steps of 0.5 s)\n")


def test_compilation_is_no_step(monkeypatch):
    loop = Loop(each=0.5, compiling=30.0)
    loop.run(monkeypatch)
    (found,) = loop.said
    # The block that compiled tells nothing of the others, which tracing may have slowed down.
    assert (found.seconds, found.left) == (50.0, 40.0)


def test_a_very_dear_block_is_believed_though_it_compiled(monkeypatch):
    loop = Loop(each=8.0, compiling=30.0)
    loop.run(monkeypatch)
    assert (loop.said[0].seconds, loop.said[0].left) == (800.0, 720.0)


def test_of_what_is_short_nothing_is_said(monkeypatch, capsys):
    loop = Loop(each=0.001)
    loop.run(monkeypatch)
    assert not loop.said
    loop = Loop(each=0.01)
    loop.run(monkeypatch)
    # Known, but not worth a line.
    assert len(loop.said) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_of_a_loop_that_ends_nothing_is_said(monkeypatch):
    loop = Loop(each=5.0, finished_at=10)
    loop.run(monkeypatch)
    assert not loop.said


def test_what_a_loop_will_take_is_mended_upwards_only(monkeypatch):
    loop = Loop(each=lambda done: 1.0 if done < 30 else 5.0)
    loop.run(monkeypatch)
    assert [found.seconds for found in loop.said] == [100.0, 30 + 50 + 60 * 5.0]
    loop = Loop(each=lambda done: 1.0 if done < 30 else 0.1)
    loop.run(monkeypatch)
    assert len(loop.said) == 1


def test_a_loop_that_will_take_more_than_half_an_hour_is_told_of_once(monkeypatch):
    loop = Loop(each=lambda done: 15.0 if done < 30 else 25.0)
    loop.run(monkeypatch)
    assert [found.is_long for found in loop.said] == [False]
    loop = Loop(each=lambda done: 15.0 if done < 20 else 29.0)
    loop.run(monkeypatch)
    assert [found.is_long for found in loop.said] == [False, True]
    assert loop.said[1].left == 70 * 29.0


def test_what_can_still_follow_may_be_less_than_the_total(monkeypatch):
    loop = Loop(each=1.0, most_left=5)
    loop.run(monkeypatch, total=30)
    assert loop.said[0].seconds == 15.0


def test_a_typical_number_of_steps_is_doubled_where_it_was_not_enough(monkeypatch, capsys):
    loop = Loop(each=0.5)
    loop.run(monkeypatch, typical=16)
    assert loop.said[0].seconds == 8.0
    assert not loop.said[0].at_most
    assert capsys.readouterr().err.startswith(
        "work: about 8 s (16 steps of 0.5 s, at most 100)\nwork: about 32 s (64 steps"
    )
    assert [found.units for found in loop.said] == [16, 64]


def test_work_of_a_kind_that_was_done_before_is_known_before_it_starts(monkeypatch, capsys):
    costs = Loop(each=0.5).run(monkeypatch, work=Work("of one kind", 10.0))
    assert costs.rates == {"of one kind": pytest.approx(0.05)}
    capsys.readouterr()
    loop = Loop(each=2.0)
    costs.hear = loop.said.append
    with costing(costs):
        forecast = Forecast(100, "work", "step", Work("of one kind", 30.0))
        assert forecast.before().seconds == pytest.approx(150.0)
        assert Forecast(100, "work", "step", Work("of another", 30.0)).before() is None
        assert Forecast(100, "work", "step").before() is None
    assert Forecast(100, "work", "step", Work("of one kind", 30.0)).before() is None
    loop.run(monkeypatch, costs=costs, work=Work("of one kind", 30.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "work: about 150 s at most (100 steps of 1.5 s)"
    assert len(lines) == 2, "right to a factor of two"


def test_of_what_a_block_does_besides_other_work_knows_nothing():
    costs = Costs(lambda found: None)
    with costing(costs):
        forecast = Forecast(100, "work", "step", Work("of one kind", 2.0))
        found = forecast.after(BlockReport(10, "", at_work=4.0), 20.0)
    assert found.seconds == 200.0
    assert costs.rates == {"of one kind": 0.2}


def test_what_work_has_cost_last_is_what_is_known():
    costs = Costs(lambda found: None)
    with costing(costs):
        forecast = Forecast(100, "work", "step", Work("of one kind", 1.0))
        for seconds in (10.0, 2.0, 1.0):
            forecast.after(BlockReport(10, ""), seconds)
        assert costs.rates == {"of one kind": 0.1}
        # Other work in the same loop, and a block that compiles.
        forecast.after(BlockReport(10, "", most_left=50), 30.0)
        forecast.after(BlockReport(10, ""), 30.0, 28.0)
        assert costs.rates == {"of one kind": 0.1}


def test_a_line_above_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    Loop(each=0.5).run(monkeypatch)
    assert "work: about 50 s at most (100 steps of 0.5 s)\n" in terminal.getvalue()
    assert "100/100" in terminal.getvalue()


def test_without_progress_nothing_is_printed_but_a_run_is_told(monkeypatch, capsys):
    loop = Loop()
    loop.run(monkeypatch, progress=False)
    assert len(loop.said) == 1
    assert capsys.readouterr().err == ""


def test_seconds_in_words():
    assert [duration(s) for s in (0.6, 12.4, 599.0, 2400.0)] == [
        "1 s",
        "12 s",
        "599 s",
        "40 minutes",
    ]
