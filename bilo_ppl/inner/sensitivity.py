"""Ways to differentiate u(x, theta; W(theta)) with respect to theta, one interface.

`ResidualGradient` (the papers'): the lower level also drives dr/dtheta to zero at fixed weights, so
that the partial derivative of u at fixed weights is the derivative of the solution.
`ImplicitDifferentiation` (a neural adjoint): the lower level has the residual rows only, and

    dW/dtheta = -J^+ dr/dtheta,    J = d rows / dW,

the Gauss-Newton form of the implicit function theorem; one linear solve a gradient in reverse mode.
`PartialDerivative` has the residual rows only and leaves dW/dtheta out: free, and right where the
operator was fitted to a region of thetas (`bilo_ppl.adaptation.adapting`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from bilo_ppl._types import Rows, Theta, Weights
from bilo_ppl.inner.linearised import is_large, linearise
from bilo_ppl.inner.lower_level import AbstractSensitivity, LowerLevel
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.pde.problem import theta_as

__all__ = ["ImplicitDifferentiation", "PartialDerivative", "ResidualGradient"]


class _Shifted(eqx.Module):
    """A field plus a constant: the direction in which the auxiliary variable z = f(x) is moved."""

    field: Any
    shift: Any

    def __call__(self, x):
        return self.field(x) + self.shift


class ResidualGradient(AbstractSensitivity):
    """Drive r and dr/dtheta to zero; du/dtheta is the partial derivative at fixed weights.

    Adds, for a block of rows r, the block d r / d theta_j for every scalar component j of theta, in
    units of the operator's scale of theta_j, with loss weight ``weight`` times that of r (0.1 in the
    papers). A field in theta is moved by a constant (BiLO's auxiliary variable z = f(x)).
    """

    weight: float = 0.1

    def rows(
        self, name: str, rows_of: Callable[[Theta], Rows], theta: Theta, operator: LocalOperator
    ) -> dict[str, Rows]:
        """The block ``<name>_gradient``: one row for each row of ``rows_of`` and component."""
        scale, centre = operator.embedding.scale, operator.embedding.centre
        if set(operator.embedding.names) != set(theta):
            raise ValueError(
                "ResidualGradient needs every entry of theta in the network's embedding, but it has "
                f"{list(operator.embedding.names)} of {list(theta)}; use ImplicitDifferentiation."
            )
        zero = {key: jnp.zeros_like(centre[key]) for key in operator.embedding.names}

        def moved(shift):
            changed = dict(theta)
            for key, by in shift.items():
                by = scale[key] * by
                changed[key] = _Shifted(theta[key], by) if callable(theta[key]) else theta[key] + by
            return rows_of(changed)

        gradient = jax.jacfwd(moved)(zero)
        size = rows_of(theta).size
        blocks = [gradient[key].reshape(size, -1) for key in operator.embedding.names]
        return {f"{name}_gradient": jnp.concatenate(blocks, axis=1).ravel()}

    def row_weights(self, row_weights: Mapping[str, float]) -> dict[str, float]:
        """``weight`` times the weight of the block that is differentiated."""
        return {f"{name}_gradient": self.weight * own for name, own in row_weights.items()}

    def attach(self, lower_level: LowerLevel, weights: Weights, theta: Theta) -> Weights:
        """The weights as constants."""
        return jax.lax.stop_gradient(weights)


class _ResidualOnly(AbstractSensitivity):
    """A lower level without further rows."""

    def rows(
        self, name: str, rows_of: Callable[[Theta], Rows], theta: Theta, operator: LocalOperator
    ) -> dict[str, Rows]:
        """No further rows."""
        return {}

    def row_weights(self, row_weights: Mapping[str, float]) -> dict[str, float]:
        """No further rows."""
        return {}


class PartialDerivative(_ResidualOnly):
    """Residual rows only; du/dtheta is the partial derivative at fixed weights.

    Nothing enforces that derivative at a single theta. An operator that solves the PDE over a whole
    region of thetas with the same weights has it right inside the region, and that is what adaptation
    provides. A sampler with a Metropolis correction needs U to be exact and the gradient to be near;
    point estimates and variational inference need `ImplicitDifferentiation` or `ResidualGradient`.
    """

    def attach(self, lower_level: LowerLevel, weights: Weights, theta: Theta) -> Weights:
        """The weights as constants."""
        return jax.lax.stop_gradient(weights)


class ImplicitDifferentiation(_ResidualOnly):
    """Residual rows only; W depends on theta through the implicit function of the lower level.

    ``damping``, in units of the mean eigenvalue of J J^T, keeps the least-squares solve away from
    directions that the precision of the network cannot resolve (default: ten times the machine
    precision). It holds for scalars, arrays, and fields (their coefficients or network weights) alike.
    """

    damping: float | None = None

    def attach(self, lower_level: LowerLevel, weights: Weights, theta: Theta) -> Weights:
        """The same weights with derivative -J^+ d rows / d theta; none is computed unless asked."""
        dtype = lower_level.operator.dtype
        damping = 10 * float(jnp.finfo(dtype).eps) if self.damping is None else self.damping
        weights, theta = jax.lax.stop_gradient(weights), theta_as(theta, dtype)
        if is_large(lower_level.at(theta), weights):
            return _corrected(weights, theta, lower_level, damping)
        return _implicit_weights(weights, theta, lower_level, damping)


def _corrected(weights: Weights, theta: Theta, lower_level: LowerLevel, damping: float) -> Weights:
    """The same weights by a Gauss-Newton step for rows that are zero, but not their derivative.

    JAX's conjugate gradients cannot be transposed inside a custom rule; the price is a linearisation
    also where no derivative is asked for.
    """
    arrays, static = eqx.partition(theta, eqx.is_array)
    fixed = eqx.combine(jax.lax.stop_gradient(arrays), static)
    rows = lower_level.at(theta).rows(weights)
    system = linearise(lower_level.at(fixed), weights)
    flat, unravel = ravel_pytree(weights)
    return unravel(flat - system.solve(damping, rows - jax.lax.stop_gradient(rows)))


@eqx.filter_custom_jvp
def _implicit_weights(weights, theta, lower_level, damping):
    return weights


@_implicit_weights.def_jvp
def _implicit_weights_jvp(primals, tangents):
    weights, theta, lower_level, damping = primals
    theta_dot = tangents[1]
    moves = jax.tree.map(lambda t: t is not None, theta_dot, is_leaf=lambda t: t is None)
    moving, fixed = eqx.partition(theta, moves)
    _, rows_dot = jax.jvp(
        lambda t: lower_level.at(eqx.combine(t, fixed)).rows(weights), (moving,), (theta_dot,)
    )
    system = linearise(lower_level.at(theta), weights)
    _, unravel = ravel_pytree(weights)
    return weights, unravel(-system.solve(damping, rows_dot))
