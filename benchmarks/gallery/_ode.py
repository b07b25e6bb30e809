"""Numerical integration in time for the gallery: data, and a solution operator.

A right-hand side ``rate(t, state, theta)`` returns one entry for each of ``state``, in a tuple. Problem
files take this from their own folder: ``from _ode import RungeKutta, integrated``.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

import bilo_ppl as bilo
from bilo_ppl.pde.theta import admit

__all__ = ["RungeKutta", "diffusing", "integrated"]


def integrated(rate: Callable, theta: Any, initial: Any, times: Any) -> np.ndarray:
    """States at the times ``(n, ...)``, the first of all being 0, by a method of order 8 in NumPy."""
    initial = np.asarray(initial, float)

    def flat(t, state):
        return np.ravel(rate(t, state.reshape(initial.shape), theta))

    solved = solve_ivp(
        flat, (0, times[-1]), initial.ravel(), "DOP853", times, rtol=1e-10, atol=1e-10
    )
    return solved.y.T.reshape(len(times), *initial.shape)


def _state_itself(x: Any, state: Any, theta: Any) -> Any:
    return state


def _first(x: Any, state: Any, theta: Any) -> Any:
    return state[0]


class RungeKutta(bilo.AbstractSolutionOperator):
    """The classical Runge-Kutta method with fixed steps.

    Between the steps the state is the cubic Hermite polynomial through values and rates, so that both
    errors are of order 4. ``read(x, state, theta)`` is u at a point from the state at its time; by
    default the state itself, or its first entry where u is a scalar. JAX differentiates through the
    steps.
    """

    problem: bilo.Problem
    rate: Callable = eqx.field(static=True)
    initial: Callable = eqx.field(static=True)
    """The state at the start, from theta."""
    steps: int = eqx.field(static=True)
    read: Callable = eqx.field(static=True)

    def __init__(self, problem, rate, initial, steps, read=None):
        self.problem, self.rate, self.initial, self.steps = problem, rate, initial, steps
        self.read = read or (_first if problem.components == 1 else _state_itself)

    def init_state(self):
        """Nothing is carried from one solve to the next."""
        return ()

    def solve(self, theta, state):
        """All steps at ``theta``; converged where every state is finite."""
        theta = admit(self.problem, theta, jnp.result_type(float))
        axis = self.problem.domain.time
        assert axis is not None
        begin, end = self.problem.domain.lower[axis], self.problem.domain.upper[axis]
        h = (end - begin) / self.steps

        def rate(t, state):
            return jnp.stack(self.rate(t, state, theta))

        def step(state, i):
            t = begin + h * i
            k1 = rate(t, state)
            k2 = rate(t + h / 2, state + h / 2 * k1)
            k3 = rate(t + h / 2, state + h / 2 * k2)
            k4 = rate(t + h, state + h * k3)
            return state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), (state, k1)

        first = jnp.asarray(self.initial(theta), jnp.result_type(float))
        last, (states, rates) = jax.lax.scan(step, first, jnp.arange(self.steps))
        states = jnp.concatenate([states, last[None]])
        rates = jnp.concatenate([rates, rate(end, last)[None]])
        field = _Trajectory(states, rates, theta, begin, h, axis, self.read)
        return field, (), bilo.SolveInfo.of(self.steps, 0.0, jnp.all(jnp.isfinite(states)))


class _Trajectory(eqx.Module):
    """The states at equidistant times, and between them; a function of a point."""

    states: Any
    rates: Any
    theta: Any
    begin: float = eqx.field(static=True)
    h: float = eqx.field(static=True)
    axis: int = eqx.field(static=True)
    read: Callable = eqx.field(static=True)

    def __call__(self, x):
        s = (x[self.axis] - self.begin) / self.h
        cell = jnp.floor(jax.lax.stop_gradient(s)).astype(int)
        cell = jnp.clip(cell, 0, len(self.states) - 2)
        s = s - cell
        a, b = self.states[cell], self.states[cell + 1]
        slope_a, slope_b = self.h * self.rates[cell], self.h * self.rates[cell + 1]
        rest = (1 - s) * (slope_a - (b - a)) + s * ((b - a) - slope_b)
        return self.read(x, a + s * (b - a) + s * (1 - s) * rest, self.theta)


def diffusing(reaction: Callable, ends: Callable, initial: Callable, count: int) -> tuple:
    """``rate``, first state and ``read`` of w_t = D w_xx + reaction(w, theta) for x in [0, 1].

    With w = ``ends(theta)`` at both ends and w = ends(theta) + initial(x) at the start, a tuple of
    components each. The state is w - ends at ``count`` nodes, expanded in as many sines.
    """
    n = np.arange(1, count + 1)
    sines = np.sin(np.pi * np.outer(n, n) / (count + 1))
    to_coefficients = 2 / (count + 1) * sines
    second = sines @ np.diag(-((n * np.pi) ** 2)) @ to_coefficients
    first = np.stack(initial(n / (count + 1)))

    def rate(t, state, theta):
        w = tuple(a + part for a, part in zip(ends(theta), state, strict=True))
        spread = theta["D"] * state @ second
        return tuple(a + b for a, b in zip(spread, reaction(w, theta), strict=True))

    def read(x, state, theta):
        return jnp.stack(ends(theta)) + state @ to_coefficients @ jnp.sin(np.pi * n * x[0])

    return rate, first, read
