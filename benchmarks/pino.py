"""PINO for the Darcy flow with an unknown permeability, `models/darcy_estimate.py`.

    python benchmarks/pino.py [--operator FILE.eqx] [--cases N ...] [--data-weights W ...]
        [--out FILE.json]

An FNO on 51 x 51 points is trained on finite-volume solutions (100 x 100 cells) and on the finite-volume
scheme of its own grid, at random A: two rocks of the model file's kind, and 3 + 9 sigmoid(k phi) of such
fields, for the A's that an estimate passes through. For each case A and the operator's weights are then
found together by the model file's data, penalty, unknown network and first guess. Case 0 is the file's
truth and data; others have other fields, none of which the training has seen. Beside it stands the
estimate by finite volumes from the same data and start. One process, one thread.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import benchmarks.one_thread  # noqa: F401, I001  # before JAX

import argparse
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bilo_ppl as bilo
from benchmarks.commands import Kept
from bilo_ppl.baselines import fit_pino
from bilo_ppl.numerics.grid_field import GridField2D
from bilo_ppl.ppl.look import site_at
from bilo_ppl.surrogates import (
    Surrogate,
    TrainingSet,
    load_surrogate,
    relative_errors,
    save_surrogate,
    solve_all,
    train_pino,
)
from models import darcy_estimate as case

jax.config.update("jax_enable_x64", True)

HERE = pathlib.Path(__file__).resolve().parent
CELLS, FINE = 50, 100
"""Of the operator's grid, and of the solutions; A is sampled at the nodes of the fine one."""
ROCKS, SOFT, TEST = 1200, 600, 100
STEEPEST = 30.0
SIZES: dict[str, Any] = {"channels": 24, "modes": 12, "depth": 4}
TRAINING_STEPS, STEPS, NUMERICAL_STEPS = 7000, 2000, 500
FIRST_FIELD = 1000
"""Number of the first field of the training; cases have smaller ones."""


class Soft(eqx.Module):
    """3 + 9 sigmoid(k phi), and two rocks where k is infinite."""

    phi: case.Waves
    k: Any

    def __call__(self, x):
        """A at a point."""
        return 3 + 9 * jax.nn.sigmoid(self.k * self.phi(x))


def permeabilities(first: int, steepness: np.ndarray) -> Soft:
    """A batch of A's, from fields of their own."""
    fields = [case.field_of_waves(first + i) for i in range(len(steepness))]
    return Soft(jax.tree.map(lambda *parts: np.stack(parts), *fields), steepness)


def solutions(batch: Soft) -> TrainingSet:
    """Fine solutions on the operator's grid; A as a table, from which it is quickly read in training."""
    points = case.problem.domain.grid(CELLS + 1, CELLS + 1)
    data = solve_all(case.reference(FINE), {"A": batch}, points)
    nodes = jnp.linspace(0.0, 1.0, FINE + 1)
    table = jnp.asarray(case.problem.domain.grid(FINE + 1, FINE + 1))

    @jax.jit
    def tabulated(batch):
        return jax.lax.map(lambda A: jax.vmap(A)(table).reshape(FINE + 1, FINE + 1), batch)

    values = tabulated(jax.tree.map(jnp.asarray, batch)).astype(jnp.float32)
    A = eqx.filter_vmap(lambda v: GridField2D(nodes, nodes, v, 1))(values)
    return data._replace(thetas={"A": A})


def train(path: pathlib.Path) -> dict[str, Any]:
    """Train the operator, and write it and its errors at A's that it has not seen."""
    steepness = np.exp(np.random.default_rng(0).uniform(0.0, np.log(STEEPEST), SOFT))
    began = time.process_time()
    data = solutions(permeabilities(FIRST_FIELD, np.append(np.full(ROCKS, 1e6), steepness)))
    test = solutions(permeabilities(FIRST_FIELD + ROCKS + SOFT, np.full(TEST, 1e6)))
    solved = time.process_time()
    print(f"{data.count} solutions: {solved - began:.0f} CPU s", flush=True)
    found = train_pino(
        case.reference(CELLS),
        data,
        key=jax.random.key(1),
        steps=TRAINING_STEPS,
        test_part=1 / data.count,
        **SIZES,
    )
    save_surrogate(path, found.surrogate)
    errors = relative_errors(found.surrogate, test)
    return {
        "part": "training",
        "solutions": data.count,
        "steps": TRAINING_STEPS,
        **SIZES,
        "test_error_of_u": np.quantile(errors, [0.5, 0.9]).tolist(),
        "cpu_seconds": {"solving": solved - began, "training": time.process_time() - solved},
    }


