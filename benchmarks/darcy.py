"""Darcy flow with 64 coefficients: the posterior by finite volumes and that by an output layer.

    python benchmarks/darcy.py [--parts forward cost posterior] [--draws 200] [--out FILE.json]

- ``forward``: error of u for five draws from the prior, by operator, against 512 x 512 cells;
- ``cost``: CPU milliseconds of a solve and of U and its gradient;
- ``posterior``: two chains of NUTS with each operator, in coefficients whitened by the Gauss-Newton
  Hessian at the point estimate by finite volumes; means and sds of all coefficients compared, and U at
  draws of both chains, which tells the two posteriors apart without the noise of a chain.

The features of the output layer are random: tanh of planes that cross the square. One process, one
thread, double precision.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bilo_ppl as bilo
from benchmarks.plane import milliseconds
from bilo_ppl.diagnostics.results import chain_diagnostics
from bilo_ppl.estimate.derivatives import differentiated
from bilo_ppl.mcmc import BlockSampler
from models import darcy as case

jax.config.update("jax_enable_x64", True)

PRIOR_DRAWS = 5
CHAINS = 2
COMPARED = 100
"""Draws of each run at which U is compared."""
TOLERANCE = 1.0
"""Of the output layer's loss, in units of the equation's right side, 10, squared: 1 %."""
STEEPNESS = 3.0
"""Standard deviation of the slopes of the features, in coordinates from -1 to 1."""


def output_layer(problem: Any, width: int) -> bilo.OutputLayer:
    """One hidden layer of random units; only its output layer is ever fitted."""
    start, rng = case.start, np.random.default_rng(1)
    local = bilo.LocalOperator(
        problem, start, key=jax.random.key(0), width=width, depth=1, embedded=()
    )
    slopes, through = STEEPNESS * rng.normal(size=(width, 2)), rng.uniform(-1, 1, size=(width, 2))
    drawn = slopes, -np.sum(slopes * through, axis=1)
    local = eqx.tree_at(
        lambda o: (o.network.layers[0].weight, o.network.layers[0].bias),
        local,
        tuple(jnp.asarray(value, local.dtype) for value in drawn),
    )
    return bilo.OutputLayer(local, start, tolerance=TOLERANCE)


def operators(kind: Any, small: bool = False) -> Iterator[tuple[str, Any]]:
    """By name; with ``small`` only those that sample."""
    for cells in (64,) if small else (32, 64, 128):
        yield f"finite volumes {cells}", case.reference(cells, case.Darcy(kind))
    sizes = ((31, 256),) if small else ((31, 128), (31, 256), (61, 484))
    for n, width in sizes:
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


def whitening(data: dict) -> tuple[np.ndarray, np.ndarray, float]:
    """Point estimate, inverse Gauss-Newton Hessian there, and the CPU seconds that both took."""
    begun = time.process_time()
    operator = case.reference()
    found = bilo.find_map(
        case.model, jax.random.key(0), operator, *data.values(), jacobian=True, progress=False
    )
    objective = found.objective
    _, _, rows, _ = eqx.filter_jit(differentiated)(
        objective, found.z, found.operator_states, rows=True
    )
    assert rows is not None
    J = np.asarray(rows)
    covariance = np.linalg.inv(J.T @ J)
    return np.asarray(found.values["a"]), covariance, time.process_time() - begun


def sampled(operator: Any, data: dict, start: Any, mass: Any, arguments: Any) -> tuple[Any, dict]:
    """Draws ``(chains, draws, 64)``, statistics, and CPU seconds by stage."""
    kernel = bilo.BiLONUTS(
        case.model,
        init_strategy=bilo.init_near({"a": start}),
        step_size=0.5,
        inverse_mass_matrix=jnp.asarray(mass),
        dense_mass=True,
        adapt_mass_matrix=False,
    )
    block = BlockSampler(
        kernel,
        (operator, *data.values()),
        chains=CHAINS,
        chain_method="sequential",
        warmup=arguments.warmup,
        block=min(100, arguments.warmup, arguments.draws),
    )
    seconds: dict[str, float] = {}

    def stage(name, work):
        begun = time.process_time()
        work()
        seconds[name] = time.process_time() - begun

    options: dict[str, Any] = {"progress": False, "label": ""}

    def compiled():
        block.start(jax.random.key(3))
        block.run(1, keep=False, **options)

    stage("compile", compiled)
    stage("warmup", lambda: block.run(arguments.warmup - 1, keep=False, **options))
    stage("sampling", lambda: block.run(arguments.draws, keep=True, **options))
    draws = block.collected()
    return draws, seconds


def posterior(arguments: Any) -> Iterator[dict]:
    """A record for each operator, and one that compares the last with the first."""
    data = case.synthetic_data(0)
    start, mass, seconds_of_map = whitening(data)
    sd = np.sqrt(np.diag(mass))
    print(f"estimate and Hessian {seconds_of_map:.1f} CPU s, sds {sd.min():.2g} to {sd.max():.2g}")
    found = {}
    for name, operator in operators(case.two_rocks, small=True):
        draws, seconds = sampled(operator, data, start, mass, arguments)
        a, statistics = np.asarray(draws.samples["a"]), draws.statistics
        checks = [chain_diagnostics(a[..., k]) for k in range(a.shape[-1])]
        ess = np.array([check.ess_bulk for check in checks])
        gradients = int(np.sum(statistics["num_steps"]))
        found[name] = operator, a, ess
        yield {
            "part": "posterior",
            "operator": name,
            "chains": CHAINS,
            "warmup": arguments.warmup,
            "draws": arguments.draws,
            "ess_min": ess.min(),
            "ess_median": float(np.median(ess)),
            "r_hat_max": max(float(check.r_hat) for check in checks),
            "gradients": gradients,
            "gradients_per_draw": gradients / a[..., 0].size,
            "solves_per_effective_draw": gradients / float(np.median(ess)),
            "ess_min_per_cpu_second": ess.min() / seconds["sampling"],
            "ess_median_per_cpu_second": float(np.median(ess)) / seconds["sampling"],
            "ms_per_gradient": 1e3 * seconds["sampling"] / gradients,
            "divergences": int(np.sum(statistics["diverging"])),
            "cpu_seconds": seconds,
            "mean": a.mean((0, 1)).tolist(),
            "sd": a.std((0, 1), ddof=1).tolist(),
        }
    yield compared(found, data)


def compared(found: dict, data: dict) -> dict:
    """Means and sds against their Monte Carlo errors, and the difference of U between the operators."""
    (one, (exact, a, ess)), (two, (other, b, ess_of_other)) = found.items()
    means, sds = ([x.mean((0, 1)) for x in (a, b)], [x.std((0, 1), ddof=1) for x in (a, b)])
    error = np.sqrt(sds[0] ** 2 / ess + sds[1] ** 2 / ess_of_other)
    # That of a logarithm of an sd, were the draws Gaussian and their squares mixed as they do.
    error_of_log = np.sqrt(0.5 / ess + 0.5 / ess_of_other)
    moved = (means[1] - means[0]) / error
    widened = np.log(sds[1] / sds[0]) / error_of_log
    some = np.concatenate(
        [x.reshape(-1, x.shape[-1])[:: x[..., 0].size // COMPARED] for x in (a, b)]
    )
    energies = [
        np.asarray(jax.lax.map(energy(op, data), jnp.asarray(some)))
        for op in (exact, other, case.reference(128))
    ]
    changes = {
        "": energies[1] - energies[0],
        "_first_to_128_cells": energies[0] - energies[2],
        "_second_to_128_cells": energies[1] - energies[2],
    }
    return {
        "part": "compared",
        "operators": [one, two],
        "mean_rms_z": float(np.sqrt(np.mean(moved**2))),
        "mean_max_z": float(np.abs(moved).max()),
        "mean_max_in_sd": float(np.abs((means[1] - means[0]) / sds[0]).max()),
        "sd_rms_z": float(np.sqrt(np.mean(widened**2))),
        "sd_max_z": float(np.abs(widened).max()),
        **{f"energy_sd{k}": float(v.std()) for k, v in changes.items()},
        "energy_max": float(np.abs(changes[""] - changes[""].mean()).max()),
    }


PARTS = {f.__name__: f for f in (forward, cost, posterior)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--out", default="darcy.json")
    arguments = parser.parse_args()
    records = []
    for part in arguments.parts:
        for record in PARTS[part](arguments):
            records.append(record)
            shown = {
                k: f"{v:.3g}" if isinstance(v, float) else v
                for k, v in record.items()
                if k not in ("mean", "sd")
            }
            print(", ".join(f"{k} {v}" for k, v in shown.items()), flush=True)
            pathlib.Path(arguments.out).write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
