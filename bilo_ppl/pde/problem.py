"""The PDE problem: a residual at a point, exact boundary values, names of the parameters."""

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Field, Point, Points, Rows, Theta
from bilo_ppl.pde.domain import Box

__all__ = ["Problem", "check_problem", "check_theta", "theta_as"]


class Problem(eqx.Module):
    """A PDE with unknown parameters, stated at a point.

    A subclass gives ``parameters``, ``domain`` and ``points`` (as class attributes or as fields),
    `residual`, and `lift` where boundary or initial values are imposed exactly. In the methods,
    ``u`` is a function of a point of shape ``(d,)``; its value is a scalar, or ``(components,)``
    for a system. An entry ``theta[name]`` is a scalar, an array, or a field (a function of x).
    """

    parameters: ClassVar[tuple[str, ...]]
    """Names of the entries of theta, in the order in which the network sees them."""

    domain: ClassVar[Box]
    """Where the solution is defined; data outside it are refused."""

    points: ClassVar[Points]
    """Collocation points ``(n, d)`` at which the residual is driven to zero."""

    components: ClassVar[int]
    """Number of components of u; with 1, ``u(x)`` is a scalar."""

    def residual(self, u: Field, x: Point, theta: Theta) -> Any:
        """PDE residual at x: a scalar, or ``(m,)`` for a system."""
        raise NotImplementedError(f"{type(self).__name__} must define residual(u, x, theta).")

    def lift(self, x: Point, raw: Any, theta: Theta) -> Any:
        """The solution from the raw network output at x, with the boundary values built in."""
        return raw

    def boundary(self, theta: Theta) -> tuple[Points, Any] | None:
        """Points ``(b, d)`` and values ``(b,)`` or ``(b, components)`` that `lift` must reproduce.

        Only used to check `lift`, whatever the network puts out. ``None``: nothing to check.
        """
        return None

    def conditions(self, u: Field, theta: Theta) -> Mapping[str, Rows]:
        """Further least-squares rows by name (jumps, soft boundary values), unscaled."""
        return {}

    def inputs(self, x: Point, theta: Theta) -> Any:
        """What the network sees of a point; by default the point, mapped to [-1, 1]."""
        return self.domain.normalise(x)


def theta_as(theta: Theta, dtype: Any) -> dict[str, Any]:
    """Theta with its floating-point arrays cast to ``dtype`` (fields included)."""

    def cast(leaf):
        if isinstance(leaf, bool):
            return leaf
        if isinstance(leaf, (int, float, np.ndarray, np.generic)):
            return jnp.asarray(leaf, dtype)
        return leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf

    return {name: jax.tree.map(cast, value) for name, value in theta.items()}


def check_theta(problem: Problem, theta: Theta) -> None:
    """Raise a ``ValueError`` unless theta has the problem's names and finite concrete values."""
    if not isinstance(theta, Mapping):
        raise ValueError(
            f"theta must be a mapping from {problem.parameters} to values, not a "
            f"{type(theta).__name__}."
        )
    missing = [name for name in problem.parameters if name not in theta]
    unknown = [name for name in theta if name not in problem.parameters]
    if missing or unknown:
        raise ValueError(
            f"theta for {type(problem).__name__}: missing {missing}, unknown {unknown}; "
            f"it needs exactly {list(problem.parameters)}."
        )
    for name in problem.parameters:
        for leaf in jax.tree.leaves(theta[name]):
            if isinstance(leaf, Tracer) or callable(leaf):
                continue
            if not np.all(np.isfinite(np.asarray(leaf, dtype=float))):
                raise ValueError(f"theta[{name!r}] = {leaf} is not finite.")


def _trial_fields(problem: Problem, theta: Theta) -> list[Field]:
    """Two smooth raw outputs, lifted: enough to see whether the lift depends on them."""
    shape = (problem.components,) if problem.components > 1 else ()

    def field(frequency):
        def u(x):
            raw = jnp.broadcast_to(jnp.cos(frequency * jnp.sum(x) + 0.3), shape)
            return problem.lift(x, raw, theta)

        return u

    return [field(1.7), field(2.9)]


