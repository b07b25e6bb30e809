"""Glioblastoma growth in two dimensions: the posterior by the numerical operator and by the network.

    python benchmarks/glioblastoma.py posterior [--draws 150] [--chains 2] [--out FILE.json]
    python benchmarks/glioblastoma.py network [--points 4000] [--seconds 90] [--partial] [--out FILE.json]
    python benchmarks/glioblastoma.py parameters --folder FOLDER [--tolerance 5e-4] [--out FILE.json]
    python benchmarks/glioblastoma.py features [--features 256] [--out FILE.json]

- ``posterior``: NUTS on rD, rRHO, c1 and c2 with `models.glioblastoma.reference` and the mass matrix of
  Laplace's approximation, and the DICE of u at the posterior mean with the labels;
- ``network``: an operator pretrained at rD = rRHO = 1 without data; relative error of u(., 1), and DICE
  of its masks with those of the numerical solution on voxels of half the edge;
- ``parameters``: the operator that ``bilo-ppl run glioblastoma --out FOLDER`` has pretrained, fine-tuned
  at several parameters: u, DICE and the log likelihood of the data beside the numerical solution's;
- ``features``: the same of random features, with the shape that ``run`` chooses and each of its ridges.

CPU seconds of one process on one thread.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import functools
import json
import time
from collections.abc import Iterator
from typing import Any

import arviz as az
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC, NUTS, init_to_value
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

import bilo_ppl as bilo
from bilo_ppl.anatomy import brain_phantom, dice, log_odds
from bilo_ppl.operators.random_features import RIDGES, random_features
from models import glioblastoma as tumour

jax.config.update("jax_enable_x64", True)


def final_points(problem: tumour.Glioblastoma) -> Any:
    """The voxels' centres at t = 1, ``(n, 3)``."""
    centres = problem.domain.centres
    return jnp.concatenate([jnp.asarray(centres), jnp.ones((len(centres), 1))], axis=1)


def density(solution: Any, x: Any, theta: Any, problem: Any = tumour.problem) -> np.ndarray:
    """u at points ``(n, 3)`` from n at theta."""
    values = eqx.filter_jit(lambda n, theta: tumour.density(problem, n, x, theta)[:, 0])
    return np.asarray(values(solution, theta), float)


def divided(problem: tumour.Glioblastoma, parts: int) -> tumour.Glioblastoma:
    """The same equation, with the same phi and P, on voxels with edges of one part of so many."""
    domain = problem.domain
    mask = np.kron(domain.mask, np.ones((parts, parts), bool))
    spacing = tuple(h / parts for h in domain.spacing)
    first = np.array(domain.lower[:2]) + np.array(spacing) / 2
    space = bilo.image_domain(mask, spacing, first.tolist())
    return eqx.tree_at(
        lambda p: p.domain, problem, bilo.space_time(space, 1.0), is_leaf=lambda x: x is domain
    )


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def overlaps(u: np.ndarray, other: np.ndarray, thresholds: Any = (0.35, 0.6)) -> list[float]:
    return [float(dice(u > c, other > c)) for c in thresholds]


def laplace(operator: Any, observed: Any, step: float = 1e-4) -> tuple[dict, Any]:
    """Mode in the space of the sampler and inverse Hessian there, by Newton's steps from the truth.

    The Hessian by central differences of the gradient.
    """
    model = functools.partial(tumour.model, operator, *observed)
    z, unravel = ravel_pytree(unconstrain_fn(model, (), {}, dict(tumour.truth)))
    energy = jax.jit(jax.grad(lambda z: potential_energy(model, (), {}, unravel(z))))
    hessian = np.eye(z.size)
    for _ in range(5):
        ends = [[energy(z + s * way) for s in (step, -step)] for way in np.eye(z.size)]
        hessian = np.array([(up - down) / (2 * step) for up, down in ends])
        z = z - np.linalg.solve((hessian + hessian.T) / 2, energy(z))
    mode = constrain_fn(model, (), {}, unravel(z))
    return {name: mode[name] for name in tumour.truth}, np.linalg.inv((hessian + hessian.T) / 2)


