"""The figure of a comparison: its title, and that every method is in a legend."""

import types
from functools import partial
from unittest.mock import Mock

import numpy as np
import pytest

from bilo_ppl.run import record
from bilo_ppl.run.compare.figures import draw_posteriors
from bilo_ppl.run.compare.outcome import Outcome
from bilo_ppl.run.compare.pipeline import _Comparison
from bilo_ppl.run.compare.scores import Exact
from bilo_ppl.run.compare.settings import CompareSettings
from bilo_ppl.run.compare.task import Task

DRAWS = np.random.default_rng(0).normal(size=(2, 50))
OUTCOMES = {
    "numerical": Outcome({}, None, {"a": DRAWS, "b": DRAWS}),
    "adjoint": Outcome({"b": 30.0}, None),
}


def told(axes):
    return [[t.get_text() for t in ax.get_legend().texts] if ax.get_legend() else [] for ax in axes]


def test_a_method_without_the_first_unknown_is_in_the_legend_of_another():
    exact = Exact(None, {"b": DRAWS})
    ((_, axes),) = draw_posteriors(OUTCOMES, exact, {"a": 0.0})
    # So is an estimate that lies off the axis.
    bar = "5 to 95 %, median"
    assert told(axes) == [["numerical", "truth", bar], ["numerical", "adjoint (30)", bar]]
    alike = dict.fromkeys(("one", "two"), OUTCOMES["numerical"])
    ((_, axes),) = draw_posteriors(alike, exact, {})
    assert told(axes) == [["one", "two", bar], []]


def test_every_posterior_has_its_interval_below_the_densities():
    wide = Outcome({}, None, {"a": 2 * DRAWS + 1})
    ((_, (ax,)),) = draw_posteriors(
        {"one": Outcome({}, None, {"a": DRAWS}), "two": wide}, Exact(None, None), {}
    )
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2 and max(line.get_ydata()) < 0]
    assert len(bars) == 2
    for bar, values in zip(bars, (DRAWS, 2 * DRAWS + 1), strict=True):
        np.testing.assert_allclose(bar.get_xdata(), np.quantile(values, [0.05, 0.95]))
    heights = [bar.get_ydata()[0] for bar in bars]
    assert ax.get_ylim()[0] < heights[1] < heights[0] < 0
    # No tick is of a negative density.
    assert min(ax.get_yticks()) == 0


@pytest.mark.parametrize(
    ("data", "title"),
    [
        (None, "some: 2 of 3 methods have ended, data seed 7"),
        ("u.csv", "some: 2 of 3 methods have ended"),
    ],
)
def test_the_title_says_of_which_model_and_how_many_methods(data, title, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(record, "save_figure", lambda figure, path: figures.append(figure))
    settings = CompareSettings("models/some.py", methods="numerical,adjoint,rwm")
    kept = Mock(spec=record.Record, settings=settings, folder=Mock(path=tmp_path))
    kept.path = lambda name: tmp_path / name.replace("/", "-")
    kept.draw = partial(record.Record.draw, kept)
    task = Mock(
        spec=Task, data=data, data_seed=7, file=types.SimpleNamespace(truth=None, units=None)
    )
    _Comparison(settings, kept)._draw(OUTCOMES, Exact(None, None), task)
    (figure,) = figures
    assert figure.get_suptitle() == title
