"""The neural adjoint: the implicit function theorem for the lower level, in Gauss-Newton form."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from bilo_ppl._types import Theta, Weights
from bilo_ppl.inner.linearised import LEAST_DAMPING, is_large, linearise
from bilo_ppl.inner.lower_level import AbstractSensitivity, LowerLevel

__all__ = ["ImplicitDifferentiation"]


class ImplicitDifferentiation(AbstractSensitivity):
    """Residual rows only; W depends on theta through the implicit function of the lower level.

    ``damping``, in units of the mean eigenvalue of J J^T, keeps the least-squares solve away from
    directions that the precision of the network cannot resolve (default: ten times the machine
    precision). It holds for scalars, arrays, and fields (their coefficients or network weights) alike.

    Examples:
        >>> def at_half(r):
        ...     field, _, _ = tuned.solve({"r": r}, tuned.init_state())
        ...     return field(jnp.array([0.5]))
        >>> round(float(jax.jit(jax.grad(at_half))(6.0)), 3)
        -0.023
        >>> round(float(jax.grad(lambda r: formula(jnp.array([0.5]), {"r": r}))(6.0)), 3)
        -0.023
    """

    damping: float | None = None

    def attach(self, lower_level: LowerLevel, weights: Weights, theta: Theta) -> Weights:
        """The same weights with derivative -J^+ d rows / d theta; none is computed unless asked."""
        dtype = lower_level.operator.dtype
        damping = 10 * float(jnp.finfo(dtype).eps) if self.damping is None else self.damping
        weights = jax.lax.stop_gradient(weights)
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
    system = linearise(lower_level.at(fixed), weights, damped=damping >= LEAST_DAMPING)
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
    system = linearise(lower_level.at(theta), weights, damped=damping >= LEAST_DAMPING)
    _, unravel = ravel_pytree(weights)
    return weights, unravel(-system.solve(damping, rows_dot))
