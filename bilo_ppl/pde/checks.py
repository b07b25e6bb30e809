"""A problem's definition, checked before anything expensive: errors say what to mend."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl._blame import blaming
from bilo_ppl._compile import jit_once
from bilo_ppl._pages import see
from bilo_ppl._types import Field, Theta
from bilo_ppl.pde.collocation import completed
from bilo_ppl.pde.domain import Box
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.problem_attributes import check_attributes
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


def check_problem(problem: Problem, theta: Theta, *, learnt: bool = True) -> None:
    """Check a problem's definition at ``theta``, with errors that say what to mend.

    Attributes that are not given or no such thing, names of components, names and values of theta, shape
    of the collocation points, shapes and finiteness of `lift`, `residual` and `conditions`, where the
    problem states them the boundary values, and, where a network is to learn u (``learnt``), whether u
    and every parameter have a part in all this.
    """
    name = type(problem).__name__
    check_attributes(problem)
    check_theta(problem, theta)
    problem = completed(problem, theta)
    with blaming(f"{name}.points"):
        points = np.asarray(problem.points, float)
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
    trials = _Trials(problem, theta, jnp.asarray(points, dtype))
    found = trials(theta)
    _check_values(name, "lift", found["lift"][0], points, problem.components)
    _check_values(name, "residual", found["residual"][0], points, None)
    _check_conditions(name, found["conditions"][0])
    _check_boundary(problem, theta, dtype)
    _check_positive(problem, theta, jnp.asarray(points, dtype))
    if learnt:
        _check_dependence(name, problem, theta, trials, found)


class _Trials:
    """What the problem's functions give for two trial solutions, at thetas of the same structure."""

    def __init__(self, problem: Problem, theta: Theta, xs: Any):
        self.name = type(problem).__name__
        self.static = eqx.partition(theta, eqx.is_array)[1]

        def parts(arrays: Any) -> dict[str, list[Any]]:
            theta = eqx.combine(arrays, self.static)
            found = {"lift": [], "residual": [], "conditions": []}
            for u in _trial_fields(problem, theta):
                with blaming(f"{self.name}.lift"):
                    found["lift"].append(jax.vmap(u)(xs))
                with blaming(f"{self.name}.residual"):
                    residuals = jax.vmap(lambda x, u=u: problem.residual(u, x, theta))
                    found["residual"].append(residuals(xs))
                with blaming(f"{self.name}.conditions"):
                    found["conditions"].append(problem.conditions(u, theta))
            return found

        self.parts = jit_once(parts)

    def __call__(self, theta: Theta) -> dict[str, list[Any]]:
        """By function, the values for each trial solution."""
        return self.parts(eqx.filter(theta, eqx.is_array))

    def have_slope(self, theta: Theta, parameter: str) -> bool:
        """Whether any number has a derivative in the parameter that is not 0."""
        arrays = eqx.filter(theta, eqx.is_array)
        numbers, others = eqx.partition(arrays[parameter], eqx.is_inexact_array)

        def moved(numbers: Any) -> Any:
            return self.parts({**arrays, parameter: eqx.combine(numbers, others)})

        ones = jax.tree.map(jnp.ones_like, numbers)
        slopes = jax.jvp(moved, (numbers,), (ones,))[1]
        return any(np.any(np.asarray(slope) != 0) for slope in jax.tree.leaves(slopes))


