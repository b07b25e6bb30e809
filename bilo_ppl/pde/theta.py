"""Theta, the PDE parameters: checked and cast once, where it enters an operator."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from bilo_ppl._types import Theta
from bilo_ppl.pde.problem import Problem

__all__ = ["admit", "check_theta", "theta_as"]


def admit(problem: Problem, theta: Theta, dtype: Any) -> dict[str, Any]:
    """Theta as an operator's `solve` takes it in: checked, and cast to the operator's precision.

    Behind this door nothing checks or casts it again. Raises a ``ValueError`` unless theta has the
    problem's names and finite real values.

    Examples:
        >>> from bilo_ppl.pde.theta import admit
        >>> admit(problem, {"r": 9}, jnp.float32)["r"].dtype
        dtype('float32')
        >>> admit(problem, {"D": 1.0}, jnp.float32)
        Traceback (most recent call last):
            ...
        ValueError: theta for Decay: missing ['r'], unknown ['D']; it needs exactly ['r'].
    """
    check_theta(problem, theta)
    return theta_as(theta, dtype)


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
        leaves = jax.tree.leaves(theta[name], is_leaf=lambda leaf: leaf is None)
        if not leaves and not callable(theta[name]):
            raise ValueError(
                f"theta[{name!r}] = {theta[name]!r} is empty; give a number or an array."
            )
        for leaf in leaves:
            _check_leaf(name, leaf, callable(theta[name]))


def _check_leaf(name: str, leaf: Any, of_function: bool) -> None:
    """An entry of theta, or an array in it; a function may hold other things."""
    if isinstance(leaf, Tracer) or callable(leaf):
        return
    number = isinstance(leaf, (int, float, np.ndarray, np.generic, jax.Array))
    kind = np.asarray(leaf).dtype.kind if number and not isinstance(leaf, bool) else "?"
    if kind not in "iuf" or (isinstance(leaf, int) and abs(leaf) > 1e300):
        if of_function:
            return
        raise ValueError(
            f"theta[{name!r}] = {leaf!r:.60} is no real number; give a number, an array of numbers, or "
            "a function of a point."
        )
    if not np.size(leaf):
        if of_function:
            return
        raise ValueError(f"theta[{name!r}] is empty; give a number or an array.")
    if not np.all(np.isfinite(np.asarray(leaf, dtype=float))):
        raise ValueError(f"theta[{name!r}] = {leaf} is not finite.")
