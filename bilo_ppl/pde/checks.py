"""A problem's definition, checked before anything expensive: errors say what to mend."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Field, Theta
from bilo_ppl.pde.collocation import completed
from bilo_ppl.pde.data_columns import SIGMA, reserved_names
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import check_theta, theta_as

__all__ = ["check_problem"]


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

    Attributes that are not given, names of components, names and values of theta, shape of the
    collocation points, shapes and finiteness of `lift` and `residual`, and, where the problem states
    them, the boundary values.
    """
    name = type(problem).__name__
    needed = ("parameters", "domain", "components")
    missing = [attribute for attribute in needed if not hasattr(problem, attribute)]
    if missing:
        raise ValueError(f"{name} does not give {missing}; a Problem needs each of {list(needed)}.")
    _check_component_names(problem)
    check_theta(problem, theta)
    problem = completed(problem, theta)
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
    _check_positive(problem, theta, xs)


def _check_component_names(problem: Problem) -> None:
    name, names, count = type(problem).__name__, problem.component_names, problem.components
    if not names:
        return
    if isinstance(names, str) or len(names) != count or len(set(names)) != count:
        raise ValueError(
            f"{name}.component_names is {names!r}; it must hold a name of its own for each of the "
            f"{count} components."
        )
    taken = reserved_names(problem.domain, count)
    wrong = [n for n in names if not str(n).strip() or n in taken or str(n).startswith(SIGMA)]
    if wrong:
        raise ValueError(
            f"{name}.component_names has {wrong[0]!r}; a column of data so named would be something "
            f"else: {', '.join(sorted(taken))}, and what begins with {SIGMA}, have a meaning. Choose "
            "another name."
        )


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


def _check_positive(problem: Problem, theta: Theta, xs: Any) -> None:
    """What has to be positive, at the given theta and the collocation points."""
    name, found = type(problem).__name__, {**theta, **problem.fields(theta)}
    for entry in problem.positive:
        if entry not in found:
            raise ValueError(
                f"{name}.positive names {entry!r}; theta and the problem's fields have {sorted(found)}."
            )
        value = found[entry]
        values = np.asarray(jit_once(jax.vmap(value))(xs) if callable(value) else value)
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            where = "collocation points" if callable(value) else "entries"
            raise ValueError(
                f"{name}: {entry} must be positive, but at the given theta it is not at {wrong.sum()} "
                f"of {wrong.size} {where}, the first time {values[wrong][0]:g}. Give another first "
                "guess, or an unknown of which it is a positive function, such as its logarithm."
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