def _check_dependence(
    name: str, problem: Problem, theta: Theta, trials: _Trials, found: dict[str, list[Any]]
) -> None:
    """Refuse rows that no weight, or not every parameter, has a part in."""
    for what in ("lift", "residual"):
        others = "conditions" if what == "residual" else what
        if _same(found[what][0], found[what][1]) and _same(found[others][0], found[others][1]):
            given = "the raw network output" if what == "lift" else "u"
            raise ValueError(
                f"{name}.{what} does not depend on {given}: there is nothing that a network could learn. "
                "Is its argument used?"
            )
    for parameter in problem.parameters:
        if not jax.tree.leaves(eqx.filter(theta[parameter], eqx.is_inexact_array)):
            continue

        def unchanged(factor: float, parameter: str = parameter) -> bool:
            """Whether nothing changes with the parameter."""
            return _same(found, trials({**theta, parameter: _moved(theta[parameter], factor)}))

        # On one side a jump may lie at a collocation point.
        if not any(map(unchanged, SLIGHT)):
            continue
        if all(map(unchanged, STRONG)):
            raise ValueError(
                f"{name}: the parameter {parameter!r} has no part in residual, lift or conditions, so "
                "that the solution cannot tell of it. Use it, or take it out of parameters."
            )
        if trials.have_slope(theta, parameter):
            continue
        raise ValueError(
            f"{name}: residual, lift and conditions change with the parameter {parameter!r} by jumps "
            f"only: their derivative in it is 0, and nothing moves it. {see('Parameters that jump')}"
        )


SLIGHT, STRONG = (1.0001, 0.9999), (2.0, 0.5)
"""By which a parameter is changed, to see whether anything depends on it, and smoothly."""


def _moved(entry: Any, factor: float) -> Any:
    """An entry of theta, changed; also where it is zero."""

    def move(leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        return factor * leaf + (factor - 1) * jnp.where(leaf < 0, -1, 1) / 8

    return jax.tree.map(move, entry)


def _same(one: Any, other: Any) -> bool:
    """Whether all numbers are the same; NaN is one."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True) for a, b in pairs)


def _check_conditions(name: str, found: Any) -> None:
    if not isinstance(found, Mapping):
        raise ValueError(
            f"{name}.conditions returns a {type(found).__name__}; it must return a mapping from names to "
            "rows, arrays of one axis."
        )
    for row, values in found.items():
        if np.ndim(values) != 1 or np.asarray(values).dtype.kind != "f":
            raise ValueError(
                f"{name}.conditions: {row!r} has shape {np.shape(values)} and type "
                f"{np.asarray(values).dtype}; rows are real numbers, an array of one axis "
                "(of a number r, r[None])."
            )
        if not np.isfinite(np.asarray(values)).all():
            raise ValueError(
                f"{name}.conditions: {row!r} is not finite for a smooth trial solution at the given "
                "theta."
            )


def _check_values(name, what, values, points, components):
    wanted = {None: "() or (m,)", 1: "()"}.get(components, f"({components},)")
    if not eqx.is_array(values):
        kind = "nothing" if values is None else f"a {type(values).__name__}"
        raise ValueError(f"{name}.{what} returns {kind}; it must return an array {wanted}.")
    if values.dtype.kind == "c":
        raise ValueError(
            f"{name}.{what} returns complex numbers; give real and imaginary parts apart."
        )
    shape = np.shape(values)[1:]
    right = (
        len(shape) <= 1
        if components is None
        else shape == ((components,) if components > 1 else ())
    )
    if not right:
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
                "guess, or take its logarithm as the unknown."
            )


def _check_boundary(problem: Problem, theta: Theta, dtype: Any) -> None:
    name, domain = type(problem).__name__, problem.domain
    with blaming(f"{name}.boundary"):
        stated = problem.boundary(theta)
    if stated is None:
        return
    if not isinstance(stated, tuple) or len(stated) != 2:
        raise ValueError(
            f"{name}.boundary returns {stated!r:.60}; it must return a pair: points and values."
        )
    with blaming(f"{name}.boundary"):
        xs, values = jnp.asarray(stated[0], dtype), np.asarray(stated[1], float)
    if xs.ndim != 2 or xs.shape[1] != domain.dimension or not len(xs):
        raise ValueError(
            f"{name}.boundary: its points have shape {xs.shape}; they must be (b, {domain.dimension}), "
            "one point a row, such as np.array([[0.0], [1.0]])."
        )
    if not Box.contains(domain, np.asarray(xs), 1e-6).all():
        raise ValueError(f"{name}.boundary: a point lies outside the domain {domain}.")
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
