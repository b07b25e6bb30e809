"""Captions of a page, which data its figures are of, and what it says of estimates."""

import pytest
from matplotlib.figure import Figure

from bilo_ppl.plots import save_figure
from bilo_ppl.run.report.sections import run_page


@pytest.mark.parametrize(
    ("estimates", "data", "end"),
    [
        (None, None, "."),
        ({"seeds": [3, 4]}, None, "; data seed 3."),
        ({"seeds": [3]}, "measured/u.csv", "; from u.csv."),
    ],
)
def test_figures_of_estimates_say_of_which_data(estimates, data, end, tmp_path):
    names = ("figures/descent.png", "figures/field_A.png")
    for name in names:
        save_figure(Figure(), tmp_path / name)
    content = {"status": "finished", "files": names, "arguments": {"model": "a.py", "data": data}}
    if estimates:
        count = len(estimates["seeds"])
        estimates |= {"theta": [{}] * count, "steps": [1] * count, "status": ["converged"] * count}
    page = run_page(content, tmp_path, estimates)
    assert f"<figcaption>U and the gradient along the descents{end}</figcaption>" in page
    assert f"<figcaption>field A{end}</figcaption>" in page


ESTIMATES = {
    "seeds": [0, 1],
    "theta": [{"A": 1.5}, {"A": 2.5}],
    "steps": [3, 4],
    "status": ["converged", "steps"],
}


def test_estimates_say_what_solved_for_them_and_what_a_better_solve_would_change(tmp_path):
    content = {
        "status": "finished",
        "arguments": {"model": "a.py"},
        "certificate": {"text": "ALARM: <much>", "shifts": {"A": 0.5}},
        "inner_report": ["Inner solver: Adam."],
    }
    solved = {
        "inner_steps": [30, 40],
        "inner_loss": {"values": [1e-7, 2e-3]},
        "u_relative_error": {"mean": 0.02, "sd": 0.01},
    }
    page = run_page(content, tmp_path, ESTIMATES | solved)
    row = "<td>data seed 1</td><td>2.5</td><td>4</td><td>40</td><td>0.002</td><td>steps</td>"
    assert row in page
    assert "<p>ALARM: &lt;much&gt;</p>" in page
    assert "<h2>Solves</h2>\n<p>Inner solver: Adam.</p>" in page
    assert "<td>2 %</td><td>1 %</td>" in page


def test_a_certificate_that_there_is_not_has_its_reason(tmp_path):
    content = {"status": "finished", "no_certificate": "No certificate: no tighter solve."}
    page = run_page(content, tmp_path, ESTIMATES)
    assert "the equation</h2>\n<p>No certificate: no tighter solve.</p></section>" in page


def test_estimates_of_an_older_version_have_a_page(tmp_path):
    content = {"status": "finished", "certificate": {"shifts": {"A": 0.5}}}
    page = run_page(content, tmp_path, ESTIMATES)
    assert (
        "<td>data seed 0</td><td>1.5</td><td>3</td><td>–</td><td>–</td><td>converged</td>" in page
    )
    assert "<tr><td>A</td><td>0.5</td></tr>" in page
    assert "<h2>Solves" not in page
