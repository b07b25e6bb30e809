"""What a run says of a stage before it starts, and of one that would take more than half an hour."""

import json

import pytest

from bilo_ppl import _expected
from bilo_ppl._blocks import BlockReport, Lengths, run_blocks
from bilo_ppl._expected import Expected
from bilo_ppl.inner.arithmetic import STEP_OF_A_FIT
from bilo_ppl.run.checks import prepare
from bilo_ppl.run.forecasts import Forecasts
from bilo_ppl.run.model_file import load_model
from bilo_ppl.run.record import Record
from bilo_ppl.run.sample.settings import SampleSettings


@pytest.fixture
def forecasts():
    content = {"compile_seconds": {}, "expected_seconds": {}, "long_stages": {}}
    warnings = []
    found = Forecasts(content, warnings.append)
    found.warnings = warnings
    return found


def expected(left, label="work", at_most=True):
    return Expected(label, "step", 100, 100, at_most, left, left)


def test_the_compilation_of_a_stage_follows_from_that_of_pretraining(forecasts):
    assert forecasts.begin("pretrain", float) == ""
    forecasts.content["compile_seconds"]["pretrain"] = 4.0
    assert forecasts.begin("adapt", float) == " Compilation: about 32 s."
    assert forecasts.content["expected_seconds"]["adapt"]["compilation"] == 32.0
    assert forecasts.begin("estimate 3", float) == " Compilation: about 8 s."
    forecasts.content["compile_seconds"]["estimate 3"] = 8.0
    # Of the next data set everything is compiled.
    assert forecasts.begin("estimate 4", float) == ""
    assert forecasts.begin("sampling", float) == ""
    forecasts.found = True
    assert forecasts.begin("adapt", float) == ""


def test_work_that_is_known_is_said_where_steps_have_been_timed(forecasts):
    assert forecasts.begin("certify", float, 1e9) == ""
    forecasts.costs.rates[STEP_OF_A_FIT] = 3e-8
    assert forecasts.begin("certify", float, 1e9) == " About 30 s."
    forecasts.content["compile_seconds"]["pretrain"] = 4.0
    assert forecasts.begin("certify", float, 1e9) == " Compilation: about 4 s. Then about 30 s."
    assert forecasts.begin("certify", float, 1e6) == " Compilation: about 4 s."


def test_a_stage_over_half_an_hour_is_told_of_once_with_what_is_cheaper(forecasts):
    forecasts.begin("sampling", lambda: 60.0)
    forecasts.costs.hear(expected(1000.0))
    assert not forecasts.warnings
    forecasts.costs.hear(expected(3600.0, at_most=False))
    forecasts.costs.hear(expected(7200.0))
    (text,) = forecasts.warnings
    assert "the stage sampling would take over half an hour, about 61 minutes (" in text
    assert "Cheaper: fewer --samples (--ess 400 ends with so many), --chains or --points" in text
    assert forecasts.content["long_stages"] == {"sampling": text}
    loops = forecasts.content["expected_seconds"]["sampling"]["loops"]
    assert [loop["seconds"] for loop in loops] == [1000.0, 3600.0, 7200.0]


def test_loops_of_a_stage_add_up(forecasts):
    clock = iter([0.0, 1200.0])
    forecasts.begin("adapt", lambda: next(clock))
    forecasts.costs.hear(expected(1200.0))
    assert not forecasts.warnings
    forecasts.costs.hear(expected(1200.0))
    assert "about 40 minutes at most" in forecasts.warnings[0]


def test_a_long_stage_stands_in_the_record_and_warns(folder, capsys):
    """By a clock that is fast: nobody waits."""
    settings = SampleSettings("closed.py", operator="numerical", quiet=True)
    plan, now = prepare(settings, load_model("closed.py")), [0.0]

    def block(length):
        now[0] += 10.0 * length
        return BlockReport(length, "", now[0] >= 200.0)

    with plan.folder:
        record = Record(plan.folder, settings)
        with record.stage("sampling", "Sampling."):
            run_blocks(
                block, 1000, label="sampling", unit="draw", lengths=Lengths(5, fixed=True),
                progress=False, at_most=False, clock=lambda: now[0],
            )  # fmt: skip
        record.status("finished")
        content = json.loads((record.path("run.json")).read_text())
    (text,) = content["long_stages"].values()
    assert "about 166 minutes (sampling: about 167 minutes (1000 draws of 10 s))" in text
    assert capsys.readouterr().err == f"WARNING: {text}\n"
    # Outside of its stages nothing is told.
    assert _expected._COSTS.get() is None
