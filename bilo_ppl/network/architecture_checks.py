"""Whether the choices that make a local operator can be meant, before anything is trained."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from bilo_ppl.network.trainable import count_parameters
from bilo_ppl.pde.problem import Problem

__all__ = ["check_names", "check_network", "check_sizes"]

MOST_WEIGHTS = 10**8
"""Of a network: 400 MB in single precision, and a thousand times what any problem here has needed."""


def check_names(problem: Problem, embedded: tuple[str, ...], scales: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` for names that are no parameters, and for scales that are not positive."""
    unknown = [n for n in (*embedded, *scales) if n not in problem.parameters]
    if unknown:
        raise ValueError(
            f"LocalOperator: {unknown} in embedded or scales are not parameters of "
            f"{type(problem).__name__}: {list(problem.parameters)}."
        )
    bad = {n: s for n, s in scales.items() if not np.all(np.asarray(s) > 0)}
    if bad:
        raise ValueError(f"LocalOperator: scales must be positive, but are {bad}.")


def check_sizes(width: Any, depth: Any, fourier: Any) -> None:
    """Raise a ``ValueError`` for sizes that are no whole numbers, or that no network here can have."""
    for name, value, least in (("width", width, 1), ("depth", depth, 1), ("fourier", fourier, 0)):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or value < least:
            raise ValueError(
                f"LocalOperator: {name} is {value!r:.40}; it must be a whole number, at least {least}."
            )
    if (weights := width * (width * depth + 2 * fourier)) > MOST_WEIGHTS:
        raise ValueError(
            f"LocalOperator: width={width}, depth={depth} and fourier={fourier} make {weights:.1e} "
            f"weights, and more than {MOST_WEIGHTS:.0e} cannot be trained here; take smaller ones."
        )


def check_network(problem: Problem, network: Any, inputs: Any, e: Any) -> None:
    """A network of the user's own: what it gives for inputs and an embedding, and whether it has weights.

    Raises a ``ValueError`` where it cannot be used.
    """
    name = type(network).__name__
    if not count_parameters(network):
        raise ValueError(
            f"LocalOperator: the network {name} has no floating-point arrays outside of Frozen, so "
            "there is nothing to train; it must be an Equinox module that holds its weights."
        )
    try:
        shape = jax.eval_shape(network, inputs, e).shape
    except Exception as error:
        raise ValueError(
            f"LocalOperator: the network {name} fails for inputs of shape {inputs.shape} and an "
            f"embedding of shape {e.shape} (the argument width): {type(error).__name__}: {error}"
        ) from error
    if shape != (problem.components,):
        raise ValueError(
            f"LocalOperator: the network {name} gives shape {shape}; "
            f"{type(problem).__name__} needs ({problem.components},)."
        )
