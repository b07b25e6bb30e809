"""What a network sees of a point, where that does not depend on theta."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Points, Theta
from bilo_ppl.pde.problem import Problem

__all__ = ["fixed_inputs", "inputs_of_features"]

TRIED = 16
"""Points at which inputs are compared."""


def fixed_inputs(problem: Problem, theta: Theta) -> int | None:
    """How many numbers the network sees of a point; None where these, or how many, follow theta.

    Compared are `Problem.inputs` without theta, with ``theta``, and with its numbers moved.
    """
    if type(problem).inputs is Problem.inputs:
        return problem.domain.dimension
    points = problem.points[:: max(1, len(problem.points) // TRIED)]
    numbers, static = eqx.partition(theta, eqx.is_inexact_array_like)
    others = [eqx.combine(jax.tree.map(change, numbers), static) for change in (_kept, _moved)]
    try:
        alone = _seen(problem, {}, points)
        seen = [_seen(problem, other, points) for other in others]
        same = all(x.shape == alone.shape and bool(jnp.all(x == alone)) for x in seen)
        return alone.shape[1] if same and alone.ndim == 2 else None
    except Exception:  # whatever a user's function makes of an empty theta
        return None


def inputs_of_features(name: str, problem: Problem, theta: Theta) -> int:
    """The same for features that stay; a ``ValueError``, which ``name`` begins, where they cannot."""
    inputs = fixed_inputs(problem, theta)
    if inputs is None:
        raise ValueError(
            f"{name}: {type(problem).__name__}.inputs depends on theta; features that stay need the "
            "point alone."
        )
    return inputs


def _kept(number: Any) -> Any:
    return number


def _moved(number: Any) -> Any:
    return 1.1 * number + 0.1


@jit_once
def _seen(problem: Problem, theta: Any, points: Points) -> Any:
    inputs: Callable = problem.inputs
    return jax.vmap(lambda x: inputs(x, theta))(jnp.asarray(points))
