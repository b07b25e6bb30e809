"""Where a solution is asked for: at one point, inside of the domain."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from bilo_ppl.pde.domain import Box

__all__ = ["SLACK", "check_point"]

SLACK = 1e-6
"""Of the size of the domain: limits are rounded in single precision."""


def check_point(domain: Box, x: Any, name: str = "u") -> None:
    """Raise a ``ValueError`` unless x is a point ``(d,)``, in one dimension also a scalar, of the domain.

    Where x is traced, only its shape is known. Masks of a domain are not looked at.
    """
    shape, dimension = jnp.shape(x), domain.dimension
    if shape != (dimension,) and not (dimension == 1 and shape == ()):
        raise ValueError(
            f"{name}(x): x has shape {shape}, and a solution is a function of one point, "
            f"({dimension},). For several points x (n, {dimension}) write jax.vmap({name})(x)."
        )
    if isinstance(x, Tracer):
        return
    point = np.reshape(np.asarray(x, float), (1, dimension))
    if not Box.contains(domain, point, SLACK)[0]:
        raise ValueError(
            f"{name}(x): x = {point[0].tolist()} lies outside the domain {domain}, where nothing is "
            "known of the solution."
        )
