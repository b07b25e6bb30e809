"""Roughness of a field: the penalties of Tikhonov and of Rudin, Osher and Fatemi (1992)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl._types import Field, Points, Scalar
from bilo_ppl.pde.calculus import grad

__all__ = ["gradients", "mean_squared_gradient", "total_variation"]


def gradients(field: Field, points: Points) -> Float[Array, "n d"]:
    """The gradient of a field at points ``(n, d)``, a row for each.

    Examples:
        >>> from bilo_ppl.fields import gradients
        >>> gradients(lambda x: 3 * x[0] ** 2, np.array([[0.5], [1.0]])).tolist()
        [[3.0], [6.0]]
    """
    return jax.vmap(grad(field))(jnp.asarray(points, jnp.result_type(float)))


def mean_squared_gradient(field: Field, points: Points) -> Scalar:
    """Mean of ``|grad f|^2`` over points ``(n, d)``: for a uniform grid, its mean over the domain.

    Examples:
        >>> round(float(bilo.mean_squared_gradient(lambda x: 3 * x[0], problem.points)), 3)
        9.0
    """
    return jnp.mean(_squared_gradient(field, points))


def total_variation(field: Field, points: Points, smoothing: float = 1e-6) -> Scalar:
    """Mean of ``sqrt(|grad f|^2 + smoothing^2) - smoothing`` over points ``(n, d)``.

    ``smoothing``, in units of the gradient, makes it differentiable where the gradient vanishes.

    Examples:
        >>> round(float(bilo.total_variation(lambda x: 3 * x[0], problem.points)), 3)
        3.0
    """
    squares = _squared_gradient(field, points)
    return jnp.mean(jnp.sqrt(squares + smoothing**2) - smoothing)


def _squared_gradient(field: Field, points: Points) -> Float[Array, " n"]:
    return jnp.sum(gradients(field, points) ** 2, axis=1)
