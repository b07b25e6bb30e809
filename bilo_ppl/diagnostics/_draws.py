"""Draws of vectors and arrays as draws of scalars."""

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["of_chains", "scalar_draws"]


def scalar_draws(draws: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Entries ``(chains, draws, ...)`` as scalars ``(chains, draws)`` named ``k``, ``b[1,2]``."""
    scalars = {}
    for name, values in draws.items():
        values = np.asarray(values)
        if values.ndim < 2:
            raise ValueError(
                f"draws of {name!r} have shape {values.shape}; they must be (chains, draws, ...)."
            )
        for index in np.ndindex(values.shape[2:]):
            label = f"{name}[{','.join(map(str, index))}]" if index else name
            scalars[label] = values[(slice(None), slice(None), *index)]
    return scalars


def of_chains(draws: Any, what: str) -> np.ndarray:
    """Draws ``(chains, draws)``; raises a ``ValueError`` for other shapes."""
    draws = np.asarray(draws)
    if draws.ndim != 2 or draws.size == 0:
        raise ValueError(f"{what} must be (chains, draws) and not empty, got shape {draws.shape}.")
    return draws
