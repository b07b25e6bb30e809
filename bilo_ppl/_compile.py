"""How much the compiler should try, and how long it has taken."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax

__all__ = ["Compiler", "compiler", "jit_for", "jit_once"]

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


class Compiler:
    """Seconds that XLA has compiled for in this process, as JAX reports them, and programs found."""

    EVENT = "/jax/core/compile/backend_compile_duration"
    FOUND = "/jax/compilation_cache/cache_hits"

    def __init__(self):
        self.seconds, self.found = 0.0, 0
        jax.monitoring.register_event_duration_secs_listener(self._add)
        jax.monitoring.register_event_listener(self._count)

    def _add(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == self.EVENT:
            self.seconds += duration_secs

    def _count(self, event: str, **kwargs: str | int) -> None:
        self.found += event == self.FOUND


@functools.cache
def compiler() -> Compiler:
    """The one listener of the process: JAX has no public way to take it off again."""
    return Compiler()
