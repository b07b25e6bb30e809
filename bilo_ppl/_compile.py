"""How much the compiler should try."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx

__all__ = ["jit_once"]

F = TypeVar("F", bound=Callable)


def jit_once(function: F) -> F:
    """`equinox.filter_jit` for a function that runs once or twice: compilation is all its cost.

    Without the optimisation of machine code it takes half the time.
    """
    filter_jit: Any = eqx.filter_jit
    return filter_jit(function, compiler_options={"xla_backend_optimization_level": 0})
