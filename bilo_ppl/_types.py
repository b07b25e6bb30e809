"""Shape aliases, and the notation used throughout the package.

========  =====================================================================
theta     PDE parameters: a mapping from names to scalars, arrays or fields
x         a point of the domain, shape ``(d,)``; for evolution problems (x, t), time last
u         the PDE solution, a function of a point
W         weights of the local operator that the inner solver may change
r         PDE residual at a point
rows      the least-squares residuals of the lower level; loss = sum(rows**2)
U         potential energy, ``-log posterior`` up to a constant
z         the sampler's unconstrained position
tol       tolerance on the lower-level loss
========  =====================================================================
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

__all__ = [
    "Field",
    "Key",
    "Point",
    "Points",
    "Rows",
    "Scalar",
    "Theta",
    "Weights",
]

Scalar: TypeAlias = Float[Array, ""]
Point: TypeAlias = Float[Array, " d"]
Points: TypeAlias = Shaped[Any, "n d"]
Rows: TypeAlias = Float[Array, " rows"]
Count: TypeAlias = Int[Array, ""]
Flag: TypeAlias = Bool[Array, ""]
Key: TypeAlias = PRNGKeyArray | Shaped[Array, "2"]

Field: TypeAlias = Callable[[Any], Any]
"""A function of a point, with a scalar or ``(components,)`` value."""

Theta: TypeAlias = Mapping[str, Any]
"""PDE parameters by name: scalars, arrays, or fields (Equinox callables of a point)."""

Weights: TypeAlias = Any
"""The trainable part of an Equinox module: its pytree with ``None`` for the frozen leaves."""
