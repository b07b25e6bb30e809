"""A folder with a model file that needs no solver: runs of it take seconds."""

import pathlib

import pytest

CLOSED_FORM = """
import jax.numpy as jnp
import bilo_ppl as bilo
from bilo_ppl.run.model_file import load_model
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo

poisson = load_model("poisson")
problem, start, model = poisson.problem, poisson.start, poisson.model
synthetic_data, truth, reference_grid = (
    poisson.synthetic_data, poisson.truth, poisson.reference_grid
)

units = {"D": "m^2/s", "x": "m"}

class ClosedForm(AbstractSolutionOperator):
    problem: bilo.Problem
    def init_state(self):
        return ()
    def solve(self, theta, state):
        info = SolveInfo.of(jnp.array(0), jnp.array(0.0), jnp.array(True))
        return lambda x: jnp.sin(jnp.pi * x[0]) / theta["D"], (), info

def reference():
    return ClosedForm(problem)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder of a test, with the model file closed.py."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("closed.py").write_text(CLOSED_FORM)
    return tmp_path
