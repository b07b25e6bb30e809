"""Numerical solutions to learn from, at thetas of a stated distribution."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._types import Key, Points
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.look import look_at

__all__ = ["Derivatives", "TrainingSet", "kept", "prior_thetas", "solve_all"]


class Derivatives(NamedTuple):
    """How n solutions change with theta, along k directions each.

    >>> slopes = solved.derivatives  # of the example before
    >>> slopes.directions["r"].shape, slopes.changes.shape
    ((20, 1), (20, 1, 21, 1))
    """

    directions: Any
    """As the thetas, with axes n and k before every array of floating-point numbers; None for others."""
    changes: Float[Array, "n k m components"]
    """Derivatives of u along them at the m points."""


class TrainingSet(NamedTuple):
    """Solutions at n thetas.

    >>> training.count, training.unsolved  # of the example before
    (20, 0)
    >>> part, rest = training.split(0.25, key)
    >>> part.count, rest.count, part.values.shape
    (5, 15, (5, 21, 1))
    >>> training.at(np.array([0, 19])).thetas["r"].tolist()
    [2.0, 15.0]
    """

    thetas: Any
    """Thetas, a leading axis n on every array; an entry may be a batch of functions."""
    points: Points
    """Where u is known: ``(m, d)``."""
    values: Float[Array, "n m components"]
    """u there."""
    unsolved: int = 0
    """Thetas that were left out, since the numerical operator did not solve there."""
    derivatives: Derivatives | None = None
    """What `train_dino` learns from as well."""

    @property
    def count(self) -> int:
        """How many solutions there are."""
        return len(self.values)

    def split(self, part: float, key: Key) -> tuple["TrainingSet", "TrainingSet"]:
        """A random part of the solutions, and the others."""
        order = np.asarray(jax.random.permutation(key, self.count))
        number = max(round(part * self.count), 1)
        return self.at(order[:number]), self.at(order[number:])

    def at(self, which: np.ndarray) -> "TrainingSet":
        """The solutions of these numbers."""
        slopes = self.derivatives
        if slopes is not None:
            slopes = Derivatives(_taken(slopes.directions, which), slopes.changes[which])
        thetas = _taken(self.thetas, which)
        return TrainingSet(thetas, self.points, self.values[which], derivatives=slopes)


def prior_thetas(
    model: Callable,
    key: Key,
    count: int,
    *args: Any,
    site: str | None = None,
    **kwargs: Any,
) -> Any:
    """Thetas of a solution site at ``count`` draws from a model's prior, as `TrainingSet` has them.

    ``site`` is by default the first one; of several experiments each draw gives the first.

    >>> from bilo_ppl.surrogates import prior_thetas
    >>> prior_thetas(model, key, 20, exact, x, y)["r"].shape
    (20,)
    """

    def one(key):
        look = look_at(model, args, kwargs, key=key)
        found = look.solutions[next(iter(look.solutions)) if site is None else site]
        if found.batch is None:
            return dict(found.theta)
        return {n: v if callable(v) else v[0] for n, v in found.theta.items()}

    return eqx.filter_vmap(one)(jax.random.split(key, count))


def solve_all(operator: AbstractSolutionOperator, thetas: Any, points: Points) -> TrainingSet:
    """Solve at every theta; those at which that fails are left out and counted.

    ``thetas`` are as `prior_thetas` gives them, with a leading axis, and ``points`` ``(m, d)`` are where
    u will be known. Raises a ``ValueError`` where none is solved.

    >>> from bilo_ppl.surrogates import solve_all
    >>> training = solve_all(exact, {"r": np.linspace(2.0, 15.0, 20)}, problem.domain.grid(21))
    >>> training.values.shape
    (20, 21, 1)
    """
    points = np.asarray(points, float)
    arrays, static = eqx.partition(thetas, eqx.is_array)
    arrays = jax.tree.map(jnp.asarray, arrays)

    @jax.jit
    def every(arrays):
        def one(arrays):
            theta = eqx.combine(arrays, static)
            field, _, info = operator.solve(theta, operator.init_state())
            u = jax.vmap(field)(jnp.asarray(points))
            return u.reshape(len(points), -1), info.converged

        return jax.lax.map(one, arrays)

    values, solved = jax.device_get(every(arrays))
    return kept("solve_all", operator, TrainingSet(thetas, points, values), solved)


def kept(
    name: str, operator: AbstractSolutionOperator, data: TrainingSet, solved: np.ndarray
) -> TrainingSet:
    """What is solved and finite; a ``ValueError`` where nothing is, which ``name`` begins."""
    known = [data.values] if data.derivatives is None else [data.values, data.derivatives.changes]
    finite = [np.isfinite(numbers).reshape(len(solved), -1).all(axis=1) for numbers in known]
    good = np.flatnonzero(np.logical_and.reduce([solved, *finite]))
    if not good.size:
        raise ValueError(
            f"{name}: none of the {len(solved)} thetas is solved by the {type(operator).__name__}; "
            "are they where a solution exists?"
        )
    return data.at(good)._replace(unsolved=len(solved) - len(good))


def _taken(thetas: Any, which: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: leaf[which] if eqx.is_array(leaf) else leaf, thetas)