def estimate(number: int, trained: Surrogate, data_weight: float) -> dict[str, Any]:
    """One case by PINO."""
    truth, data, began = *observed(number), time.process_time()
    found = fit_pino(
        case.model,
        jax.random.key(number),
        trained,
        *data,
        scheme=case.reference(CELLS),
        steps=STEPS,
        data_weight=data_weight,
    )
    seconds = time.process_time() - began
    grid = jnp.asarray(case.problem.domain.grid(CELLS + 1, CELLS + 1))
    solved = jax.vmap(case.reference().solve(found.theta, ())[0])(grid)
    return {
        "part": "pino",
        "case": number,
        "data_weight": data_weight,
        "steps": STEPS,
        **scores(found.theta, truth),
        "u_against_numerical": off(found.solution(np.asarray(grid)), solved),
        "equation_error": found.equation_error**0.5,
        "cpu_seconds": seconds,
    }


def by_finite_volumes(number: int) -> dict[str, Any]:
    """The same case by the numerical operator and its adjoint."""
    truth, data, began = *observed(number), time.process_time()
    model = (case.model, jax.random.key(number), case.reference(), *data)
    found = bilo.find_map(*model, steps=NUMERICAL_STEPS, progress=False)
    seconds = time.process_time() - began
    theta = site_at(case.model, model[2:], {}, found.values, "u").theta
    return {
        "part": "finite volumes",
        "case": number,
        **scores(theta, truth),
        "cpu_seconds": seconds,
    }


def observed(number: int) -> tuple[case.TwoRocks, tuple]:
    """The true A of a case, and the model's arguments: the file's data, but for the field."""
    truth = case.TwoRocks(case.field_of_waves(number))
    x = case.problem.domain.grid(51, 51)
    noise = case.SIGMA * np.random.default_rng(number).normal(size=len(x))
    u = jax.vmap(case.reference(256).solve({"A": truth}, ())[0])(jnp.asarray(x))
    return truth, (x, np.asarray(u) + noise, case.SIGMA)


def scores(theta: Any, truth: case.TwoRocks) -> dict[str, float]:
    """As the model file scores an estimate of its own truth."""
    points = jnp.asarray(case.problem.domain.grid(101, 101))
    found, wanted = (jax.vmap(A)(points) > 7.5 for A in (theta["A"], truth))
    u, true = (
        jax.vmap(case.reference(cells).solve(at, ())[0])(points)
        for cells, at in ((64, theta), (256, {"A": truth}))
    )
    return {"accuracy": float(jnp.mean(found == wanted)), "misfit_of_u": off(u, true)}


def off(u: Any, true: Any) -> float:
    """The relative L2 error."""
    return float(jnp.linalg.norm(jnp.asarray(u) - true) / jnp.linalg.norm(true))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--operator", default="pino.eqx", help="a file that exists is not trained")
    parser.add_argument("--cases", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data-weights", nargs="+", type=float, default=[1.0, 0.1])
    parser.add_argument("--out", default=str(HERE / "results" / "pino.json"))
    arguments = parser.parse_args()
    path = pathlib.Path(arguments.operator)
    kept = Kept(arguments.out, "part", "case", "data_weight")

    def keep(record):
        print(record, flush=True)
        kept.add(record)

    if not path.exists():
        keep(train(path))
    trained = load_surrogate(path, case.problem)
    for number in arguments.cases:
        for weight in arguments.data_weights:
            keep(estimate(number, trained, weight))
        keep(by_finite_volumes(number))


if __name__ == "__main__":
    main()
