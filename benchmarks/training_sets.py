"""What a neural operator was trained on, and what it infers: the truth inside and outside.

    python benchmarks/training_sets.py [--cases NAME ...] [--seeds N] [--again] [--out FILE]

- ``fisher_kpp``: a DeepONet for `models/fisher_kpp.py` with (D, rho) = (2, 2), trained at the D and rho
  of a square grid: coarse 0.8, 1.2, ..., 2.8 (36 solutions), dense 0.8, 0.9, ..., 3 (529), and outside
  0.8, 0.85, ..., 1.8 (441). The first two have the truth as a point of their grid. Flat priors; without
  noise, and with that of sd 0.01 and 0.1.
- ``gene_expression``: a Fourier neural operator for `models/gene_expression.py` with (lambda, mu) = (500,
  10), trained at 20 x 20 values: inside, lambda in [200, 800] and mu in [4, 16], and outside, lambda in
  [200, 400] and mu in [4, 8]. The file's own priors.

Estimates are the maximum of the posterior density, sought from the file's start. ``u, %`` is the error of
the surrogate's u against the numerical solution at its own theta. The last row of each data set is the
estimate by the numerical operator itself. A record is written as each ends; what the file has is not done
again without ``--again``.
"""

import argparse
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from commands import Kept

import bilo_ppl as bilo
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.surrogates import Trained, TrainingSet, solve_all, train_deeponet, train_fno
from models import fisher_kpp, gene_expression

HERE = pathlib.Path(__file__).resolve().parent

NUMERICAL = "numerical"
HEAD = (
    f"{'case':16} {'method':10} {'noise':>6} {'seed':>4} {'errors of theta, %':>18} {'u, %':>7} "
    f"{'CPU s':>6}  notes"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, thetas to train at, and how it is learnt."""

    file: Any
    model: Callable
    sets: Mapping[str, Mapping[str, np.ndarray]]
    """Values of each parameter, of which all pairs are taken."""
    points: np.ndarray
    """Where solutions are learnt and compared."""
    train: Callable[[TrainingSet], Trained]
    noises: tuple[float | None, ...] = (None,)
    """None: the data have none of their own."""


def of_flat_priors(operator, x, y, sigma):
    """The data of Fisher-KPP."""
    D, rho = (numpyro.sample(n, dist.Uniform(0.1, 10.0)) for n in ("D", "rho"))
    u = bilo.solution("u", operator, {"D": D, "rho": rho})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def by_deeponet(data: TrainingSet) -> Trained:
    options = {"key": jax.random.key(0), "steps": 10_000, "progress": False}
    return train_deeponet(fisher_kpp.problem, data, **options)


def by_fno(data: TrainingSet) -> Trained:
    options = {"key": jax.random.key(0), "steps": 4000, "progress": False}
    return train_fno(gene_expression.problem, data, shape=(65,), **options)


def _square(values: np.ndarray) -> dict[str, np.ndarray]:
    return {"D": values, "rho": values}


CASES = {
    "fisher_kpp": Case(
        fisher_kpp,
        of_flat_priors,
        {
            "coarse": _square(np.arange(0.8, 3.0, 0.4)),
            "dense": _square(np.linspace(0.8, 3.0, 23)),
            "outside": _square(np.linspace(0.8, 1.8, 21)),
        },
        np.asarray(fisher_kpp.problem.points),
        by_deeponet,
        (0.0, 0.01, 0.1),
    ),
    "gene_expression": Case(
        gene_expression,
        gene_expression.model,
        {
            "inside": {"lam": np.linspace(200, 800, 20), "mu": np.linspace(4, 16, 20)},
            "outside": {"lam": np.linspace(200, 400, 20), "mu": np.linspace(4, 8, 20)},
        },
        gene_expression.problem.domain.grid(65),
        by_fno,
    ),
}


def main() -> None:
    arguments = _arguments()
    jax.config.update("jax_enable_x64", True)
    kept = Kept(arguments.out, "case", "method", "noise", "seed")
    print(HEAD)
    for case in arguments.cases:
        for noise in CASES[case].noises:
            # Without noise all data sets are one.
            for seed in range(1 if noise == 0 else arguments.seeds):
                for method in (*CASES[case].sets, NUMERICAL):
                    name = case, method, noise, seed
                    if arguments.again or name not in kept:
                        kept.add(estimated(*name))
                    print(line(kept.records[name]), flush=True)


def estimated(name: str, method: str, noise: float | None, seed: int) -> dict[str, Any]:
    """The record of one estimate."""
    case = CASES[name]
    trained, spent = (None, 0.0) if method == NUMERICAL else _trained(name, method)
    operator = _reference(name) if trained is None else trained.surrogate
    data, began = (
        case.file.synthetic_data(seed, *() if noise is None else (noise,)),
        time.process_time(),
    )
    found = bilo.find_map(
        *(case.model, jax.random.key(0), operator, *data.values()),
        init=case.file.start,
        progress=False,
    )
    cpu = spent + time.process_time() - began
    theta = {n: float(found.values[n]) for n in case.file.start}
    ended = "" if found.converged else found.message.partition(".")[0]
    notes = "" if trained is None else f"test error {100 * trained.median_error:.2g} % "
    own, numerical = (
        np.asarray(_values(o, theta, case.points)) for o in (operator, _reference(name))
    )
    return {
        "case": name,
        "method": method,
        "noise": noise,
        "seed": seed,
        "errors": {n: abs(value / case.file.truth[n] - 1) for n, value in theta.items()},
        "error_u": float(np.linalg.norm(own - numerical) / np.linalg.norm(numerical)),
        "cpu_seconds": round(cpu, 1),
        "notes": (notes + ended).strip(),
    }


@functools.cache
def _reference(name: str) -> AbstractSolutionOperator:
    return CASES[name].file.reference()


@functools.cache
def _trained(name: str, method: str) -> tuple[Trained, float]:
    """A neural operator, and the CPU seconds for solutions and training."""
    began, case = time.process_time(), CASES[name]
    values = case.sets[method]
    pairs = (jnp.asarray(v.ravel()) for v in np.meshgrid(*values.values()))
    thetas = dict(zip(values, pairs, strict=True))
    trained = case.train(solve_all(_reference(name), thetas, case.points))
    return trained, time.process_time() - began


@eqx.filter_jit
def _values(operator: AbstractSolutionOperator, theta: Any, points: Any) -> Any:
    return jax.vmap(operator.solve(theta, operator.init_state())[0])(jnp.asarray(points))


def line(record: dict[str, Any]) -> str:
    """A row of the table."""
    errors = ", ".join(f"{n} {100 * error:.2f}" for n, error in record["errors"].items())
    noise = "" if record["noise"] is None else f"{record['noise']:g}"
    return (
        f"{record['case']:16} {record['method']:10} {noise:>6} {record['seed']:4d} {errors:>18} "
        f"{100 * record['error_u']:7.3f} {record['cpu_seconds']:6.1f}  {record['notes']}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="data sets for each noise above 0")
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    parser.add_argument("--out", default=str(HERE / "results" / "training_sets.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
