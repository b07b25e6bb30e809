"""Results of the draws in a checkpoint: read as they were, and not computed twice."""

import json
import pathlib

import numpy as np
import pytest

from bilo_ppl import Certificate, SolveInfo
from bilo_ppl._checkpoint import Checkpoint, checkpoint_stage, kept_by
from bilo_ppl.cli import main
from bilo_ppl.diagnostics import Fit
from bilo_ppl.run.sample import results
from bilo_ppl.run.sample.kept_results import CERTIFICATE, FITS, GRID, SOLVES, kept
from bilo_ppl.validation.posterior_grid import GridPosterior

RUN = ["run", "closed.py", "--operator", "numerical", "--sampler", "hmc", "--chains", "2"]
SHORT = ["--quiet", "--warmup", "10", "--samples", "40", "--out", "here"]


def never():
    raise AssertionError("it was computed again")


def made(**values):
    numbers = {"against": "it", "draws": 3, "unsolved": 0, "left_out": 1, "achieved_loss": 1e-9}
    numbers |= {"energy_error_sd": 0.01, "kl_divergence": 1e-4, "effective_fraction": 0.99}
    shifted = {"k": (0.5, 0.6)}
    return Certificate(**numbers, pareto_k=float("nan"), means=shifted, sds=shifted, **values)


GRID_OF_TWO = GridPosterior(
    ("a", "b"), {"a": np.arange(3.0), "b": np.arange(2.0)}, np.arange(6.0).reshape(3, 2)
)
INFO = SolveInfo(np.array([[1, 2]]), np.array([[0.1, 0.2]], np.float32), np.array([[0, 1]]))


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (SOLVES, {"u": INFO, "v": INFO._replace(steps=np.array([[7, 8]]))}),
        (FITS, {"y": Fit(0.9, 0.4, 11, 100)}),
        (GRID, GRID_OF_TWO),
        (CERTIFICATE, made()),
    ],
)
def test_a_result_is_read_as_it_was(tmp_path, form, value):
    for make in (lambda: value, never):
        with kept_by(tmp_path / "kept.bin", pytest.fail):
            checkpoint_stage("look")
            found = kept(print, "it", 40, form, make)
        np.testing.assert_equal(vars_of(found), vars_of(value))
    # Of other draws, or in the next stage of the name, it is another one.
    with kept_by(tmp_path / "kept.bin", pytest.fail):
        checkpoint_stage("look")
        with pytest.raises(AssertionError, match="computed again"):
            kept(print, "it", 41, form, never)
        checkpoint_stage("look")
        with pytest.raises(AssertionError, match="computed again"):
            kept(print, "it", 40, form, never)


def read(folder):
    return json.loads(pathlib.Path(f"{folder}/run.json").read_text())


def vars_of(value):
    return vars(value) if hasattr(value, "__dict__") else value


def test_without_a_checkpoint_it_is_computed():
    assert kept(print, "it", 40, FITS, lambda: {}) == {}


def test_a_run_that_is_killed_in_its_figures_computes_nothing_again(folder, monkeypatch):
    monkeypatch.setattr(Checkpoint, "close", lambda self: self.log.close())
    assert main([*RUN, *SHORT[:-1], "whole"]) == 0

    class Killed(BaseException):
        pass

    def kill(*args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(results, "draw_posterior_figures", kill)
        with pytest.raises(Killed):
            main([*RUN, *SHORT])
    with monkeypatch.context() as patch:
        patch.setattr(results.diagnostics, "solves_and_fit", never)
        patch.setattr(results, "grid_posterior", never)
        assert main([*RUN, *SHORT, "--resume"]) == 0
    whole, found = read("whole"), read("here")
    for name in ("fit", "distances", "summary", "faults", "verdict"):
        assert found[name] == whole[name]
    # With more draws, they are computed of all.
    longer = [*SHORT[:4], "80", *SHORT[5:], "--resume"]
    assert main([*RUN, *longer]) == 0
    assert read("here")["distances"] != whole["distances"]
