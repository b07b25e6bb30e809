"""Solutions at some thetas, and the reduced level between them, from no more thetas than it needs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Theta
from bilo_ppl.inner.output_level import OutputLevel
from bilo_ppl.inner.reduced_level import ReducedLevel, at_fewer_points, reduced_level
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.pde.theta import theta_as

__all__ = ["level_between"]

TOGETHER = 24
"""Thetas that are solved at first, and then, twice as many each time, in parts of so many."""

SOLUTIONS_PER_DIRECTION = 3
"""Solutions that tell of a direction: with so many for each, more would not add any."""


def level_between(
    operator: AbstractSolutionOperator, level: OutputLevel, thetas: Theta, left_out: float
) -> tuple[ReducedLevel | None, Float[np.ndarray, " solved"]]:
    """The reduced level between the solutions at some of a batch of thetas, and the losses of these.

    They should be in an order in which the first ones are spread out. Solutions with more than the
    operator's tolerance do not count. What the level leaves out raises their mean loss by at most
    ``left_out``. None where solutions do not lie near a space of few dimensions.
    """
    count = jax.tree.leaves(thetas)[0].shape[0]
    solutions, losses = _solved(operator, thetas, 0, min(TOGETHER, count))
    while True:
        known = np.flatnonzero(losses <= (operator.loss_tolerance or 0.0))
        found = None
        if len(known):
            there = theta_as(_taken(thetas, known), level.operator.dtype)
            first = jax.tree.map(lambda leaf: leaf[0], there)
            found = reduced_level(level, first, solutions[known], left_out)
        done = len(losses)
        enough = found and SOLUTIONS_PER_DIRECTION * found[1].shape[1] <= len(known)
        if enough or done == count:
            break
        more = _solved(operator, thetas, done, min(2 * done, count))
        solutions = jnp.concatenate([solutions, more[0]])
        losses = np.concatenate([losses, more[1]])
    if found is None:
        return None, losses
    reduced, coordinates = found
    there, coordinates = _first(TOGETHER, (there, coordinates))
    return at_fewer_points(reduced, there, coordinates), losses


def _solved(operator: Any, thetas: Theta, start: int, stop: int) -> tuple[Any, np.ndarray]:
    """Weights and losses at some of the thetas; in parts of one size, for one compilation."""
    parts = []
    for low in range(start, stop, TOGETHER):
        index = np.minimum(np.arange(low, low + TOGETHER), stop - 1)
        found = _solutions(operator, _taken(thetas, index))
        parts.append(_first(min(TOGETHER, stop - low), found))
    weights, losses = (jnp.concatenate(part) for part in zip(*parts, strict=True))
    return weights, np.asarray(losses)


def _taken(thetas: Theta, index: Any) -> Theta:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], thetas)


def _first(count: int, batch: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[:count], batch)


@jit_once
def _solutions(operator: Any, thetas: Theta) -> Any:
    """Weights and losses at a batch of thetas."""

    def solved(theta: Theta) -> Any:
        _, weights, info = operator.solve(theta, operator.init_state())
        return weights, info.loss

    return jax.lax.map(solved, thetas)
