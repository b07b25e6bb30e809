"""How much the compiler should try."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax

__all__ = ["jit_for", "jit_once"]

F = TypeVar("F", bound=Callable)

FEW = 500
"""Evaluations up to which compiling well would take longer than it saves."""


def jit_once(function: F) -> F:
    """`equinox.filter_jit` for a function that runs once or twice: compilation is all its cost.

    Without the optimisation of machine code it takes half the time.
    """
    filter_jit: Any = eqx.filter_jit

    @functools.wraps(function)
    def once(*args):
        return function(*args)

    # Equinox warns of vmapped modules, which here are constants on purpose.
    del once.__wrapped__
    return filter_jit(once, compiler_options={"xla_backend_optimization_level": 0})


def jit_for(count: int, function: F) -> F:
    """The function compiled for ``count`` evaluations in all: quickly for few, well for many."""
    jit: Any = jit_once if count <= FEW else jax.jit
    return jit(function)
