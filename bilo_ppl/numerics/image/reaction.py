"""Flows of the reaction u_t = f(u), for the splitting: where u is after a time."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp

from bilo_ppl._types import Theta

__all__ = ["Flow", "logistic_flow", "runge_kutta"]

Flow: TypeAlias = Callable[[Any, Any, Theta], Any]
"""``flow(u, time, theta)``: the solution of u_t = f(u) after ``time``, starting at u (an image)."""


def logistic_flow(rate: Callable[[Theta], Any]) -> Flow:
    """The exact flow of logistic growth, u_t = rate u (1 - u), which stays in [0, 1].

    ``rate(theta)`` is a number, or an image.

    Examples:
        >>> flow = bilo.logistic_flow(lambda theta: theta["rho"])
        >>> round(float(flow(jnp.array(0.5), 1.0, {"rho": 1.0})), 4)  # 1 / (1 + exp(-1))
        0.7311
    """

    def flow(u: Any, time: Any, theta: Theta) -> Any:
        # u e^g / (1 + u (e^g - 1)), divided by e^g so that nothing overflows.
        shrink = jnp.exp(-rate(theta) * time)
        return u / (u + (1 - u) * shrink)

    return flow


def runge_kutta(reaction: Callable[[Any, Theta], Any]) -> Flow:
    """One step of the classical method of order 4 for u_t = reaction(u, theta).

    Examples:
        >>> flow = bilo.runge_kutta(lambda u, theta: -theta["k"] * u)
        >>> round(float(flow(jnp.array(1.0), 0.1, {"k": 2.0})), 5), round(float(np.exp(-0.2)), 5)
        (0.81873, 0.81873)
    """

    def flow(u: Any, time: Any, theta: Theta) -> Any:
        first = reaction(u, theta)
        second = reaction(u + time / 2 * first, theta)
        third = reaction(u + time / 2 * second, theta)
        fourth = reaction(u + time * third, theta)
        return u + time / 6 * (first + 2 * second + 2 * third + fourth)

    return flow
