"""Whether the gradient of U can be followed: a look at operators that do not vouch for theirs."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from bilo_ppl._compile import jit_once
from bilo_ppl._pages import see
from bilo_ppl.estimate.objective import Objective

__all__ = ["check_gradient"]

RELATIVE, ABSOLUTE = 0.2, 1.0
"""Largest error of the gradient: as a part of its norm, and in nats per unit of z. Near the mode a
gradient is a small difference of large terms, and only the second means something."""


def check_gradient(objective: Objective, z: Mapping[str, Any]) -> None:
    """Compare the gradient of U at z with that of the operators made for searching, if need be.

    Both are taken at the same solution, so that the inner tolerance does not blur the comparison.
    Nothing is compared where the PDE is not solved at z. Raises a ``ValueError`` if they differ by
    more than 20 % and one nat per unit of z.
    """
    vague = [n for n, op in objective.operators.items() if not op.differentiates_exactly]
    if not vague:
        return
    exact = {
        name: operator.searching() if name in vague else operator
        for name, operator in objective.operators.items()
    }
    searching = eqx.tree_at(lambda o: o.operators, objective, exact)
    given, true, converged = jax.device_get(_gradients(objective, searching, dict(z)))
    error = float(np.linalg.norm(given - true))
    if converged and error > RELATIVE * np.linalg.norm(true) + ABSOLUTE:
        raise ValueError(
            f"find_map: the gradient of U at the first guess is wrong by {error:.3g} (norm "
            f"{np.linalg.norm(true):.3g}): operators of {vague} differentiate at fixed weights. "
            + see("Gradients at fixed weights")
        )


@jit_once
def _gradients(objective: Objective, searching: Objective, z: dict[str, Any]) -> Any:
    """Both gradients at z, flattened, and whether the PDE is solved there."""
    _, (states, found) = objective(z, {})

    def gradient(of):
        return ravel_pytree(jax.grad(of, has_aux=True)(z, states)[0])[0]

    return gradient(objective), gradient(searching), jnp.asarray(found.info.converged)
