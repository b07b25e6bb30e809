"""An unknown diffusion coefficient by other methods: linear elements with gradient descent, DeepONets.

    python benchmarks/variable_poisson.py [--seeds N] [--noise SD ...] [--again] [--out FILE]

``-(D u')' = pi^2 sin(pi x)`` with a hat as D (`models/variable_poisson.py`), 51 data. For each noise and
data set:

- ``bilo``: ``bilo-ppl map variable_poisson`` without an option but the noise and the number of data
  sets; CPU seconds are those of the command over that number.
- ``linear elements``: D by its values at 51 nodes, u by linear elements on them (the stiffness matrix of
  `FiniteDifferences` for such a D), gradient descent from D = 1 until no entry of the gradient is above
  its tolerance.
- ``DeepONet, l``: trained on 1000 solutions with D = 1 + a Gaussian field of variance 0.05 and
  length l = 0.2, 0.3, 0.4 that vanishes at both ends; then `find_map` as for ``bilo``, with the same D.

All have the model's objective: the mean squared misfit, and 1e-3 times the mean of D'^2. Errors are
relative, in the Euclidean norm at 401 points: of D, and of the method's u against the numerical solution
at its own D. A record is written as each method ends; what the file has is not done again without
``--again``.
"""

import argparse
import functools
import itertools
import json
import pathlib
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from commands import ONE_THREAD, Kept, run_command

import bilo_ppl as bilo
from bilo_ppl.fields import PiecewiseLinear
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.unknowns import squared_penalty, unknown_function, weight_in_nats
from bilo_ppl.surrogates import Trained, solve_all, train_deeponet
from models import variable_poisson as file

HERE = pathlib.Path(__file__).resolve().parent

NODES, FINE = 51, 401
LENGTHS, SAMPLES, VARIANCE, TRAINING = (0.2, 0.3, 0.4), 1000, 0.05, 8000

RATE, GRADIENT, DESCENT = 0.05, 1e-5, 50_000
"""Step and tolerance of the gradient descent, in units of sigma^2 and its inverse, and most steps."""

NOISES = (0.0, 0.01, 0.05)
HEAD = f"{'method':18} {'noise':>6} {'data':>4} {'D, %':>12} {'u, %':>8} {'CPU s':>7}"


def main() -> None:
    arguments = _arguments()
    jax.config.update("jax_enable_x64", True)
    kept = Kept(arguments.out, "method", "noise", "seed")
    for noise in arguments.noise:
        # Without noise all data sets are one.
        seeds = range(arguments.seeds if noise else 1)

        def lacking(method: str, noise: float = noise, seeds: range = seeds) -> list[int]:
            return [s for s in seeds if arguments.again or (method, noise, s) not in kept]

        if lacking("bilo"):
            kept.add(*by_command(noise, len(seeds)))
        for seed in lacking("linear elements"):
            kept.add(by_linear_elements(noise, seed))
        for length in LENGTHS:
            for seed in lacking(f"DeepONet, {length}"):
                kept.add(by_deeponet(length, noise, seed))
    print(f"\n{HEAD}")
    by_case = sorted(kept.records.items())
    for _, group in itertools.groupby(by_case, lambda entry: entry[0][:2]):
        print(summary([record for _, record in group]))


def by_command(noise: float, seeds: int) -> list[dict[str, Any]]:
    """Records of ``bilo-ppl map``."""
    with tempfile.TemporaryDirectory() as folder:
        results = pathlib.Path(folder) / "results"
        command = ["map", "variable_poisson", "--noise", str(noise), "--seeds", str(seeds)]
        ran = run_command(command, results, 1800.0, ONE_THREAD)
        if ran.status:
            raise RuntimeError(ran.message)
        found = json.loads((results / "map.json").read_text())
    cpu = ran.cpu_seconds() / seeds
    verdict = ran.written["verdict"]["state"]
    rows = zip(
        found["seeds"],
        found["relative_error"]["D"]["values"],
        found["u_relative_error"]["values"],
        strict=True,
    )
    return [_record("bilo", noise, seed, D, u, cpu, verdict) for seed, D, u in rows]


