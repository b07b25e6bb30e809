"""PINO for the Darcy flow with an unknown permeability, `models/darcy_estimate.py`: jumps told right, and u.

    python benchmarks/pino.py [--train] [--cases N] [--operator FILE.eqx] [--out FILE.json]

An FNO on 51 x 51 points is trained on finite-volume solutions (100 x 100 cells) and on the finite-volume
scheme of its own grid, at random A: two rocks of the model file's kind, and 3 + 9 sigmoid(k phi) of the
same fields for the A's that an estimate passes through. It is kept in a file beside the results. For each
case A and the operator's weights are then found together from the model file's data and penalty, from
the first guess of the file. Case 0 is the file's truth; others are other fields, of which no training has
seen one. Beside it stands the estimate of A by finite volumes from the same data and start (`find_map`,
whose u is the numerical solution). One process, one thread.
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
from benchmarks.commands import write_records
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
SIZES = {"channels": 24, "modes": 12, "depth": 4}
TRAINING_STEPS, STEPS = 7000, 3000
FIRST_FIELD = 1000
"""Number of the first field of the training; cases have smaller ones."""


class Soft(eqx.Module):
    """3 + 9 sigmoid(k phi), and two rocks where k is infinite."""

    phi: case.Waves
    k: Any

    def __call__(self, x):
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


def train(path: pathlib.Path, out: pathlib.Path) -> None:
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
    record = {
        "part": "training",
        "solutions": data.count,
        "steps": TRAINING_STEPS,
        **SIZES,
        "test_error_of_u": np.quantile(errors, [0.5, 0.9]).tolist(),
        "cpu_seconds": {"solving": solved - began, "training": time.process_time() - solved},
    }
    print(record, flush=True)
    write_records(out, [record])


if __name__ == "__main__":
    train(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
