"""The partial derivative of u at fixed weights, for operators fitted to a region of thetas."""

import jax

from bilo_ppl._types import Theta, Weights
from bilo_ppl.inner.lower_level import AbstractSensitivity, LowerLevel

__all__ = ["PartialDerivative"]


class PartialDerivative(AbstractSensitivity):
    """Residual rows only; du/dtheta is the partial derivative at fixed weights.

    Nothing enforces that derivative at a single theta. An operator that solves the PDE over a whole
    region of thetas with the same weights has it right inside the region, and that is what adaptation
    provides. A sampler with a Metropolis correction needs U to be exact and the gradient to be near;
    point estimates and variational inference need `ImplicitDifferentiation` or `ResidualGradient`.

    Examples:
        >>> def at_half(r):
        ...     return network.field({"r": r})(jnp.array([0.5]))  # the weights stay
        >>> round(float(jax.grad(at_half)(5.0)), 3)
        -0.027
        >>> round(float(jax.grad(lambda r: formula(jnp.array([0.5]), {"r": r}))(5.0)), 3)
        -0.027
    """

    def attach(self, lower_level: LowerLevel, weights: Weights, theta: Theta) -> Weights:
        """The weights as constants."""
        return jax.lax.stop_gradient(weights)

    @property
    def exact(self) -> bool:
        """Only where the operator was fitted to the thetas around."""
        return False
