"""How much the compiler should try."""

import functools
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

    @functools.wraps(function)
    def once(*args):
        return function(*args)

    # Equinox warns of vmapped modules, which here are constants on purpose.
    del once.__wrapped__
    return filter_jit(once, compiler_options={"xla_backend_optimization_level": 0})