def posterior(arguments: argparse.Namespace) -> dict:
    data = tumour.synthetic_data(arguments.seed)
    observed = data["x"], data["y"], data["sigma"]
    operator = tumour.reference()
    begun = time.process_time()
    mode, covariance = laplace(operator, observed)
    seconds_of_laplace = time.process_time() - begun
    kernel = NUTS(
        tumour.model,
        init_strategy=init_to_value(values=mode),
        inverse_mass_matrix=covariance,
        step_size=0.5,
        dense_mass=True,
        adapt_mass_matrix=False,
    )
    mcmc = MCMC(
        kernel,
        num_warmup=arguments.warmup,
        num_samples=arguments.draws,
        num_chains=arguments.chains,
        chain_method="sequential",
        progress_bar=False,
    )
    begun = time.process_time()
    mcmc.run(
        jax.random.key(arguments.seed), operator, *observed, extra_fields=("num_steps", "diverging")
    )
    seconds = time.process_time() - begun
    draws = mcmc.get_samples(group_by_chain=True)
    fields = mcmc.get_extra_fields()
    table: Any = az.summary(az.from_dict({k: np.asarray(v) for k, v in draws.items()}), kind="all")
    means = {name: float(np.mean(v)) for name, v in draws.items()}
    theta = {name: means[name] for name in tumour.problem.parameters}
    u = density(operator.solve(theta, ())[0], jnp.asarray(data["x"]), theta)
    steps = int(np.sum(fields["num_steps"]))
    return {
        "part": "posterior",
        "draws": [arguments.chains, arguments.warmup, arguments.draws],
        "cpu_seconds": [seconds_of_laplace, seconds],
        "gradients_after_warmup": steps,
        "divergences": int(np.sum(fields["diverging"])),
        "truth": tumour.truth,
        "summary": {
            name: {key: float(table.loc[name, key]) for key in ("mean", "sd", "r_hat", "ess_bulk")}
            for name in draws
        },
        "correlation": np.corrcoef([np.ravel(v) for v in draws.values()]).round(3).tolist(),
        "dice": [
            float(dice(u > means[name], data["y"][:, i] > 0.5))
            for i, name in enumerate(("c1", "c2"))
        ],
    }


def network(arguments: argparse.Namespace) -> dict:
    problem = tumour.growth(brain_phantom(), arguments.points)
    x, start = final_points(problem), tumour.start
    wanted = density(tumour.numerical(divided(problem, 2), 96).solve(start, ())[0], x, start)
    coarse = density(tumour.numerical(problem, 48).solve(start, ())[0], x, start)
    begun, history = time.process_time(), []

    def values(operator: bilo.LocalOperator) -> np.ndarray:
        return density(operator.field(start), x, start)

    def until(operator: bilo.LocalOperator) -> float:
        """Not enough, until the time is over."""
        seconds = time.process_time() - begun
        history.append([round(seconds, 1), round(relative(values(operator), wanted), 4)])
        return 1e9 if seconds < arguments.seconds else 0.0

    operator, report = bilo.pretrain(
        problem,
        start,
        key=jax.random.key(arguments.seed),
        solver=bilo.LevenbergMarquardt(tolerance=1e-8, max_steps=arguments.steps),
        error=until,
        sensitivity=bilo.PartialDerivative() if arguments.partial else None,
        width=arguments.width,
        depth=arguments.depth,
        progress=False,
    )
    seconds = time.process_time() - begun
    u, free = values(operator), density(lambda x: 0.0 * x[0], x, start)
    return {
        "part": "network",
        "points": [arguments.points, len(operator.points)],
        "shape": [arguments.width, arguments.depth],
        "residual_gradient": not arguments.partial,
        "cpu_seconds": seconds,
        "loss": report.loss,
        "unseen_loss": report.unseen_loss,
        "steps": report.steps,
        "history": history,
        "error": relative(u, wanted),
        "error_without_network": relative(free, wanted),
        "error_of_voxels": relative(coarse, wanted),
        "dice": overlaps(u, wanted),
        "dice_without_network": overlaps(free, wanted),
    }


