"""Tables and figure of the benchmark of many unknowns, from its stored results.

python benchmarks/unknowns_table.py results/unknowns.json
"""

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

STYLES = {"features": ("#2166ac", "o"), "numerical": ("#b2182b", "s")}


def speeds(record: dict[str, Any]) -> tuple[float, float]:
    """Effective draws per CPU second of the coefficient with the fewest: in sampling, and in all."""
    ess, seconds = min(record["ess"]), record["cpu_seconds"]
    return ess / seconds["sampling"], ess / sum(seconds.values())


def off_by(record: dict[str, Any], exact: dict[str, Any]) -> tuple[float, float, float]:
    """Differences of the means in Monte Carlo errors of both: root mean square, largest; and the
    largest in posterior standard deviations."""
    means, errors = (np.array([r[key] for r in (record, exact)]) for key in ("mean", "mcse"))
    apart = np.abs(means[0] - means[1])
    units = apart / np.sqrt((errors**2).sum(axis=0))
    return float(np.sqrt((units**2).mean())), float(units.max()), float((apart / exact["sd"]).max())


def table(records: Sequence[dict[str, Any]]) -> str:
    """A row for each number of coefficients and way."""
    lines = [
        "| coefficients | way | gradient, CPU ms | gradients a draw | draws, least effective | "
        "effective draws per CPU s: sampling, in all | CPU s: before sampling, sampling | "
        "mean off in Monte Carlo errors: rms, largest | largest in sd | R-hat | basis, points |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    exact = {r["coefficients"]: r for r in records if r["way"] == "numerical"}
    for r in records:
        seconds, fast = r["cpu_seconds"], speeds(r)
        off = ["", ""]
        if r["way"] == "features" and r["coefficients"] in exact:
            rms, largest, in_sd = off_by(r, exact[r["coefficients"]])
            off = [f"{rms:.2f}, {largest:.1f}", f"{in_sd:.2f}"]
        before = sum(seconds.values()) - seconds["sampling"]
        sizes = ", ".join(map(str, r["sizes"])) if r["sizes"] else ""
        cells = [
            *(str(r["coefficients"]), r["way"], f"{r['gradient_ms']:.2f}"),
            f"{r['gradients_per_draw']:.0f}",
            f"{r['draws']}, {min(r['ess']):.0f}",
            f"{fast[0]:.1f}, {fast[1]:.2f}",
            f"{before:.0f}, {seconds['sampling']:.0f}",
            *(*off, f"{r['r_hat']:.3f}", sizes),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def growth_table(records: Sequence[dict[str, Any]]) -> str:
    """A row for each operator and size."""
    lines = [
        "| operator | coefficients | features or nodes | collocation points | basis, points looked at | "
        "U, CPU ms | with gradient |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in sorted(records, key=lambda r: r["way"]):
        sizes = ", ".join(map(str, r["sizes"])) if r.get("sizes") else ""
        lines.append(
            f"| {r['way']} | {r['coefficients']} | {r['size']} | {r.get('points', '')} | {sizes} | "
            f"{r['value_ms']:.3g} | {r['gradient_ms']:.3g} |"
        )
    return "\n".join(lines)


def draw(path: pathlib.Path) -> None:
    """Cost of a gradient, gradients of a draw, and effective draws, beside the JSON file."""
    records = json.loads(path.read_text())["cases"]
    panels = {
        "CPU ms of U and its gradient": lambda r: r["gradient_ms"],
        "gradients per least effective draw": lambda r: (
            r["gradients_per_draw"] * r["draws"] / min(r["ess"])
        ),
        "effective draws per CPU s, sampling": lambda r: speeds(r)[0],
        "effective draws per CPU s, in all": lambda r: speeds(r)[1],
    }
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.6), layout="constrained")
    for axis, (label, value) in zip(axes, panels.items(), strict=True):
        for way, (colour, marker) in STYLES.items():
            chosen = [r for r in records if r["way"] == way]
            x, y = [r["coefficients"] for r in chosen], [value(r) for r in chosen]
            axis.plot(x, y, marker=marker, color=colour, label=way)
        axis.set(xscale="log", yscale="log", xlabel="coefficients", title=label)
        axis.title.set_fontsize(10)
        axis.grid(True, which="major", alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path.with_suffix(".png"), dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    stored = json.loads(pathlib.Path(sys.argv[1]).read_text())
    print("\n".join([table(stored["cases"]), "", growth_table(stored["growth"])]))
    draw(pathlib.Path(sys.argv[1]))
