"""Darcy flow with 64 coefficients: solutions and gradients by finite volumes and by an output layer.

    python benchmarks/darcy.py [--parts forward cost] [--out FILE.json]

- ``forward``: error of u for five draws from the prior, by operator, against 512 x 512 cells;
- ``cost``: CPU milliseconds of a solve and of U and its gradient.

The features of the output layer are `bilo_ppl.operators.random_features`. One process, one thread, double
precision. `compare_runs.py` compares the posteriors.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bilo_ppl as bilo
from benchmarks.plane import milliseconds
from bilo_ppl.operators.random_features import random_features
from models import darcy as case

jax.config.update("jax_enable_x64", True)

PRIOR_DRAWS = 5
TOLERANCE = 1.0
"""Of the output layer's loss, in units of the equation's right side, 10, squared: 1 %."""
SCALE = 1.5
"""Of the features: what `choose_random_features` chooses."""


def output_layer(problem: Any, width: int) -> bilo.OutputLayer:
    """One hidden layer of random units; only its output layer is ever fitted."""
    key = jax.random.key(0)
    local = random_features(problem, case.start, count=width, scale=SCALE, key=key)
    return bilo.OutputLayer(local, case.start, tolerance=TOLERANCE)


def operators(kind: Any) -> Iterator[tuple[str, Any]]:
    """By name."""
    for cells in (32, 64, 128):
        yield f"finite volumes {cells}", case.reference(cells, case.Darcy(kind))
    for n, width in ((31, 128), (31, 256), (61, 484)):
        yield f"output layer {n} x {n}, {width}", output_layer(case.Darcy(kind, n), width)


def forward(arguments: Any) -> Iterator[dict]:
    """Relative L2 errors of u at 1500 random points."""
    x = jnp.asarray(np.random.default_rng(3).uniform(size=(1500, 2)))
    draws = np.random.default_rng(0).normal(size=(PRIOR_DRAWS, case.MODES**2))
    for kind in (case.two_rocks, case.smooth):
        fine = None
        for name, operator in [("", case.reference(512, case.Darcy(kind))), *operators(kind)]:

            @jax.jit
            def solved(a, operator=operator):
                u, _, info = operator.solve({"a": a}, operator.init_state())
                return jax.vmap(u)(x), info.loss

            values, losses = (np.array(part) for part in zip(*map(solved, draws), strict=True))
            if fine is None:
                fine = values
                continue
            errors = np.linalg.norm(values - fine, axis=1) / np.linalg.norm(fine, axis=1)
            yield {
                "part": "forward",
                "permeability": kind.__name__,
                "operator": name,
                "errors": errors.tolist(),
                "max_error": float(np.abs(values - fine).max() / np.abs(fine).max()),
                "losses": losses.tolist(),
            }


def energy(operator: Any, data: dict) -> Any:
    """U as a function of the coefficients."""

    def value(a):
        u = operator.solve({"a": a}, operator.init_state())[0]
        misfit = (jax.vmap(u)(jnp.asarray(data["x"])) - data["y"]) / data["sigma"]
        return (jnp.sum(misfit**2) + a @ a) / 2

    return value


def cost(arguments: Any) -> Iterator[dict]:
    """Milliseconds, at a draw from the prior."""
    data, a = case.synthetic_data(0), jnp.asarray(case.truth["a"])
    for name, operator in operators(case.two_rocks):
        value = energy(operator, data)
        solved = milliseconds(lambda a, op=operator: op.solve({"a": a}, op.init_state())[1:], a)
        yield {
            "part": "cost",
            "operator": name,
            "solve_ms": solved,
            "energy_ms": milliseconds(value, a),
            "gradient_ms": milliseconds(jax.value_and_grad(value), a),
        }


PARTS = {f.__name__: f for f in (forward, cost)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", default="darcy.json")
    arguments = parser.parse_args()
    records = []
    for part in arguments.parts:
        for record in PARTS[part](arguments):
            records.append(record)
            shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in record.items()}
            print(", ".join(f"{k} {v}" for k, v in shown.items()), flush=True)
            pathlib.Path(arguments.out).write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
