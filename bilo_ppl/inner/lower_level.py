"""The lower level: the rows that must vanish for u(x, theta; W) to solve the PDE at theta.

    loss(W; theta) = w_r mean |r|^2 + sum over further blocks (residual gradient, conditions)

with r(x) = residual(u(., theta; W), x, theta). Which further blocks there are is decided by the
sensitivity (BiLO, arXiv:2404.17789, adds the gradient of r with respect to theta).
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bilo_ppl._types import Point, Points, Rows, Theta, Weights
from bilo_ppl.inner.least_squares import LeastSquares, RowFamily
from bilo_ppl.network.local_operator import LocalOperator, LocalSolution

__all__ = ["AbstractSensitivity", "LowerLevel"]


class AbstractSensitivity(eqx.Module):
    """How u depends on theta once the weights are found: see `bilo_ppl.inner.sensitivity`.

    **How to write your own.** Give `attach`; it may call ``lower_level.at(theta)`` for the rows, and
    `bilo_ppl.inner.linearised.linearise` for their Jacobian. Where the lower level must drive more
    than the residual to zero, add blocks by `rows` and `row_weights`. Theta comes checked and in the
    precision of the operator. `ImplicitDifferentiation` shows the one, `ResidualGradient` the other.

    Examples:
        >>> class AtFixedWeights(bilo.AbstractSensitivity):
        ...     def attach(self, lower_level, weights, theta):
        ...         return weights
        >>> level = bilo.LowerLevel(network, AtFixedWeights())
        >>> level.at(start).rows(network.weights).shape
        (21,)
    """

    @abc.abstractmethod
    def attach(self, lower_level: "LowerLevel", weights: Weights, theta: Theta) -> Weights:
        """The same weights, made to depend on theta as this sensitivity says."""

    def rows(
        self, name: str, rows_of: Callable[[Theta], Rows], theta: Theta, operator: LocalOperator
    ) -> dict[str, Rows]:
        """Blocks to add to the block ``name``, whose rows as a function of theta are ``rows_of``."""
        return {}

    def row_weights(self, row_weights: Mapping[str, float]) -> dict[str, float]:
        """Loss weights of the added blocks, given those of all of the problem's own blocks."""
        return {}

    @property
    def exact(self) -> bool:
        """Whether the derivative is that of the solution wherever the lower level is solved."""
        return True

    @property
    def follows_theta(self) -> bool:
        """Whether u at *fixed* weights changes with theta as the solution does."""
        return False


class LowerLevel(eqx.Module):
    """The least-squares problem for the weights of ``operator``, at any theta.

    ``row_weights`` are the loss weights by block: "residual", and the names that the problem's
    `conditions` return (1 where not given).

    Examples:
        >>> level = bilo.LowerLevel(network, bilo.PartialDerivative()).at(start)
        >>> rows = level.rows(network.weights)  # one for each collocation point
        >>> rows.shape, bool(level.loss(network.weights) < 1e-6)
        ((21,), True)
    """

    operator: LocalOperator
    sensitivity: AbstractSensitivity
    row_weights: dict[str, float] = eqx.field(default_factory=dict)

    def _with_added(self, name, rows_of, theta) -> dict[str, Rows]:
        own = {name: rows_of(theta)}
        return {**own, **self.sensitivity.rows(name, rows_of, theta, self.operator)}

    def _point_rows(self, weights: Weights, item: tuple[Point, Theta]) -> dict[str, Rows]:
        x, theta = item
        operator = self.operator.with_weights(weights)

        def residual(theta):
            r = operator.problem.residual(LocalSolution(operator, theta), x, theta)
            return jnp.atleast_1d(r).astype(operator.dtype)

        return self._with_added("residual", residual, theta)

    def _condition_rows(self, weights: Weights, theta: Theta) -> dict[str, Rows]:
        operator = self.operator.with_weights(weights)
        rows: dict[str, Rows] = {}
        for name in operator.problem.conditions(LocalSolution(operator, theta), theta):

            def condition(theta, name=name):
                c = operator.problem.conditions(LocalSolution(operator, theta), theta)[name]
                return jnp.atleast_1d(c).astype(operator.dtype)

            rows.update(self._with_added(name, condition, theta))
        return rows

    def with_points(self, points: Points) -> "LowerLevel":
        """The lower level at other collocation points ``(n, d)``."""
        operator = self.operator.with_points(points)
        return eqx.tree_at(lambda level: level.operator, self, operator)

    def at(self, theta: Theta) -> LeastSquares:
        """The least-squares problem for one theta, in the precision of the operator."""
        arrays, static = eqx.partition(theta, eqx.is_array)

        def point_rows(weights, x):
            return self._point_rows(weights, (x, theta))

        batch = jax.tree.map(lambda leaf: leaf[None], arrays)
        return self._assembled(point_rows, self.operator.points, batch, static)

    def at_many(self, thetas: Theta) -> LeastSquares:
        """One problem over a batch of thetas (a leading axis on every array), averaged over them."""
        batch, static = eqx.partition(thetas, eqx.is_array)
        points = self.operator.points
        count = jax.tree.leaves(batch)[0].shape[0]

        def point_rows(weights, item):
            x, arrays = item
            return self._point_rows(weights, (x, eqx.combine(arrays, static)))

        repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, len(points), axis=0), batch)
        items = (jnp.tile(points, (count, 1)), repeated)
        return self._assembled(point_rows, items, batch, static)

    def _assembled(self, point_rows: Any, items: Any, batch: Any, static: Any) -> LeastSquares:
        """Rows at the points, and the condition rows over a batch of thetas if there are any."""
        first = eqx.combine(jax.tree.map(lambda leaf: leaf[0], batch), static)
        names = list(self.operator.problem.conditions(LocalSolution(self.operator, first), first))
        weights = self._all_weights(["residual", *names])
        families = [RowFamily(point_rows, items, weights)]
        if names:

            def rows(weights, arrays):
                return self._condition_rows(weights, eqx.combine(arrays, static))

            families.append(RowFamily(rows, batch, weights))
        return LeastSquares(tuple(families))

    def _all_weights(self, names: list[str]) -> dict[str, float]:
        """Loss weights of all blocks; ``names`` are the problem's own."""
        unknown = [name for name in self.row_weights if name not in names]
        if unknown:
            raise ValueError(f"row_weights: there are no rows {unknown}, only {names}.")
        own = {**dict.fromkeys(names, 1.0), **self.row_weights}
        return {**own, **self.sensitivity.row_weights(own)}
