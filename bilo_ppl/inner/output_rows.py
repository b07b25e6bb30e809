"""Rows of an output layer's weights, made from what is known of the features beforehand.

Of the derivatives at a point, a residual asks for few combinations, whatever theta is; these are
tabulated for the features (`output_level`), or for combinations of these (`reduced_level`).
"""

import abc
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from bilo_ppl._types import Points, Rows, Theta
from bilo_ppl.inner.known_parts import PointFunction
from bilo_ppl.network.features import features, taylor_value
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.pde.problem import Problem

__all__ = ["AbstractOutputRows", "KnownParts", "OutputSolution", "OutputWeights", "is_rounding"]

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


class KnownParts(eqx.Module):
    """What a residual makes of each collocation point alone (`bilo_ppl.inner.known_parts`)."""

    values: list[Shaped[Array, "n ..."]]
    name: str = eqx.field(static=True)
    """Of the residual that takes them, with theta of a structure."""

    def at(self, index: Any) -> "KnownParts":
        """At some of the points."""
        return KnownParts([value[index] for value in self.values], self.name)


class AbstractOutputRows(eqx.Module):
    """Rows of parameters that the weights of the output layer are affine in, at any theta."""

    operator: LocalOperator
    """Blinded: its features do not follow theta."""
    points: Points
    axes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    """What the derivatives at a point are taken along, see `Jets`."""
    basis: Float[Array, "n jets kept"]
    """Orthonormal combinations of them that the residual asks for, at each point."""
    shares: Float[Array, " n"]
    """What a point counts for in the mean over all."""
    known: KnownParts | None
    """None: what the residual makes of the points is computed each time."""

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

    @abc.abstractmethod
    def _summed_back(self, asked: Float[Array, "kept components rows n"]) -> Float[Array, "p rows"]:
        """The same, summed over the points."""

    def solution(self, theta: Theta, flat: Float[Array, " p"]) -> OutputSolution:
        """u for some parameters."""
        return OutputSolution(self.operator, self.weights(flat), theta)

    def rows(self, theta: Theta, flat: Float[Array, " p"]) -> Rows:
        """Residuals, scaled so that their squares add up to the mean over all points, and conditions.

        Those of all points of a residual's first component come first.
        """
        return jnp.concatenate([self.residuals(theta, flat).ravel(), self._conditions(theta, flat)])

    def jacobian(self, theta: Theta, flat: Float[Array, " p"]) -> Float[Array, "rows p"]:
        """Of `rows`."""
        blocks = self.derivatives(theta, flat).reshape(flat.size, -1)
        conditions = jax.jacrev(partial(self._conditions, theta))(flat)
        return jnp.concatenate([blocks, conditions.T], 1).T

    def residuals(self, theta: Theta, flat: Float[Array, " p"]) -> Float[Array, "rows n"]:
        """Rows of the points."""
        found = self._at_points(theta, flat, lambda residual, jet: residual(jet))
        return _each(self._scale, found.T)

    def derivatives(self, theta: Theta, flat: Float[Array, " p"]) -> Float[Array, "p rows n"]:
        """Of `residuals`, which know the features at their own point only."""
        asked = jnp.einsum("nqcj,njk->kcqn", self._asked(theta, flat), self.basis)
        return _each(self._scale, self._pulled_back(asked))

    def gradient(self, theta: Theta, flat: Float[Array, " p"]) -> Float[Array, " p"]:
        """Half of the gradient of the sum of squares."""
        rows, pull = jax.vjp(partial(self.rows, theta), flat)
        return pull(rows)[0]

    def bend(self, theta: Theta, flat: Float[Array, " p"]) -> Float[Array, "p p"]:
        """Sum of the rows, each times its second derivatives: what ``J^T J`` lacks of half the Hessian.

        A residual bends with the derivatives at its own point only, of which there are few.
        """
        basis = self.basis

        def bends(residual, jet):
            fixed = jax.lax.stop_gradient(residual(jet))
            return jax.hessian(lambda moved: fixed @ residual(moved))(jet)

        second = self._at_points(theta, flat, bends)
        second = _each(self.shares, jnp.einsum("ncjdi,njk,nil->kcldn", second, basis, basis))
        kept, components = second.shape[:2]
        pulled = self._pulled_back(second.reshape(kept, components, -1, len(self.points)))
        pulled = jnp.moveaxis(pulled.reshape(flat.size, kept, components, -1), 0, 2)
        found = self._summed_back(pulled)
        rows = self._conditions(theta, flat)
        if not rows.size:
            return found
        fixed = jax.lax.stop_gradient(rows)
        return found + jax.hessian(lambda moved: fixed @ self._conditions(theta, moved))(flat)

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
        return self._at_points(theta, flat, lambda residual, jet: jax.jacrev(residual)(jet))

    def _at_points(self, theta: Theta, flat: Any, of: Callable[[Callable, Any], Any]) -> Any:
        """``of(residual, jet)`` at all points, the residual there as a function of a jet."""
        jets, known = self._jets(flat), self.known
        traced = known and self.traced(theta)
        if not known or not traced or traced.name != known.name:
            problem = self.operator.problem
            at_point = jax.vmap(lambda x, jet: of(partial(self._residual, problem, x, theta), jet))
            return at_point(self.points, jets)
        arrays = eqx.partition(theta, eqx.is_array)[0]

        def at_known(known: Any, jet: Any) -> Any:
            return of(lambda moved: traced.finish(known, (arrays, moved)), jet)

        return jax.vmap(at_known)(known.values, jets)

    def traced(self, theta: Theta) -> PointFunction:
        """The residual at a point, of theta's arrays and a jet, for theta of this structure."""
        arrays, static = eqx.partition(theta, eqx.is_array)
        constants, structure = eqx.partition(self.operator.problem, _is_any_array)
        shape = self.operator.problem.components, len(self.axes)
        jet = jax.ShapeDtypeStruct(shape, self.operator.dtype)

        def residual(x: Any, more: Any, constants: Any) -> Rows:
            problem = eqx.combine(constants, structure)
            return self._residual(problem, x, eqx.combine(more[0], static), more[1])

        return PointFunction(residual, self.points[0], (arrays, jet), constants)

    @property
    def _scale(self) -> Float[Array, " n"]:
        return jnp.sqrt(self.shares)

    def _residual(self, problem: Problem, x: Any, theta: Theta, jet: Any) -> Rows:
        u = _NearPoint(problem, x, jet, self.axes, theta)
        return jnp.atleast_1d(problem.residual(u, x, theta))

    def _conditions(self, theta: Theta, flat: Any) -> Rows:
        found = self.operator.problem.conditions(self.solution(theta, flat), theta)
        rows = [jnp.atleast_1d(found[name]).ravel() for name in sorted(found)]
        return jnp.concatenate([jnp.zeros(0, self.operator.dtype), *rows])


def _is_any_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, np.ndarray)


def _each(
    factors: Float[Array, " n"], blocks: Float[Array, "*shape n"]
) -> Float[Array, "*shape n"]:
    """What belongs to a point times the factor of the point."""
    return factors.reshape(*[1] * (blocks.ndim - 1), -1) * blocks


def is_rounding(difference: Any, size: Any) -> Any:
    """Whether a difference is no more than the square root of a unit of rounding in ``size``."""
    unit = float(jnp.finfo(size.dtype).eps) ** 0.5
    return jnp.max(jnp.abs(difference)) <= unit * jnp.max(jnp.abs(size))
