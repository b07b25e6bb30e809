"""Figure of the tolerance benchmark, drawn from its stored results.

python benchmarks/tolerance_figure.py results/tolerance.json
"""

import json
import pathlib
import sys
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

COLOURS = ("#b2182b", "#ef8a62", "#2166ac", "#1b7837", "#762a83")
ERRORS = {
    "total_variation": "total variation distance of the posterior",
    "mean_error": "|error of the mean| / posterior sd",
}


def draw(path: pathlib.Path) -> None:
    """Error against tolerance, twice, and error against CPU time, beside the JSON file."""
    results = json.loads(path.read_text())
    sigma = results["records"][0]["sigma"]
    records = [r for r in results["records"] if r["sigma"] == sigma and "total_variation" in r]
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
    for axis, (name, label) in zip(axes, ERRORS.items(), strict=False):
        _curves(axis, records, "tolerance", name)
        _slopes(axis, records, name)
        axis.set(xlabel="tolerance on the lower-level loss", ylabel=label)
        axis.invert_xaxis()
    _curves(axes[2], records, "cpu_ms", "total_variation")
    axes[2].set(
        xlabel="CPU ms for U and its gradient",
        ylabel=ERRORS["total_variation"],
    )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(
        f"Nonlinear Poisson posterior (noise {sigma}) under an inner tolerance"
        " (hollow: not all solves reached it)"
    )
    figure.savefig(path.with_suffix(".png"), dpi=150)
    plt.close(figure)


def _curves(axis: Any, records: list[dict], x: str, y: str) -> None:
    """One line for each method and way; hollow markers where solves missed the tolerance."""
    for colour, method in zip(COLOURS, dict.fromkeys(r["method"] for r in records), strict=False):
        for weights, style, marker in (("fresh", "-", "o"), ("carried", "--", "s")):
            chosen = [r for r in records if (r["method"], r["weights"]) == (method, weights)]
            axis.plot(
                [r[x] for r in chosen],
                [r[y] for r in chosen],
                style,
                color=colour,
                label=f"{method}, {weights} weights",
            )
            for r in chosen:
                face = colour if r["converged"] == 1 else "white"
                axis.plot(r[x], r[y], marker, color=colour, markerfacecolor=face, markersize=5)
    axis.set(xscale="log", yscale="log")
    axis.grid(True, which="major", alpha=0.3)


def _slopes(axis: Any, records: list[dict], name: str) -> None:
    """Reference lines of order 1/2 and 1 through one point."""
    x = np.array(sorted({r["tolerance"] for r in records}))
    for order, style in ((0.5, ":"), (1.0, "-.")):
        axis.plot(x, (x / x[-1]) ** order, style, color="grey", label=f"order {order:g}")
    low = min(r[name] for r in records if r[name] > 0)
    axis.set_ylim(bottom=low / 2, top=3)


if __name__ == "__main__":
    draw(pathlib.Path(sys.argv[1]))
