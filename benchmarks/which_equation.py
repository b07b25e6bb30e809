"""Which of two equations made the data: log evidences around posterior draws, beside quadrature.

    python benchmarks/which_equation.py [--seeds 5] [--noise 0.01] [--out FILE.json]

A substance diffuses into a membrane from both sides and is consumed there, by a reaction of first or of
second order: u'' = k u or u'' = k u^2 on [0, 1] with u = 1 at both ends, k ~ LogNormal(1, 1). Data of
9 sensors are made by either equation (k = 6, finite differences on 801 nodes), and both are fitted to
them: random features, NUTS, and `bilo_ppl.log_evidence` with 1000 new draws. Exact log evidences are by
quadrature over k, by finite differences on 401 nodes. Prints a table, and writes a record for each data
set.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import math
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import NUTS
from numpyro.infer.util import log_density

import bilo_ppl as bilo
from benchmarks.commands import write_records

jax.config.update("jax_enable_x64", True)

OUT = pathlib.Path(__file__).resolve().parent / "results" / "which_equation.json"
START, TRUTH = {"k": 3.0}, {"k": 6.0}
GRID = np.geomspace(0.02, 300.0, 3001)
"""Values of k for the quadrature: nearly eight prior standard deviations."""


class Uptake(bilo.Problem):
    """Diffusion with uptake of some order."""

    order: int = eqx.field(static=True, default=1)

    parameters, components = ("k",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(512)

    def residual(self, u, x, theta):
        """Diffusion less uptake."""
        return bilo.laplacian(u)(x) - theta["k"] * u(x) ** self.order

    def lift(self, x, raw, theta):
        """One at both ends."""
        return 1 + x[0] * (1 - x[0]) * raw


PROBLEMS = {"first order": Uptake(1), "second order": Uptake(2)}
SENSORS = Uptake.domain.interior_grid(11)


def model(operator, x, y=None, sigma=0.01):
    """Of either equation: the priors are the same."""
    k = numpyro.sample("k", dist.LogNormal(1.0, 1.0))
    u = bilo.solution("u", operator, {"k": k})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--out", default=str(OUT))
    arguments = parser.parse_args()
    operators = {name: features(problem) for name, problem in PROBLEMS.items()}
    records = []
    print("| data by | seed | log Bayes factor, first order: exact | by draws | error / its sd |")
    print("|---|---|---|---|---|")
    for made_by in PROBLEMS:
        for seed in range(arguments.seeds):
            y = observed(PROBLEMS[made_by], seed, arguments.noise)
            found = {
                name: fitted(PROBLEMS[name], operators[name], y, arguments.noise)
                for name in PROBLEMS
            }
            records.append({"made_by": made_by, "seed": seed, "noise": arguments.noise, **found})
            print(line(records[-1]), flush=True)
            write_records(pathlib.Path(arguments.out), records)


def features(problem: Uptake) -> bilo.OutputLayer:
    """Random features that suit the middle of the prior and what lies a standard deviation from it."""
    thetas = [START, {"k": 1.0}, {"k": 8.0}]
    local, trials = bilo.choose_random_features(problem, thetas, count=128, key=jax.random.key(0))
    ridge = min(trials, key=lambda trial: trial.score).ridge
    return bilo.OutputLayer(local, START, tolerance=1e-6, ridge=ridge)


def observed(problem: Uptake, seed: int, noise: float) -> np.ndarray:
    numerical = bilo.FiniteDifferences(problem, nodes=801, theta=START)
    exact = np.asarray(jax.vmap(numerical.solve(TRUTH, numerical.init_state())[0])(SENSORS))
    return exact + noise * np.random.default_rng(seed).normal(size=len(exact))


def fitted(
    problem: Uptake, operator: bilo.OutputLayer, y: np.ndarray, noise: float
) -> dict[str, Any]:
    """The log evidence of one equation, by draws and exact."""
    began = time.process_time()
    kernel = NUTS(model, init_strategy=bilo.init_near(START))
    sizes: dict[str, Any] = {"num_warmup": 200, "num_samples": 300, "num_chains": 2}
    run = bilo.sample_in_blocks(
        kernel, jax.random.key(0), operator, SENSORS, y, noise, **sizes, progress=False
    )
    sampled = time.process_time()
    found = bilo.log_evidence(model, run.samples, operator, SENSORS, y, noise)
    return {
        "log_evidence": found.log_evidence,
        "standard_error": found.standard_error,
        "pareto_k": found.pareto_k,
        "unsolved": found.unsolved,
        "k": [float(run.samples["k"].mean()), float(run.samples["k"].std())],
        "exact": quadrature(problem, y, noise),
        "cpu_seconds": {"sampling": sampled - began, "evidence": time.process_time() - sampled},
    }


def quadrature(problem: Uptake, y: np.ndarray, noise: float) -> float:
    """log p(y), by the trapezoidal rule in log k."""
    numerical = bilo.FiniteDifferences(problem, nodes=401, theta=START)

    def density(k):
        return log_density(model, (numerical, SENSORS, jnp.asarray(y), noise), {}, {"k": k})[0]

    logs = np.asarray(jax.jit(lambda ks: jax.lax.map(density, ks))(jnp.asarray(GRID)))
    highest = logs.max()
    return float(highest + np.log(np.trapezoid(np.exp(logs - highest) * GRID, np.log(GRID))))


def line(record: dict[str, Any]) -> str:
    """A row of the table."""
    first, second = (record[name] for name in PROBLEMS)
    exact = first["exact"] - second["exact"]
    by_draws = first["log_evidence"] - second["log_evidence"]
    error = math.hypot(first["standard_error"], second["standard_error"])
    return (
        f"| {record['made_by']} | {record['seed']} | {exact:.2f} | {by_draws:.2f} +- {error:.2f} "
        f"| {(by_draws - exact) / error:+.1f} |"
    )


if __name__ == "__main__":
    main()
