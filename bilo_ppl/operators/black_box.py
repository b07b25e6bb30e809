"""A solver that JAX cannot look into, as a solution operator: a plain function, or another program."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._types import Field, Theta
from bilo_ppl.inner.stop_reason import StopReason
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import admit

__all__ = ["BlackBox"]

NEAR = 1e-5
"""Part of the domain's size within which a point is one of those at which there are values."""


class BlackBox(AbstractSolutionOperator):
    """Values of u at given points, from a plain function of theta, called on the host.

    The function may do anything: NumPy, a compiled solver, an external program, a server that is asked
    over HTTP. Its solution has no derivative in theta, so that it can be evaluated (`grid_posterior`,
    the ``reference`` of `certify`) and be the second stage of `TwoStage`, but not sampled by HMC alone.

    A theta at which the function gives values that are not finite counts as one that was not solved: say
    so by NaN. An exception ends the run. Values must depend on theta alone, since JAX may call it
    more often than the model seems to say, or not at all.

    >>> def program(theta):  # in the place of a solver that JAX cannot look into
    ...     root = np.sqrt(theta["r"])
    ...     return np.sinh(root * (1 - x[:, 0])) / np.sinh(root)
    >>> u, _, info = bilo.BlackBox(problem, program, x).solve({"r": jnp.array(9.0)}, ())
    >>> bool(abs(u(x[0]) - y[0]) < 1e-6)
    True
    """

    problem: Problem
    points: Any
    function: Callable = eqx.field(static=True)
    batched: bool = eqx.field(static=True)

    def __init__(
        self,
        problem: Problem,
        function: Callable[[Mapping[str, np.ndarray]], Any],
        points: Any,
        *,
        batched: bool = False,
    ):
        """How to ask for values, and where they are.

        **Arguments**

        - ``function(theta)``: values ``(n,)``, or ``(n, components)`` for a system, from a mapping of
          NumPy arrays by the problem's parameters.
        - ``points``, ``(n, d)``: where they are. The model may ask for u at these points only, such as
          those of the data: elsewhere it is NaN.
        - ``batched``: whether the function takes many thetas at once, arrays with a common axis in
          front, and gives values with that axis; otherwise it is called for one after the other.

        Raises a ``ValueError`` for points of another shape, or outside the domain.
        """
        points = np.asarray(points, dtype=float)
        domain = problem.domain
        if points.ndim != 2 or points.shape[1] != domain.dimension or not len(points):
            raise ValueError(
                f"BlackBox: points have shape {points.shape}; they must be (n, {domain.dimension}), one "
                "point a row."
            )
        if (outside := ~domain.contains(points)).any():
            raise ValueError(
                f"BlackBox: {outside.sum()} points lie outside the domain {domain}, the first at "
                f"{points[outside][0]}."
            )
        self.problem, self.points = problem, points
        self.function, self.batched = function, batched

    def init_state(self) -> tuple[()]:
        """Nothing is carried from one solve to the next."""
        return ()

    def solve(self, theta: Theta, state: Any) -> tuple[Field, Any, SolveInfo]:
        """Ask for the values at ``theta``: no step, and a loss of 0.

        Raises a ``ValueError`` for an entry that is a function, of which a program can make nothing.
        """
        theta = admit(self.problem, theta, jnp.result_type(float))
        for name, value in theta.items():
            if callable(value):
                raise ValueError(
                    f"BlackBox: theta[{name!r}] is a function; a program takes arrays, such as its "
                    "coefficients."
                )
        values = self._values(theta)
        solved = jnp.all(jnp.isfinite(values))
        info = SolveInfo.of(0, 0.0, solved, StopReason.NOT_FINITE)
        return _AtPoints(self.points, values, self._near), state, info

    @property
    def _near(self) -> float:
        domain = self.problem.domain
        return NEAR * float(np.max(np.subtract(domain.upper, domain.lower)))

    def _values(self, theta: Any) -> Any:
        components = self.problem.components
        shape = (len(self.points),) + ((components,) if components > 1 else ())
        dtype = jnp.result_type(float)
        names = list(theta)

        def ask(*entries):
            given = {name: np.asarray(entry) for name, entry in zip(names, entries, strict=True)}
            leading = _leading(entries, theta, names) if self.batched else ()
            values = np.asarray(self.function(given), dtype=dtype)
            if values.shape != leading + shape:
                raise ValueError(
                    f"BlackBox: the function gives values of shape {values.shape} at theta = {given}; "
                    f"they must be {leading + shape}, one for each point."
                )
            return values

        method = "expand_dims" if self.batched else "sequential"

        @jax.custom_jvp
        def values(*entries):
            out = jax.ShapeDtypeStruct(shape, dtype)
            return jax.pure_callback(ask, out, *entries, vmap_method=method)

        @values.defjvp
        def _(primals, tangents):
            raise TypeError(
                "BlackBox: the solution of a black box has no derivative in theta. Use it as the second "
                "stage of bilo.TwoStage, whose first stage has one, or as a reference."
            )

        return values(*(jnp.asarray(theta[name]) for name in names))


def _leading(entries: Any, theta: Any, names: list[str]) -> tuple[int, ...]:
    """The axes that vmap has put in front."""
    extra = [
        np.shape(entry)[: np.ndim(entry) - jnp.ndim(theta[name])]
        for name, entry in zip(names, entries, strict=True)
    ]
    return tuple(np.broadcast_shapes(*extra))


class _AtPoints(eqx.Module):
    """Values at given points, a function of a point; NaN at others."""

    points: Any
    values: Any
    near: float = eqx.field(static=True)

    def __call__(self, x: Any) -> Any:
        distance = jnp.max(jnp.abs(jnp.asarray(self.points) - jnp.asarray(x)[None, :]), axis=1)
        nearest = jnp.argmin(distance)
        return jnp.where(distance[nearest] <= self.near, self.values[nearest], jnp.nan)
