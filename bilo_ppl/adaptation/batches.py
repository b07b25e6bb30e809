"""Batches of thetas: mappings of arrays with a leading axis, chosen from, joined, and looked at."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Theta
from bilo_ppl.operators.base import AbstractSolutionOperator

__all__ = [
    "batch_of",
    "count_of",
    "covariance_of",
    "described",
    "dimension_of",
    "farthest_points",
    "home_like",
    "joined",
    "losses",
    "rows_of",
    "solvable",
    "spread_out",
    "wanted_count",
]

PER_COEFFICIENT = 6
"""Thetas to fit for each coefficient of a quadratic function of theta: with one for each, what is right
at all of them is often wrong between them."""

KNOWN = 5.0
"""What was known of a covariance counts for so many positions an entry."""

MOST_THETAS = 400
"""Most thetas of a round, unless more are asked for."""


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


def home_like(thetas: Theta, operator: AbstractSolutionOperator) -> Theta:
    """The operator's home as a batch, like ``thetas``; nothing if it is not known.

    Fitted with the rest, it stays a theta at which a sampler can start. Of a field the operator knows
    no more than a typical value.
    """
    home = operator.home
    if not all(name in home and hasattr(v, "shape") for name, v in thetas.items()):
        return rows_of(thetas, slice(0))
    return {name: jnp.asarray(home[name], v.dtype)[None] for name, v in thetas.items()}


def dimension_of(thetas: Theta) -> int:
    """Number of scalars in one theta of a batch."""
    return ravel_pytree(rows_of(thetas, 0))[0].size


def rows_of(thetas: Theta, index: Any) -> Theta:
    """Part of a batch."""
    return jax.tree.map(lambda leaf: leaf[index], thetas)


def joined(first: Theta, second: Theta) -> Theta:
    """Two batches as one."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)


def covariance_of(
    positions: Float[np.ndarray, "n dim"], known: Float[np.ndarray, "dim dim"]
) -> Float[np.ndarray, "dim dim"]:
    """Of positions, drawn a little towards what was known before: where nothing moved, that stays."""
    weight = KNOWN * known.shape[0] / (len(positions) + KNOWN * known.shape[0])
    return (1 - weight) * np.atleast_2d(np.cov(positions.T)) + weight * known


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
def _losses(operator: AbstractSolutionOperator, thetas: Theta) -> Any:
    if operator.checks_by_solving:
        return jax.lax.map(operator.loss_of_home_state, thetas)
    return jax.vmap(operator.loss_of_home_state)(thetas)


def losses(operator: AbstractSolutionOperator, thetas: Theta) -> Float[np.ndarray, " n"]:
    """Loss of the operator's own state at each theta: no inner step is taken."""
    return np.asarray(_losses(operator, thetas))


def solvable(operator: AbstractSolutionOperator, thetas: Theta) -> Theta:
    """The thetas at which ``operator`` reaches its tolerance; a ``ValueError`` if there is none."""
    state = operator.init_state()
    solved = jax.jit(jax.vmap(lambda theta: operator.solve(theta, state)[2].converged))
    kept = np.flatnonzero(np.asarray(solved(thetas)))
    if not len(kept):
        raise ValueError(
            f"adapt: the operator reached {described(operator)} at none of {count_of(thetas)} thetas; "
            "allow more inner steps, a larger rank, or pretrain nearer to them."
        )
    return rows_of(thetas, kept)


def described(operator: AbstractSolutionOperator) -> str:
    """The tolerance of an operator, in words."""
    tolerance = operator.loss_tolerance
    return "a solution" if tolerance is None else f"a loss of {tolerance:.0e}"


def wanted_count(dimension: int, count: int | None) -> int:
    """How many thetas to fit in a round."""
    coefficients = max(6 + 4 * dimension, 2 * dimension * (dimension + 1))
    return count or min(PER_COEFFICIENT * coefficients, MOST_THETAS)
