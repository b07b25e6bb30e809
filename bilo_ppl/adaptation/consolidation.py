"""Consolidation: the operator fitted to the lower-level rows of many thetas at once."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Key, Theta
from bilo_ppl.inner.pretraining import FitReport, fit
from bilo_ppl.inner.solvers import AbstractInnerSolver, LevenbergMarquardt, solve
from bilo_ppl.operators.fine_tuned import FineTuned

__all__ = [
    "batch_of",
    "consolidate",
    "count_of",
    "dimension_of",
    "farthest_points",
    "joined",
    "losses",
    "rows_of",
    "solvable",
    "spread_out",
]

MARGIN = 100
"""How far below the tolerance a consolidation aims: what is left of the loss is what the posterior is
wrong by, and it is nearly free here."""

STAGES = (0.25, 0.5, 0.75, 1.0)
"""Parts of the way from one theta to all of them: see `consolidate`."""

LEAST_GAIN = 0.1
"""A chunk of steps that lowers the loss by a smaller part than this is the last."""


def batch_of(names: tuple[str, ...], thetas: Theta) -> Theta:
    """Given thetas as arrays; raises a ``ValueError`` unless they are batches of one length."""
    lengths = {
        name: {np.shape(leaf)[:1] for leaf in jax.tree.leaves(value)}
        for name, value in thetas.items()
    }
    every = set().union(*lengths.values()) if lengths else set()
    if set(thetas) != set(names) or len(every) != 1 or () in every:
        raise ValueError(
            f"adapt: thetas needs a batch of equal length for each of {list(names)} and nothing else; "
            f"got leading axes { {name: sorted(found) for name, found in lengths.items()} }."
        )
    return jax.tree.map(jnp.asarray, dict(thetas))


def count_of(thetas: Theta) -> int:
    """Length of a batch."""
    return jax.tree.leaves(thetas)[0].shape[0]


def dimension_of(thetas: Theta) -> int:
    """Number of scalars in one theta of a batch."""
    return ravel_pytree(rows_of(thetas, 0))[0].size


def rows_of(thetas: Theta, index: Any) -> Theta:
    """Part of a batch."""
    return jax.tree.map(lambda leaf: leaf[index], thetas)


def joined(first: Theta, second: Theta) -> Theta:
    """Two batches as one."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)


def farthest_points(rows: Float[np.ndarray, "n dim"], count: int) -> np.ndarray:
    """Indices of ``count`` rows, each the farthest from those before; the first is the most central."""
    chosen = [int(np.argmin(((rows - rows.mean(axis=0)) ** 2).sum(axis=1)))]
    distance = ((rows - rows[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < min(count, len(rows)) and distance.max() > 0:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((rows - rows[chosen[-1]]) ** 2).sum(axis=1))
    return np.array(chosen)


def spread_out(thetas: Theta, count: int) -> np.ndarray:
    """Indices of ``count`` thetas spread by distance, in units of their standard deviations."""
    rows = np.asarray(jax.vmap(lambda t: ravel_pytree(t)[0])(thetas), dtype=float)
    sd = rows.std(axis=0)
    return farthest_points(rows / np.where(sd > 0, sd, 1), count)


@jit_once
def _losses(operator: FineTuned, thetas: Theta) -> Any:
    weights, lower_level = operator.init_state(), operator.lower_level
    return jax.vmap(lambda t: lower_level.at(t).loss(weights))(thetas)


def losses(operator: FineTuned, thetas: Theta) -> Float[np.ndarray, " n"]:
    """Lower-level loss of the stored weights at each theta: no inner step is taken."""
    return np.asarray(_losses(operator, thetas))


def solvable(operator: FineTuned, thetas: Theta) -> Theta:
    """The thetas at which ``operator`` reaches its tolerance; a ``ValueError`` if there is none."""
    solver, lower_level, weights = operator.solver, operator.lower_level, operator.init_state()
    solved = jax.jit(jax.vmap(lambda t: solve(solver, lower_level.at(t), weights).converged))
    kept = np.flatnonzero(np.asarray(solved(thetas)))
    if not len(kept):
        raise ValueError(
            f"adapt: the inner solver reached a loss of {solver.tolerance:.0e} in {solver.max_steps} "
            f"steps at none of {count_of(thetas)} thetas; allow more inner steps, a larger rank, or "
            "pretrain nearer to them."
        )
    return rows_of(thetas, kept)


def consolidate(
    operator: FineTuned, thetas: Theta, *, rank: int, steps: int, key: Key, progress: bool
) -> tuple[FineTuned, FitReport]:
    """Fit increments of ``rank`` (0: all weights) to the rows of all thetas, then merge them.

    A nonlinear PDE may have several solutions, and one leap to distant thetas may land on another
    branch than the operator was on. So the thetas set out from the first of them, which should be near
    to what the operator solves, and move to their places in a few stages. The result has the rank that
    the operator had before, its increments starting from zero.
    """
    local = operator.operator.with_lora(rank, key=key)
    wide = eqx.tree_at(lambda o: o.operator, operator, local)
    solver: AbstractInnerSolver = LevenbergMarquardt(
        tolerance=operator.solver.tolerance / MARGIN, max_steps=steps
    )
    first = rows_of(thetas, 0)
    weights, report = fit(
        solver,
        wide.lower_level.at_many,
        local.weights,
        stages=[_towards(first, thetas, part) for part in STAGES],
        progress=progress,
        label=f"consolidate {count_of(thetas)} thetas",
        least_gain=LEAST_GAIN,
    )
    fine_rank = operator.operator.rank
    merged = local.with_weights(weights).with_lora(fine_rank, key=jax.random.fold_in(key, 1))
    return eqx.tree_at(lambda o: o.operator, operator, merged), report


def _towards(first: Theta, thetas: Theta, part: float) -> Theta:
    """The thetas at ``part`` of their distances from ``first``."""
    return jax.tree.map(lambda one, all_: one + part * (all_ - one), first, thetas)