PLACES = (
    (1.0, 1.0),
    (1.31, 1.173),
    (1.24, 1.15),
    (1.38, 1.2),
    (1.3, 1.15),
    (1.2, 1.05),
    (0.8, 1.2),
)
"""rD and rRHO: the first guess, the posterior mean, one sd from it on both sides, the truth, far away."""

SCALE, STRETCH = 3.0, (2.0, 1.0, 0.5)
"""Of the features that ``bilo-ppl run glioblastoma`` takes."""

THRESHOLDS = (0.364, 0.621)
"""c1 and c2 there: the posterior mean."""


def parameters(arguments: argparse.Namespace) -> dict:
    local = bilo.load_operator(pathlib.Path(arguments.folder) / "operator.eqx", tumour.problem)
    operator = bilo.FineTuned(
        local.with_lora(4, key=jax.random.key(1)),
        bilo.LevenbergMarquardt(tolerance=arguments.tolerance, max_steps=30),
        bilo.PartialDerivative(),
    )
    return {
        "part": "parameters",
        "tolerance": arguments.tolerance,
        "places": list(compared(operator)),
    }


def features(arguments: argparse.Namespace) -> dict:
    shape = {"count": arguments.features, "scale": SCALE, "stretch": STRETCH}
    local = random_features(tumour.problem, tumour.start, **shape, key=jax.random.key(0))
    layer = bilo.OutputLayer(local, tumour.start, tolerance=np.inf)
    ridges = {ridge: list(compared(layer.with_features(layer.operator, ridge))) for ridge in RIDGES}
    return {"part": "features", **shape, "ridges": ridges}


def compared(operator: Any) -> Iterator[dict]:
    """An operator at `PLACES`, beside the numerical solutions and the data of seed 0."""
    data = tumour.synthetic_data(0)
    x, labels = jnp.asarray(data["x"]), data["y"] > 0.5
    reference = tumour.reference()

    def log_likelihood(u: np.ndarray) -> float:
        odds = np.asarray(log_odds(u[:, None], jnp.array([THRESHOLDS])))
        return -float(np.sum(np.logaddexp(0, np.where(labels, -odds, odds))))

    for place in PLACES:
        theta = dict(zip(tumour.problem.parameters, map(jnp.asarray, place), strict=True))
        begun = time.process_time()
        solution, _, info = jax.block_until_ready(_solve(operator, theta))
        seconds = time.process_time() - begun
        u = density(solution, x, theta)
        wanted = density(reference.solve(theta, ())[0], x, theta)
        yield {
            "theta": place,
            "error": relative(u, wanted),
            "dice": overlaps(u, wanted, THRESHOLDS),
            "dice_with_labels": [
                [dice(v > c, labels[:, i]) for i, c in enumerate(THRESHOLDS)] for v in (u, wanted)
            ],
            "log_likelihood": [log_likelihood(v) for v in (u, wanted)],
            "inner_steps": int(info.steps),
            "loss": float(info.loss),
            "cpu_seconds": seconds,
        }


@eqx.filter_jit
def _solve(operator: Any, theta: Any) -> Any:
    return operator.solve(theta, operator.init_state())


PARTS = {f.__name__: f for f in (posterior, network, parameters, features)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--draws", type=int, default=150)
    parser.add_argument("--points", type=int, default=4000)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=90.0, help="of training")
    parser.add_argument("--partial", action="store_true", help="residual rows only")
    parser.add_argument("--folder", default="runs/glioblastoma-nuts", help="of a run")
    parser.add_argument("--tolerance", type=float, default=5e-4)
    parser.add_argument("--features", type=int, default=256, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="glioblastoma.json", help="a record is added to it")
    arguments = parser.parse_args()
    record = PARTS[arguments.part](arguments)
    file = pathlib.Path(arguments.out)
    records = json.loads(file.read_text()) if file.exists() else []
    file.write_text(json.dumps([*records, record], indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
