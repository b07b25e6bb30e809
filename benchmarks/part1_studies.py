"""The papers' own algorithm: simultaneous descent of weights and theta, and how robust it is.

    python benchmarks/part1_studies.py [--profile quick|paper] [--only NAME ...] [--out DIRECTORY]

1. "beside": Fisher-KPP without noise by simultaneous Adam with the residual gradient (Algorithm 1 of
   arXiv:2404.17789), on the points of `part1.py`: steps and CPU seconds until both parameters stay
   within 10, 5 and 1 %.
2. "robustness": the same (quick: on fewer points) for learning rates of theta and residual-gradient
   weights: a table and a figure.
3. "toy": the boundary-value toy: iterations to a parameter error of 0.01, simultaneous (outer Adam 0.05,
   inner Adam 1e-3) and nested with the neural adjoint.

Pretraining is by Levenberg-Marquardt where it is not part of the question. One thread, CPU seconds,
compilation included. Writes part1_studies.json and robustness.png.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
import time
from typing import Any

import jax
import numpy as np
import optax

import bilo_ppl as bilo
from bilo_ppl.estimate import History, find_map
from models import boundary_toy, fisher_kpp

jax.config.update("jax_enable_x64", True)

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
WEIGHTS = (1e-3, 1e-1, 1e1)
BESIDE = (1e-2, 1e-1)
"""The best learning rate, and the papers' weight."""

LEVELS = (0.1, 0.05, 0.01)


def errors(history: History, truth: dict[str, float]) -> np.ndarray:
    """The largest error of a parameter at every step, relative where the truth is not zero."""
    each = [np.abs(history.values[n] - t) / (abs(t) or 1.0) for n, t in truth.items()]
    return np.max(each, axis=0)


def stays_below(error: np.ndarray, level: float) -> int | None:
    """The first step from which the error stays below a level."""
    above = np.flatnonzero(~(error < level))
    first = int(above[-1]) + 1 if len(above) else 0
    return first if first < len(error) else None


class Fisher:
    """Simultaneous descent on Fisher-KPP from one pretrained operator for each weight."""

    def __init__(self, points: int, width: int, steps: int):
        self.problem = fisher_kpp.FisherKPP(points, points)
        self.width, self.steps = width, steps
        self.data = fisher_kpp.synthetic_data(0, noise=0.0)
        self.pretrained: dict[float, tuple[Any, float]] = {}

    def operator(self, weight: float) -> tuple[Any, float]:
        """The operator pretrained with a residual-gradient weight, and its CPU seconds."""
        if weight not in self.pretrained:
            begun = time.process_time()
            made = bilo.pretrain(
                self.problem,
                fisher_kpp.start,
                key=jax.random.key(0),
                solver=bilo.LevenbergMarquardt(1e-4, max_steps=40),
                sensitivity=bilo.ResidualGradient(weight),
                width=self.width,
                progress=False,
            )
            self.pretrained[weight] = made.operator, time.process_time() - begun
        return self.pretrained[weight]

    def run(self, rate: float, weight: float) -> dict:
        """One descent: errors at the end, and when they came below the levels."""
        operator, pretraining = self.operator(weight)
        adam = bilo.OptaxSolver(optax.adam(1e-3), tolerance=1e-4, max_steps=1)
        found = find_map(
            fisher_kpp.model,
            jax.random.key(2),
            bilo.FineTuned(operator, adam, bilo.ResidualGradient(weight)),
            self.data["x"],
            self.data["y"],
            1e-3,
            method="simultaneous",
            optimizer=optax.adam(rate),
            steps=self.steps,
            gradient_tolerance=0.0,
            progress=False,
        )
        error = errors(found.history, fisher_kpp.truth)
        reached = {f"{level:g}": stays_below(error, level) for level in LEVELS}
        clock = found.history.cpu_seconds
        return {
            "learning_rate": rate,
            "weight": weight,
            "error": float(error[-1]),
            "steps": found.history.steps,
            "status": found.status,
            "inner_loss": float(found.history.inner_loss[-1]),
            "steps_to": reached,
            "cpu_seconds_to": {
                k: None if i is None else float(clock[i]) for k, i in reached.items()
            },
            "cpu_seconds_pretrain": pretraining,
            "cpu_seconds": float(clock[-1]),
        }


