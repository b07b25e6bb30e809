"""Rows of an output layer's weights, made from what is known of the features beforehand.

Of the derivatives at a point, a residual asks for few combinations, whatever theta is; these are
tabulated for the features (`output_level`), or for combinations of these (`reduced_level`).
"""

import abc
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._types import Points, Rows, Theta
from bilo_ppl.network.features import features, taylor_value
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.pde.problem import Problem

__all__ = ["AbstractOutputRows", "OutputSolution", "OutputWeights", "is_rounding"]

OutputWeights = Float[Array, "components features"]


class OutputSolution(eqx.Module):
    """The solution at one theta: a function of a point."""

    operator: LocalOperator
    weights: OutputWeights
    theta: Theta

    def __call__(self, x):
        """Value at a point ``(d,)`` (in one dimension also a scalar): a scalar or (components,)."""
        operator = self.operator
        x = jnp.atleast_1d(x).astype(operator.dtype)
        raw = self.weights @ features(operator, x)
        return _lifted(operator.problem, x, raw, self.theta)


class _NearPoint(eqx.Module):
    """The same near a collocation point, by derivatives ``(components, jets)`` of the raw output."""

    problem: Problem
    point: Any
    jet: Any
    axes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    theta: Theta

    def __call__(self, x):
        return _lifted(
            self.problem, x, taylor_value(self.jet, self.axes, x - self.point), self.theta
        )


def _lifted(problem: Problem, x: Any, raw: Any, theta: Theta) -> Any:
    return problem.lift(x, raw if problem.components > 1 else raw[0], theta)


class AbstractOutputRows(eqx.Module):
    """Rows of parameters that the weights of the output layer are affine in, at any theta."""

    operator: LocalOperator
    """Blinded: its features do not follow theta."""
    points: Points
    axes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    """What the derivatives at a point are taken along, see `Jets`."""
    basis: Float[Array, "n jets kept"]
    """Orthonormal combinations of them that the residual asks for, at each point."""

    @abc.abstractmethod
    def weights(self, flat: Float[Array, " p"]) -> OutputWeights:
        """Those of the output layer."""

    @abc.abstractmethod
    def _kept(self, flat: Float[Array, " p"]) -> Float[Array, "kept components n"]:
        """The combinations of the derivatives of the raw output that are kept."""

    @abc.abstractmethod
    def _pulled_back(
        self, asked: Float[Array, "kept components rows n"]
    ) -> Float[Array, "p rows n"]:
        """From derivatives with respect to these to those with respect to the parameters."""

    def solution(self, theta: Theta, flat: Float[Array, " p"]) -> OutputSolution:
        """u for some parameters."""
        return OutputSolution(self.operator, self.weights(flat), theta)

    def rows(self, theta: Theta, flat: Float[Array, " p"]) -> Rows:
        """Residuals, scaled so that their squares add up to the mean square, and conditions.

        Those of all points of a residual's first component come first.
        """
        residuals = jax.vmap(lambda x, jet: self._residual(x, theta, jet))(
            self.points, self._jets(flat)
        )
        return jnp.concatenate([self._scale * residuals.T.ravel(), self._conditions(theta, flat)])

    def jacobian(self, theta: Theta, flat: Float[Array, " p"]) -> Float[Array, "rows p"]:
        """Of `rows`: a residual knows the features at its point only."""
        asked = jnp.einsum("nqcj,njk->kcqn", self._asked(theta, flat), self.basis)
        blocks = self._pulled_back(asked).reshape(flat.size, -1)
        conditions = jax.jacrev(partial(self._conditions, theta))(flat)
        return jnp.concatenate([self._scale * blocks, conditions.T], 1).T

    def gradient(self, theta: Theta, flat: Float[Array, " p"]) -> Float[Array, " p"]:
        """Half of the gradient of the sum of squares."""
        rows, pull = jax.vjp(partial(self.rows, theta), flat)
        return pull(rows)[0]

    def knows(self, theta: Theta, flat: Float[Array, " p"]) -> Any:
        """Whether the residual asks at ``theta`` for nothing but what is kept."""
        if self.basis.shape[1] == self.basis.shape[2]:
            return jnp.array(True)
        asked = self._asked(theta, flat)
        kept = jnp.einsum("nqcj,njk->nqck", asked, self.basis)
        return is_rounding(asked - jnp.einsum("nqck,njk->nqcj", kept, self.basis), asked)

    def _jets(self, flat: Any) -> Float[Array, "n components jets"]:
        """Derivatives of the raw output at all points, as far as they are asked for."""
        return jnp.einsum("kcn,njk->ncj", self._kept(flat), self.basis)

    def _asked(self, theta: Theta, flat: Any) -> Float[Array, "n rows components jets"]:
        """Derivatives of the residuals with respect to those of the raw output."""
        at_point = jax.vmap(lambda x, jet: jax.jacrev(partial(self._residual, x, theta))(jet))
        return at_point(self.points, self._jets(flat))

    @property
    def _scale(self) -> float:
        return 1 / np.sqrt(len(self.points))

    def _residual(self, x: Any, theta: Theta, jet: Any) -> Rows:
        u = _NearPoint(self.operator.problem, x, jet, self.axes, theta)
        return jnp.atleast_1d(self.operator.problem.residual(u, x, theta))

    def _conditions(self, theta: Theta, flat: Any) -> Rows:
        found = self.operator.problem.conditions(self.solution(theta, flat), theta)
        rows = [jnp.atleast_1d(found[name]).ravel() for name in sorted(found)]
        return jnp.concatenate([jnp.zeros(0, self.operator.dtype), *rows])


def is_rounding(difference: Any, size: Any) -> Any:
    """Whether a difference is no more than the square root of a unit of rounding in ``size``."""
    unit = float(jnp.finfo(size.dtype).eps) ** 0.5
    return jnp.max(jnp.abs(difference)) <= unit * jnp.max(jnp.abs(size))