def check_problem(problem: Problem, theta: Theta) -> None:
    """Check a problem's definition at ``theta``, with errors that say what to mend.

    Attributes that are not given, names and values of theta, shape of the collocation points,
    shapes and finiteness of `lift` and `residual`, and, where the problem states them, the boundary
    values.
    """
    name = type(problem).__name__
    needed = ("parameters", "domain", "points", "components")
    missing = [attribute for attribute in needed if not hasattr(problem, attribute)]
    if missing:
        raise ValueError(f"{name} does not give {missing}; a Problem needs each of {list(needed)}.")
    check_theta(problem, theta)
    points = np.asarray(problem.points)
    if points.ndim != 2 or points.shape[1] != problem.domain.dimension or not len(points):
        raise ValueError(
            f"{name}.points has shape {points.shape}; it must be (n, {problem.domain.dimension}), "
            "one collocation point a row."
        )
    outside = ~problem.domain.contains(points)
    if outside.any():
        raise ValueError(
            f"{name}.points: {outside.sum()} points lie outside the domain {problem.domain}, "
            f"the first at {points[outside][0]}."
        )
    dtype = jnp.result_type(float)
    theta = theta_as(theta, dtype)
    xs = jnp.asarray(points, dtype)
    arrays, static = eqx.partition(theta, eqx.is_array)

    @jit_once
    def values(arrays):
        theta = eqx.combine(arrays, static)
        u = _trial_fields(problem, theta)[0]
        return jax.vmap(u)(xs), jax.vmap(lambda x: problem.residual(u, x, theta))(xs)

    lifted, residuals = values(arrays)
    _check_values(name, "lift", lifted, points, problem.components)
    _check_values(name, "residual", residuals, points, None)
    _check_boundary(problem, theta, dtype)


def _check_values(name, what, values, points, components):
    wanted = {None: "() or (m,)", 1: "()"}.get(components, f"({components},)")
    shape = np.shape(values)[1:]
    right = (
        len(shape) <= 1
        if components is None
        else shape == ((components,) if components > 1 else ())
    )
    if not hasattr(values, "shape") or not right:
        raise ValueError(
            f"{name}.{what} returns shape {shape} at a point; it must return {wanted}"
            + (" (is u(x) a scalar, and x[0] meant where x stands?)." if what == "lift" else ".")
        )
    bad = ~np.isfinite(np.asarray(values).reshape(len(points), -1)).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name}.{what} is not finite at {bad.sum()} of {len(points)} collocation points, the "
            f"first at x = {points[bad][0]}, for a smooth trial solution at the given theta."
        )


def _check_boundary(problem: Problem, theta: Theta, dtype: Any) -> None:
    stated = problem.boundary(theta)
    if stated is None:
        return
    xs, values = jnp.asarray(stated[0], dtype), np.asarray(stated[1])
    if not np.isfinite(values).all():
        raise ValueError(f"{type(problem).__name__}.boundary: its values are not finite.")
    arrays, static = eqx.partition(theta, eqx.is_array)

    @jit_once
    def trials(arrays):
        return [jax.vmap(u)(xs) for u in _trial_fields(problem, eqx.combine(arrays, static))]

    for lifted in map(np.asarray, trials(arrays)):
        if lifted.shape != values.shape:
            raise ValueError(
                f"{type(problem).__name__}.boundary: values of shape {values.shape} for {len(xs)} "
                f"points; they must have the shape of u there, {lifted.shape}."
            )
        error = np.nan_to_num(np.abs(lifted - values), nan=np.inf)
        tolerance = 1e3 * np.finfo(dtype).eps * max(1.0, float(np.abs(values).max()))
        if error.max() > tolerance:
            where = np.unravel_index(error.argmax(), error.shape)[0]
            raise ValueError(
                f"{type(problem).__name__}.lift does not keep the boundary values: at "
                f"x = {np.asarray(xs[where])} it is off by {error.max():.3g}. It must not depend on the "
                "raw network output there."
            )
