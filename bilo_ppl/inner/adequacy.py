"""Whether the collocation points suffice, by the residual where no fit has been, and which to add.

Points are added by the residual: drawn with a probability that grows with its square (Wu, Zhu, Tan,
Kartha, Lu, A comprehensive study of non-adaptive and residual-based adaptive sampling, 2023).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Points, Theta, Weights
from bilo_ppl.inner.linearised import linearise
from bilo_ppl.inner.lower_level import LowerLevel
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.pde.points import refined

__all__ = ["Adequacy", "Adequate", "correction", "unseen_points"]

MUCH_LARGER = 10.0
"""How many times the loss at the points that between them may be, where it is above the tolerance."""

MOST_TIMES, MOST_OF_FEW = 4, 200
"""Points may become so many times as many as the problem gave, and so many in any case."""

MOST_UNSEEN = 512
"""Points at which a step shows what the solution lacks."""

DAMPING = 1e-9
"""Of that step, in double precision."""


class Adequacy(NamedTuple):
    """Loss between the points of a fit, and the points to fit next."""

    unseen: float
    """Loss at points that the fit has not seen."""
    suffices: bool
    """Whether it is not much larger than the tolerance, or than the loss of the fit."""
    more: Float[np.ndarray, "n d"] | None
    """The points and as many others, where the residual is large; None at the limit."""


class Adequate:
    """The check of a lower level's points: the loss between them, in units of a tolerance."""

    def __init__(self, lower_level: LowerLevel, tolerance: float):
        self.lower_level, self.tolerance = lower_level, tolerance

    def __call__(self, weights: Weights, thetas: Theta, points: Points) -> Adequacy:
        """Look between ``points`` at a batch of thetas."""
        problem = self.lower_level.operator.problem
        own = np.asarray(points, float)
        points = refined(own, problem.domain)
        found = np.asarray(_point_losses(self.lower_level, weights, thetas, points), float)
        seen, losses, other = found[: len(own)], found[len(own) :], points[len(own) :]
        unseen = float(losses.mean())
        suffices = unseen <= max(self.tolerance, MUCH_LARGER * float(seen.mean()))
        most = max(MOST_TIMES * len(problem.points), MOST_OF_FEW)
        if not np.isfinite(losses).all() or 2 * len(own) > most:
            return Adequacy(unseen, suffices, None)
        chance = losses / max(losses.mean(), 1e-300) + 1
        picked = np.random.default_rng(len(own)).choice(
            len(other), min(len(own), len(other)), replace=False, p=chance / chance.sum()
        )
        return Adequacy(unseen, suffices, np.concatenate([own, other[np.sort(picked)]]))


def unseen_points(operator: LocalOperator, most: int = MOST_UNSEEN) -> Float[np.ndarray, "n d"]:
    """At most ``most`` points between those that the operator is fitted at."""
    own = np.asarray(operator.points, float)
    return refined(own, operator.problem.domain)[len(own) :][:most]


def correction(lower_level: LowerLevel, weights: Weights, theta: Theta, points: Points) -> Weights:
    """Direction of one Gauss-Newton step on the rows at other points ``(n, d)``, in the weights.

    What it changes, to first order, is how far the solution is from one that solves the equation there.
    Only to first order: rows that the network can hardly change ask for a long way in the weights.
    """
    problem = lower_level.with_points(points).at(theta)
    _, unravel = ravel_pytree(weights)
    rows = problem.rows(weights)
    damping = max(DAMPING, 10 * float(jnp.finfo(rows.dtype).eps))
    return unravel(-linearise(problem, weights).solve(damping, rows))


@jit_once
def _point_losses(lower_level: LowerLevel, weights: Weights, thetas: Theta, points: Any) -> Any:
    """Weighted squares of the rows at each point, averaged over thetas; their mean is the loss."""
    level = lower_level.with_points(points)
    # A theta of functions without arrays has no batch axis.
    batched = any(map(eqx.is_array, jax.tree.leaves(thetas)))
    family = (level.at_many(thetas) if batched else level.at(thetas)).families[0]
    rows = family.named(weights).values()
    squares = jnp.stack([jnp.sum(part**2, axis=1) for part in rows]).sum(axis=0)
    return len(points) * jnp.sum(squares.reshape(-1, len(points)), axis=0)
