"""The papers' way: the lower level also drives the derivative of the residual to zero."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bilo_ppl._types import Rows, Theta, Weights
from bilo_ppl.inner.lower_level import AbstractSensitivity, LowerLevel
from bilo_ppl.network.local_operator import LocalOperator

__all__ = ["ResidualGradient"]


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
    papers). A field in theta is moved by a constant (BiLO's auxiliary variable z = f(x)). Raises a
    ``ValueError`` for an entry of theta that the network does not see.

    Examples:
        >>> level = bilo.LowerLevel(network, bilo.ResidualGradient(weight=0.1)).at(start)
        >>> level.rows(network.weights).shape  # at 21 points: the residual, and its derivative in r
        (42,)
    """

    weight: float = 0.1

    def rows(
        self, name: str, rows_of: Callable[[Theta], Rows], theta: Theta, operator: LocalOperator
    ) -> dict[str, Rows]:
        """The block ``<name>_gradient``: one row for each row of ``rows_of`` and component."""
        scale = operator.scales
        if set(scale) != set(theta):
            raise ValueError(
                f"ResidualGradient: the network's embedding has {list(scale)} of {list(theta)}; use "
                "ImplicitDifferentiation."
            )
        zero = {key: jnp.zeros_like(unit) for key, unit in scale.items()}

        def moved(shift):
            changed = dict(theta)
            for key, by in shift.items():
                by = scale[key] * by
                changed[key] = _Shifted(theta[key], by) if callable(theta[key]) else theta[key] + by
            return rows_of(changed)

        gradient = jax.jacfwd(moved)(zero)
        size = rows_of(theta).size
        blocks = [gradient[key].reshape(size, -1) for key in scale]
        return {f"{name}_gradient": jnp.concatenate(blocks, axis=1).ravel()}

    def row_weights(self, row_weights: Mapping[str, float]) -> dict[str, float]:
        """``weight`` times the weight of the block that is differentiated."""
        return {f"{name}_gradient": self.weight * own for name, own in row_weights.items()}

    def attach(self, lower_level: LowerLevel, weights: Weights, theta: Theta) -> Weights:
        """The weights as constants."""
        return jax.lax.stop_gradient(weights)

    @property
    def follows_theta(self) -> bool:
        """The residual's gradient was driven to zero for that."""
        return True
