"""Karhunen-Loeve expansions: Gaussian random fields with independent standard normal coefficients."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float

__all__ = ["KarhunenLoeve"]


class KarhunenLoeve(eqx.Module):
    """``transform(sum_i a_i sqrt(lambda_i) phi_i(x))`` on [0, 1], i = 1 ... K.

    The eigenvalues ``lambda_i = (pi^2 i^2 + tau^2)^-alpha`` are those of the covariance
    ``(-Laplace + tau^2)^-alpha``, so that independent a_i ~ N(0, 1) make a Gaussian random field. Its
    ``ends`` are free, with ``phi_i = sqrt(2) cos(i pi x)`` ("neumann"; without the constant), or zero,
    with ``sqrt(2) sin(i pi x)`` ("dirichlet"). ``transform`` maps it to what the PDE needs, such as
    ``jnp.exp`` for a positive coefficient. ``coefficients`` are a_1 ... a_K, ``(K,)``. Raises a
    ``ValueError`` for other ``ends``.

    Examples:
        >>> log_a = bilo.KarhunenLoeve(jnp.array([1.0, 0.0]), tau=3.0, transform=lambda value: value)
        >>> a = bilo.KarhunenLoeve(jnp.array([1.0, 0.0]), tau=3.0)  # its exponential
        >>> point = jnp.array([0.25])
        >>> round(float(log_a(point)), 4)
        0.2302
        >>> round(float(np.sqrt(2) * np.cos(np.pi / 4) / np.sqrt(np.pi**2 + 9)), 4)
        0.2302
        >>> round(float(jnp.log(a(point))), 4)
        0.2302
    """

    coefficients: Float[Any, " K"]
    tau: float = eqx.field(static=True, default=3.0)
    alpha: float = eqx.field(static=True, default=1.0)
    transform: Callable = eqx.field(static=True, default=jnp.exp)
    ends: str = eqx.field(static=True, default="neumann")

    def __check_init__(self):
        if self.ends not in ("neumann", "dirichlet"):
            raise ValueError(f"KarhunenLoeve: ends={self.ends!r} must be 'neumann' or 'dirichlet'.")

    def __call__(self, x: Any) -> Any:
        """The value at a point ``(1,)`` or a scalar: a scalar."""
        a = jnp.asarray(self.coefficients)
        i = jnp.arange(1, a.shape[-1] + 1, dtype=a.dtype)
        sd = (jnp.pi**2 * i**2 + self.tau**2) ** (-self.alpha / 2)
        wave = jnp.cos if self.ends == "neumann" else jnp.sin
        modes = jnp.sqrt(2.0).astype(a.dtype) * wave(i * jnp.pi * jnp.reshape(x, ()))
        return self.transform(a @ (sd.astype(a.dtype) * modes))
