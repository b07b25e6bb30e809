"""NumPyro effects for unknown functions: a field as one latent site, and checked penalties."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.core import Tracer
from numpyro.distributions import constraints

from bilo_ppl._types import Point, Points
from bilo_ppl.fields.weights import field_weights, with_field_weights

__all__ = [
    "FIRST_GUESS",
    "SquaredPenalty",
    "penalty",
    "squared_penalty",
    "unknown_function",
    "weight_in_nats",
]

F = TypeVar("F")

FIRST_GUESS = "first_guess"
"""Key of a site's ``infer`` under which its first guess is found."""


class _FlatPrior(dist.ImproperUniform):
    """Zero log density everywhere; a "draw" is the first guess, since nothing can be drawn."""

    pytree_data_fields = ("guess",)

    def __init__(self, guess: Any):
        self.guess = guess
        super().__init__(constraints.real_vector, (), jnp.shape(guess))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """The first guess, repeated."""
        return jnp.broadcast_to(self.guess, (*sample_shape, *jnp.shape(self.guess)))


def unknown_function(name: str, field: F, prior_sd: float | None = None) -> F:
    """An unknown function: one latent site ``name`` with the weights of ``field``.

    The site is a real vector: all trainable numbers of the field (`field_weights`), with a flat
    improper prior, or independent ``Normal(0, prior_sd)``. The result is the field with those
    weights, an entry of theta. What is known of its roughness enters by
    `squared_penalty` or `penalty`.

    The weights of ``field`` itself are the first guess: `find_map` starts from them, and NumPyro's
    kernels do with ``init_to_value(values={name: field_weights(field)})``. Raises a ``ValueError``
    if the field has no trainable arrays or ``prior_sd`` is not positive.

    Examples:
        >>> field = bilo.KarhunenLoeve(jnp.zeros(4))
        >>> def unknown(x, y=None):
        ...     a = bilo.unknown_function("a", field, prior_sd=1.0)
        ...     numpyro.sample("y", dist.Normal(jax.vmap(a)(x), 0.1), obs=y)
        >>> with numpyro.handlers.seed(rng_seed=0), numpyro.handlers.trace() as trace:
        ...     unknown(x)
        >>> trace["a"]["value"].shape, trace["y"]["value"].shape
        ((4,), (10,))
    """
    guess = field_weights(field)
    if prior_sd is None:
        prior = _FlatPrior(guess)
    elif prior_sd > 0:
        prior = dist.Normal(0.0, prior_sd).expand(guess.shape).to_event(1)
    else:
        raise ValueError(f"unknown_function({name!r}): prior_sd must be positive, got {prior_sd}.")
    weights = numpyro.sample(name, prior, infer={FIRST_GUESS: guess})
    return with_field_weights(field, weights)


def penalty(name: str, weight: Any, value: Any) -> None:
    """Add ``weight * value`` to the potential energy: ``numpyro.factor(name, -weight * value)``.

    ``weight`` is in nats, the unit of the negative log likelihood; `weight_in_nats` converts one that
    stands beside a mean squared misfit. Raises a ``ValueError`` for a weight that is negative or not
    finite.

    Examples:
        >>> from numpyro.infer.util import log_density
        >>> def smooth(slope):
        ...     bilo.penalty("smooth", 2.0, slope**2)
        >>> float(log_density(smooth, (3.0,), {}, {})[0])
        -18.0
    """
    _check_weight(name, weight)
    numpyro.factor(name, -weight * value)


def weight_in_nats(weight: Any, sigma: Any, count: int) -> Any:
    """The weight of a penalty that stands with ``weight`` beside the mean squared misfit of the data.

    Regularised least squares minimises, with the roughness R of an unknown function,

        (1 / n) sum_i (u(x_i) - y_i)^2 + w R.

    In nats the misfit is sum_i (u(x_i) - y_i)^2 / (2 sigma_i^2). With one sigma that is the mean squared
    misfit times n / (2 sigma^2), so that the same minimum needs the penalty ``w n / (2 sigma^2)`` times
    R. With several, the mean is weighted by 1 / sigma_i^2, and the penalty is

        w sum_i (1 / sigma_i^2) / 2.

    **Arguments**

    - ``weight``: w, in units of u^2 over those of R.
    - ``sigma``: standard deviation of the noise, a number or one for each datum ``(n,)``.
    - ``count``: n, the number of data.

    Raises a ``ValueError`` for a ``sigma`` of another shape.

    Examples:
        >>> round(float(bilo.weight_in_nats(1e-3, sigma=0.1, count=20)), 6)  # 1e-3 * 20 / (2 * 0.1**2)
        1.0
        >>> round(float(bilo.weight_in_nats(1e-3, sigma=np.full(20, 0.1), count=20)), 6)
        1.0
    """
    if jnp.shape(sigma) not in {(), (count,)}:
        raise ValueError(
            f"weight_in_nats: sigma has shape {jnp.shape(sigma)}; give one number, or one for each of "
            f"the {count} data."
        )
    return weight * jnp.sum(jnp.broadcast_to(1 / sigma**2, count)) / 2


class SquaredPenalty(dist.Unit):
    """A factor ``exp(-|r|^2 / 2)`` that knows its rows r as a function of a point, and the points."""

    def __init__(self, row: Callable[[Any], Any], points: Any):
        self.row, self.points = row, points
        super().__init__(-jnp.sum(jax.vmap(row)(points) ** 2) / 2)


def squared_penalty(
    name: str, weight: Any, function: Callable[[Point], Any], points: Points
) -> None:
    """Add ``weight``, in nats, times the mean of ``|function(x)|^2`` to the potential energy.

    The mean is over points ``(n, d)``. The same as `penalty` with that mean, but a Gauss-Newton
    method sees its curvature. With ``grad(f)`` of a field f it is the mean squared gradient. Points,
    which are constants, must lie closer than the features of the field: between them a network can bend
    unpenalised. Raises a ``ValueError`` for a weight that is negative or not finite.

    Examples:
        >>> from numpyro.infer.util import log_density
        >>> def smooth(field):
        ...     bilo.squared_penalty("smooth", 2.0, bilo.grad(field), problem.points)
        >>> round(float(log_density(smooth, (lambda x: 3 * x[0],), {}, {})[0]), 3)
        -18.0
    """
    _check_weight(name, weight)
    points = jnp.asarray(points, jnp.result_type(float))
    scale = jnp.sqrt(2 * weight / points.shape[0])
    factor = SquaredPenalty(lambda x: scale * jnp.atleast_1d(function(x)), points)
    numpyro.sample(name, factor, obs=jnp.empty(0))


def _check_weight(name: str, weight: Any) -> None:
    if isinstance(weight, Tracer):
        return
    concrete = np.asarray(weight, dtype=float)
    if not (np.isfinite(concrete).all() and (concrete >= 0).all()):
        raise ValueError(f"penalty({name!r}): the weight must be at least 0, got {weight}.")
