"""Captions of a page: which data its figures are of."""

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