def toy() -> dict:
    """Iterations of both methods on the toy, noise-free data."""
    data = boundary_toy.synthetic_data(0, noise=0.0)
    counts: dict[str, Any] = {}
    for method, sensitivity in (
        ("simultaneous", bilo.ResidualGradient()),
        ("nested", bilo.ImplicitDifferentiation()),
    ):
        adam = bilo.OptaxSolver(optax.adam(1e-3), tolerance=1e-6, max_steps=1000)
        operator, report = bilo.pretrain(
            boundary_toy.problem,
            boundary_toy.start,
            key=jax.random.key(0),
            solver=adam,
            sensitivity=sensitivity,
            width=50,
            depth=4,
            progress=False,
        )
        nested = method == "nested"
        inner = bilo.LevenbergMarquardt(1e-6, max_steps=20) if nested else adam
        begun = time.process_time()
        found = find_map(
            boundary_toy.model,
            jax.random.key(2),
            bilo.FineTuned(operator, inner, sensitivity),
            data["x"],
            data["y"],
            method=method,
            optimizer=None if nested else optax.adam(0.05),
            steps=300,
            progress=False,
        )
        first = stays_below(errors(found.history, boundary_toy.truth), 0.01)
        counts[method] = {
            "iterations": first,
            "inner_steps": None
            if first is None
            else int(found.history.inner_steps[: first + 1].sum()),
            "pretrain_steps": report.steps,
            "pretrain_loss": report.loss,
            "cpu_seconds": time.process_time() - begun,
        }
        print(f"toy, {method}: {counts[method]}", flush=True)
    return counts


def draw(rows: list[dict], path: pathlib.Path) -> None:
    """Error at the end against the learning rate, a line for each weight."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for weight in sorted({row["weight"] for row in rows}):
        line = [row for row in rows if row["weight"] == weight]
        axes.loglog(
            [row["learning_rate"] for row in line],
            [row["error"] for row in line],
            marker="o",
            label=f"{weight:g}",
        )
    axes.set_xlabel("learning rate of log theta")
    axes.set_ylabel(f"larger relative error of D and rho\nafter {rows[0]['steps']} steps")
    figure.legend(loc="outside upper center", ncols=len(WEIGHTS), title="residual-gradient weight")
    figure.savefig(path, dpi=150)


HEAD = f"{'rate':>7} {'weight':>7} {'error':>8} {'steps to 10, 5, 1 %':>22} {'CPU s':>6}  status"


def line(row: dict) -> str:
    """A row of the table of descents."""
    reached = ", ".join(str(step) for step in row["steps_to"].values())
    return (
        f"{row['learning_rate']:>7g} {row['weight']:>7g} {row['error']:>8.2g} {reached:>22} "
        f"{row['cpu_seconds']:>6.0f}  {row['status']}"
    )


STUDIES = ("toy", "beside", "robustness")


def main() -> None:
    """Run the studies."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--profile", choices=("quick", "paper"), default="quick")
    parser.add_argument("--only", nargs="*", choices=STUDIES, default=STUDIES)
    parser.add_argument("--out", default=".", help="folder for the results")
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.out)
    paper = arguments.profile == "paper"
    path = folder / "part1_studies.json"
    # Studies that are not run again stay as they are.
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def save():
        path.write_text(json.dumps(results, indent=1) + "\n")

    if "toy" in arguments.only:
        results["toy"] = toy()
        save()
    print(HEAD)
    if "beside" in arguments.only:
        fisher = Fisher(51, 128, 4000) if paper else Fisher(21, 64, 1500)
        results["beside"] = fisher.run(*BESIDE)
        print(line(results["beside"]), flush=True)
        save()
    if "robustness" in arguments.only:
        fisher = Fisher(51, 128, 4000) if paper else Fisher(17, 64, 1500)
        results["robustness"] = []
        for weight in WEIGHTS:
            for rate in RATES:
                results["robustness"].append(fisher.run(rate, weight))
                print(line(results["robustness"][-1]), flush=True)
                save()
        draw(results["robustness"], folder / "robustness.png")


if __name__ == "__main__":
    main()
