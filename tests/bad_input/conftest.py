"""A command line that must be refused: with status 2, in a few words, before any work."""

import pathlib
import re

import jax
import pytest

from bilo_ppl.cli import main
from bilo_ppl.run import model_file
from bilo_ppl.run.map import pipeline as map_pipeline
from bilo_ppl.run.sample import pipeline as sample_pipeline

LINE = """
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Line(bilo.Problem):
    parameters = ("a",)
    components = 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(5)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) - theta["a"]


problem = Line()
start = {"a": 1.0}
architecture = {"width": 16, "depth": 2}


def model(operator, x, y=None, sigma=0.5):
    a = numpyro.sample("a", dist.LogNormal(0.0, 1.0))
    u = bilo.solution("u", operator, {"a": a})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    return {"x": problem.domain.grid(3), "y": np.zeros(3), "sigma": 0.1}


def reference():
    return bilo.ClosedForm(problem, lambda x, theta: theta["a"] * x[0])
"""
"""A model file with nothing wrong."""

LONGEST = 900
"""Characters of a message, the names of files not counted."""


class WorkHasBegunError(Exception):
    """What should have been refused was not."""


@pytest.fixture(autouse=True)
def _no_work(monkeypatch):
    """The first stage after the checks ends the test."""

    def begin(*args, **kwargs):
        raise WorkHasBegunError

    for pipeline in (sample_pipeline, map_pipeline):
        monkeypatch.setattr(pipeline, "make_operator", begin)


@pytest.fixture(scope="module", autouse=True)
def _without_compilation():
    """Operations one by one: there are thousands of small programs here, and each would run once.

    For no longer than a file of this folder: the process goes on with files of others.
    """
    with jax.disable_jit():
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder of a test, with the model file line.py."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("line.py").write_text(LINE)
    return tmp_path


@pytest.fixture(scope="session")
def loaded(tmp_path_factory):
    """The model file, loaded once: `load_model` is most of the time of a case."""
    path = tmp_path_factory.mktemp("model") / "line.py"
    path.write_text(LINE)
    return model_file.load_model(path)


@pytest.fixture
def known(loaded, folder, monkeypatch):
    """The same folder, of whose model file nothing is asked."""
    for pipeline in (sample_pipeline, map_pipeline):
        monkeypatch.setattr(pipeline, "load_model", lambda spec, learnt: loaded)
    return folder


@pytest.fixture
def refused(capsys):
    """``refused("run", "line.py", "--seed", "-1", saying="least")``: what the command has to say."""

    def run(*arguments: str, saying: str) -> str:
        before = _files()
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        assert status == 2, err
        assert out == ""
        assert "Traceback" not in err
        assert "bilo-ppl" in err
        assert "error: " in err
        said = err.partition("error: ")[2]
        assert re.search(saying, said, re.DOTALL), said
        short = re.sub(r"\S*/\S*", "", said)
        assert len(short) < LONGEST, f"{len(short)} characters: {said}"
        assert _files() == before
        return said

    return run


def _files() -> set[pathlib.Path]:
    return {path for path in pathlib.Path().rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module", autouse=True)
def _compiled_code_ends_with_its_file():
    """Here it does not: the files of this folder share thousands of small programs."""
    return
