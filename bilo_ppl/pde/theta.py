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

    Behind this door nothing checks or casts it again. Raises a ``ValueError`` as `check_theta` does.
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
        for leaf in jax.tree.leaves(theta[name]):
            if isinstance(leaf, Tracer) or callable(leaf):
                continue
            if not np.all(np.isfinite(np.asarray(leaf, dtype=float))):
                raise ValueError(f"theta[{name!r}] = {leaf} is not finite.")