def by_linear_elements(noise: float, seed: int) -> dict[str, Any]:
    """Values of D at nodes, by plain gradient descent."""
    data, began = file.synthetic_data(seed, noise), time.process_time()
    first = PiecewiseLinear(jnp.ones(NODES - 2), ends=(1.0, 1.0))
    middles = (np.arange(NODES - 1)[:, None] + 0.5) / (NODES - 1)

    def model(operator, x, y, sigma):
        D = unknown_function("D", first)
        u = bilo.solution("u", operator, {"D": D})
        weight = weight_in_nats(file.REGULARISATION, sigma, len(x))
        squared_penalty("roughness", weight, bilo.grad(D), middles)
        numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)

    operator = bilo.FiniteDifferences(file.problem, NODES, theta={"D": first})
    found = bilo.find_map(
        *(model, jax.random.key(0), operator, *data.values()),
        optimizer=optax.sgd(RATE * data["sigma"] ** 2),
        gradient_tolerance=GRADIENT / data["sigma"] ** 2,
        steps=DESCENT,
        progress=False,
    )
    cpu = time.process_time() - began
    steps = f"{found.history.steps} steps" + ("" if found.converged else ", not converged")
    return _judged("linear elements", noise, seed, found, operator, cpu, steps)


def by_deeponet(length: float, noise: float, seed: int) -> dict[str, Any]:
    """The model's own estimate, by a neural operator."""
    trained, spent = _deeponet(length)
    data, began = file.synthetic_data(seed, noise), time.process_time()
    operator = trained.surrogate
    found = bilo.find_map(file.model, jax.random.key(0), operator, *data.values(), progress=False)
    cpu = spent + time.process_time() - began
    notes = f"test error {100 * trained.median_error:.2g} %, training {spent:.0f} CPU s"
    return _judged(f"DeepONet, {length}", noise, seed, found, operator, cpu, notes)


@functools.cache
def _deeponet(length: float) -> tuple[Trained, float]:
    """Trained on samples of D, and the CPU seconds for that."""
    began = time.process_time()
    x = np.linspace(0.0, 1.0, NODES)
    covariance = VARIANCE * np.exp(-((x[:, None] - x) ** 2) / (2 * length**2))
    ends = slice(None, None, NODES - 1)
    across = covariance[ends, 1:-1]
    given = covariance[1:-1, 1:-1] - across.T @ np.linalg.solve(covariance[ends, ends], across)
    values, vectors = np.linalg.eigh(given)
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(SAMPLES, NODES - 2)) @ (vectors * np.sqrt(np.maximum(values, 0))).T
    fields = PiecewiseLinear(jnp.asarray(np.maximum(1 + drawn, 0.1)), ends=(1.0, 1.0))
    data = solve_all(file.reference(), {"D": fields}, file.problem.domain.grid(101))
    trained = train_deeponet(
        file.problem, data, key=jax.random.key(0), steps=TRAINING, progress=False
    )
    return trained, time.process_time() - began


def _judged(
    method: str,
    noise: float,
    seed: int,
    found: bilo.Estimate,
    operator: AbstractSolutionOperator,
    cpu: float,
    notes: str,
) -> dict[str, Any]:
    points, reference = jnp.asarray(file.problem.domain.grid(FINE)), file.reference()
    theta = found.theta("u")

    @jax.jit
    def on_grid(D):
        own, numerical = (
            jax.vmap(o.solve({"D": D}, o.init_state())[0])(points) for o in (operator, reference)
        )
        return jax.vmap(D)(points), jax.vmap(file.hat)(points), own, numerical

    D, true, own, numerical = map(np.asarray, on_grid(theta["D"]))
    errors = [
        float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in ((D, true), (own, numerical))
    ]
    return _record(method, noise, seed, errors[0], errors[1], cpu, notes)


def _record(
    method: str, noise: float, seed: int, D: float, u: float, cpu: float, notes: str
) -> dict[str, Any]:
    known = {"method": method, "noise": noise, "seed": seed, "error_D": D, "error_u": u}
    print(line({**known, "cpu_seconds": cpu, "notes": notes}), flush=True)
    return {**known, "cpu_seconds": round(cpu, 1), "notes": notes}


def summary(records: list[dict[str, Any]]) -> str:
    """A row of the table: means over the data sets, and the sd of the error of D."""
    D, u, cpu = ([r[key] for r in records] for key in ("error_D", "error_u", "cpu_seconds"))
    first, spread = records[0], f" +- {100 * np.std(D):.1f}" if len(D) > 1 else ""
    return (
        f"{first['method']:18} {first['noise']:6g} {len(records):4d} "
        f"{f'{100 * np.mean(D):.1f}{spread}':>12} {100 * np.mean(u):8.2g} {np.mean(cpu):7.1f}"
    )


def line(record: dict[str, Any]) -> str:
    """One data set."""
    return (
        f"{record['method']:18} {record['noise']:6g} {record['seed']:4d} "
        f"{100 * record['error_D']:12.2f} {100 * record['error_u']:8.2g} "
        f"{record['cpu_seconds']:7.1f}  {record['notes']}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="data sets for each noise above 0")
    parser.add_argument("--noise", type=float, nargs="+", default=list(NOISES), metavar="SD")
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    parser.add_argument("--out", default=str(HERE / "results" / "variable_poisson.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
