"""How much the compiler should try."""

__all__ = ["RUNS_ONCE"]

RUNS_ONCE = {"xla_backend_optimization_level": 0}
"""``compiler_options`` of a function that runs once or twice: compilation is all its cost, and without
the optimisation of machine code it takes half the time."""
