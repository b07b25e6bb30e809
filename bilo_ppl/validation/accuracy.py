"""How right a solution is, in units of the noise: what a better one would change in the predictions.

The error is ``sqrt(sum_i (change of mean_i)^2 / variance_i)`` over all data. Where the model is right,
y - mean is noise of that variance, and this is the standard deviation of the error of U, in nats.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import init_to_median

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Theta
from bilo_ppl.inner.adequacy import correction, unseen_points
from bilo_ppl.inner.lower_level import LowerLevel
from bilo_ppl.inner.sensitivity import PartialDerivative
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.pde.theta import theta_as
from bilo_ppl.ppl.data_sites import data_mask
from bilo_ppl.ppl.handlers import given_solution
from bilo_ppl.ppl.look import look_at

__all__ = ["LARGEST_STEP", "NOISE_LIMIT", "SIZE_LIMIT", "Accuracy", "PredictionError", "rounded"]

NOISE_LIMIT = 0.05
"""Largest error of U (sd, in nats): KL of the posterior about 1e-3."""

SIZE_LIMIT = 1e-2
"""Largest error of u, of its root mean square: also where the noise would allow for more."""

SAFE = 0.4
"""Part of what is allowed: where it counts the error may be larger than where it was measured."""

LARGEST_STEP = 1e4
"""A tolerance is at most so many times the loss at which the error was measured."""


def rounded(loss: float, *, up: bool = False) -> float:
    """A loss rounded down, or up, to 1, 2 or 5 times a power of ten.

    It is at least the least positive number of single precision. A tolerance is a constant of compiled
    programs: one that recurs lets them be found in the cache.
    """
    # In decimals: 1e-6 stays what it is, whatever rounding errors it was come by with.
    digits, exponent = f"{max(loss, float(np.finfo(np.float32).tiny)):.9e}".split("e")
    steps = [
        step for step in (1, 2, 5, 10) if (step >= float(digits) if up else step <= float(digits))
    ]
    return float(f"{min(steps) if up else max(steps)}e{exponent}")


class Accuracy(NamedTuple):
    """Error of a solution, by one step at points that no fit has seen, or by more features.

    Examples:
        >>> from bilo_ppl.validation.accuracy import Accuracy
        >>> found = Accuracy(noise=0.1, size=1e-3)
        >>> str(found), found.worst  # 0.05 and 1e-2 are allowed
        ('u right to 0.1 sigma, 0.001 of its size', 2.0)
        >>> found.tolerance(loss=1e-4)  # (0.4 / 2)**2 times that, rounded down
        2e-06
        >>> found.tolerance_within(loss=1e-4, largest=1e-3), found.says_little
        (2e-06, False)
    """

    noise: float
    """Change of the predictions, in standard deviations of the noise."""
    size: float
    """Root mean square of the change of u, relative to that of u and of the noise."""

    @property
    def worst(self) -> float:
        """The error in units of what is allowed."""
        found = max(self.noise / NOISE_LIMIT, self.size / SIZE_LIMIT)
        return found if math.isfinite(found) else math.inf

    def tolerance(self, loss: float) -> float:
        """The loss at which the error is `SAFE` of what is allowed, given that at which it was measured.

        An error is proportional to the square root of the loss.
        """
        return rounded(min(self._allowed, LARGEST_STEP) * loss)

    def tolerance_within(self, loss: float, largest: float) -> float:
        """The same where losses up to ``largest`` are known to be harmless, however small this one is."""
        return max(self.tolerance(loss), rounded(min(self._allowed * loss, largest)))

    @property
    def says_little(self) -> bool:
        """Whether the solution is so right, as u = 0 may be, that it does not tell of worse ones."""
        return self._allowed > LARGEST_STEP

    @property
    def _allowed(self) -> float:
        """How many times the loss may be."""
        return (SAFE / max(self.worst, 1e-30)) ** 2

    def __str__(self) -> str:
        return f"u right to {self.noise:.1g} sigma, {self.size:.1g} of its size"


class PredictionError:
    """Error of a local operator's own solution in the predictions of ``model(*args, **kwargs)``.

    Every solution of the model is taken for the one in question. Nothing is solved but one Gauss-Newton
    step at points between those of the fit.

    Examples:
        >>> from bilo_ppl.validation.accuracy import PredictionError
        >>> error = PredictionError(model, (tuned, x, y))
        >>> accuracy = error(network, start)
        >>> accuracy.noise < 0.1, accuracy.worst < 1  # noise: in its standard deviations
        (True, True)
    """

    def __init__(
        self,
        model: Callable,
        args: tuple,
        kwargs: Mapping[str, Any] | None = None,
    ):
        look = partial(look_at, model, args, dict(kwargs or {}), first=init_to_median)
        seen = look()
        names, self._latent = seen.solutions, tuple(seen.latent)

        @jit_once
        def corrected(operator: LocalOperator, theta: Theta, points: Any) -> Any:
            level = LowerLevel(operator, PartialDerivative())
            return correction(level, operator.weights, theta, points)

        @jit_once
        def error(
            operator: LocalOperator, step: Any, theta: Theta, points: Any, values: Any
        ) -> Any:
            def predicted(weights):
                field = operator.with_weights(weights).field(theta)
                with given_solution(fields=dict.fromkeys(names, field)):
                    observed = look(values=values).observed
                seen = jax.vmap(lambda x: operator.problem.observable(x, field(x), theta))
                return seen(points), [_prediction(site) for site in observed.values()]

            (u, sites), (du, changes) = jax.jvp(predicted, (operator.weights,), (step,))
            squares = [
                jnp.sum(jnp.where(change.mean == 0, 0, change.mean**2 / site.variance))
                for site, change in zip(sites, changes, strict=True)
            ]
            noise = jnp.sqrt(sum(squares, jnp.zeros(())))
            # At a first guess u may be nothing at all: what is below the noise has no size of its own.
            noises = [jnp.min(site.noise, initial=jnp.inf) for site in sites]
            least = jnp.min(jnp.array(noises), initial=jnp.inf)
            scale = jnp.mean(u**2) + jnp.where(jnp.isfinite(least), least, 0)
            return noise, jnp.sqrt(jnp.mean(du**2) / scale)

        self._corrected, self._error = corrected, error

    def __call__(
        self, operator: LocalOperator, theta: Theta, values: Mapping[str, Any] | None = None
    ) -> Accuracy:
        """The error of the solution at ``theta``.

        ``values`` are those of latent sites, such as a noise level, where they are known, else they are
        prior medians.
        """
        # Rounding in the residual would be taken for an error, where derivatives are large.
        operator = operator.astype(jnp.result_type(float))
        points = jnp.asarray(unseen_points(operator), operator.dtype)
        step = self._corrected(operator, theta_as(theta, operator.dtype), points)
        return self._of(operator, step, theta, points, values)

    def between(
        self,
        operator: LocalOperator,
        better: LocalOperator,
        theta: Theta,
        values: Mapping[str, Any] | None = None,
    ) -> Accuracy:
        """What the weights of a better operator of the same structure change; else as a call."""
        points = jnp.asarray(unseen_points(operator), operator.dtype)
        step = jax.tree.map(jnp.subtract, better.weights, operator.weights)
        return self._of(operator, step, theta, points, values)

    def _of(
        self, operator: LocalOperator, step: Any, theta: Theta, points: Any, values: Any
    ) -> Accuracy:
        known = {name: jnp.asarray(v) for name, v in (values or {}).items() if name in self._latent}
        theta = theta_as(theta, operator.dtype)
        noise, size = self._error(operator, step, theta, points, known)
        return Accuracy(float(noise), float(size))


class _Prediction(NamedTuple):
    mean: Any
    variance: Any
    noise: Any
    """The variances of what has data; none of a factor, which has no noise."""


def _prediction(site: Any) -> _Prediction:
    """Mean and variance of a site's data; of a factor, whose logarithm is in nats, that and one."""
    fn = site["fn"]
    try:
        # What has no data does not change with the solution.
        mask = data_mask(fn)
        variance = jnp.broadcast_to(fn.variance, jnp.shape(fn.mean))
        return _Prediction(
            jnp.where(mask, fn.mean, 0), variance, jnp.where(mask, variance, jnp.inf)
        )
    except (NotImplementedError, AttributeError):
        return _Prediction(jnp.sum(fn.log_prob(site["value"])), jnp.ones(()), jnp.zeros(0))
