"""What a DeepONet was trained on, and what it infers of Fisher-KPP: three training sets.

    python benchmarks/fisher_deeponet.py [--seeds N] [--noise SD ...] [--again] [--out FILE]

`models/fisher_kpp.py` with (D, rho) = (2, 2), estimated by a DeepONet that was trained on numerical
solutions at the D and rho of a square grid: coarse 0.8, 1.2, ..., 2.8 (36 solutions), dense 0.8, 0.9,
..., 3 (529), and one that the truth lies outside of, 0.8, 0.85, ..., 1.8 (441). The first two have it
as a point of their grid. Estimates are the
maximum of the likelihood, sought from (1, 1): the priors are flat. ``u, %`` is the error of the
surrogate's u against the numerical solution at its own theta. The last row of each data set is the
estimate by the numerical operator itself. A record is written as each ends; what the file has is not
done again without ``--again``.
"""

import argparse
import functools
import pathlib
import time
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
from bilo_ppl.surrogates import Trained, solve_all, train_deeponet
from models import fisher_kpp as file

HERE = pathlib.Path(__file__).resolve().parent

SETS = {
    "coarse": np.arange(0.8, 3.0, 0.4),
    "dense": np.linspace(0.8, 3.0, 23),
    "outside": np.linspace(0.8, 1.8, 21),
}
"""Values of D and of rho."""

STEPS = 10_000
NOISES = (0.0, 0.01, 0.1)
NUMERICAL = "numerical"
HEAD = f"{'method':18} {'noise':>6} {'seed':>4} {'D, %':>7} {'rho, %':>7} {'u, %':>7} {'CPU s':>6}  notes"


def main() -> None:
    arguments = _arguments()
    jax.config.update("jax_enable_x64", True)
    kept = Kept(arguments.out, "method", "noise", "seed")
    print(HEAD)
    for noise in arguments.noise:
        # Without noise all data sets are one.
        for seed in range(arguments.seeds if noise else 1):
            for method in (*SETS, NUMERICAL):
                case = method, noise, seed
                if arguments.again or case not in kept:
                    kept.add(estimated(*case))
                print(line(kept.records[case]), flush=True)


def model(operator, x, y, sigma):
    """The data, with flat priors."""
    D, rho = (numpyro.sample(n, dist.Uniform(0.1, 10.0)) for n in ("D", "rho"))
    u = bilo.solution("u", operator, {"D": D, "rho": rho})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def estimated(method: str, noise: float, seed: int) -> dict[str, Any]:
    """The record of one estimate."""
    trained, spent = (None, 0.0) if method == NUMERICAL else _trained(method)
    operator = _reference() if trained is None else trained.surrogate
    data, began = file.synthetic_data(seed, noise), time.process_time()
    found = bilo.find_map(
        *(model, jax.random.key(0), operator, *data.values()), init=file.start, progress=False
    )
    cpu = spent + time.process_time() - began
    error = {n: abs(float(found.values[n]) / file.truth[n] - 1) for n in ("D", "rho")}
    ended = "" if found.converged else found.message.partition(".")[0]
    notes = "" if trained is None else f"test error {100 * trained.median_error:.2g} % "
    return {
        "method": method,
        "noise": noise,
        "seed": seed,
        "errors": error,
        "error_u": _u_error(operator, {n: float(found.values[n]) for n in error}),
        "cpu_seconds": round(cpu, 1),
        "notes": (notes + ended).strip(),
    }


@functools.cache
def _reference() -> AbstractSolutionOperator:
    return file.reference()


@functools.cache
def _trained(name: str) -> tuple[Trained, float]:
    """A DeepONet, and the CPU seconds for solutions and training."""
    began = time.process_time()
    D, rho = (jnp.asarray(v.ravel()) for v in np.meshgrid(SETS[name], SETS[name]))
    points = np.asarray(file.problem.points)
    data = solve_all(_reference(), {"D": D, "rho": rho}, points)
    trained = train_deeponet(file.problem, data, key=jax.random.key(0), steps=STEPS, progress=False)
    return trained, time.process_time() - began


def _u_error(operator: AbstractSolutionOperator, theta: dict[str, float]) -> float:
    own, numerical = (
        np.asarray(_values(o, theta, file.problem.points)) for o in (operator, _reference())
    )
    return float(np.linalg.norm(own - numerical) / np.linalg.norm(numerical))


@eqx.filter_jit
def _values(operator: AbstractSolutionOperator, theta: Any, points: Any) -> Any:
    return jax.vmap(operator.solve(theta, operator.init_state())[0])(jnp.asarray(points))


def line(record: dict[str, Any]) -> str:
    """A row of the table."""
    D, rho = (100 * record["errors"][n] for n in ("D", "rho"))
    return (
        f"{record['method']:18} {record['noise']:6g} {record['seed']:4d} {D:7.2f} {rho:7.2f} "
        f"{100 * record['error_u']:7.3f} {record['cpu_seconds']:6.1f}  {record['notes']}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="data sets for each noise above 0")
    parser.add_argument("--noise", type=float, nargs="+", default=list(NOISES), metavar="SD")
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    parser.add_argument("--out", default=str(HERE / "results" / "fisher_deeponet.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
