"""What a problem states beside its equations: parameters, domain, components and their names."""

from collections.abc import Sequence

from bilo_ppl.pde.data_columns import SIGMA, reserved_names
from bilo_ppl.pde.domain import Box
from bilo_ppl.pde.problem import Problem

__all__ = ["check_attributes"]

NEEDED = ("parameters", "domain", "components")


def check_attributes(problem: Problem) -> None:
    """Raise a ``ValueError`` for an attribute that is not given, or is not what it must be."""
    name = type(problem).__name__
    missing = [attribute for attribute in NEEDED if not hasattr(problem, attribute)]
    if missing:
        raise ValueError(f"{name} does not give {missing}; a Problem needs each of {list(NEEDED)}.")
    names = problem.parameters
    texts = isinstance(names, Sequence) and all(isinstance(n, str) and n for n in names)
    if isinstance(names, str) or not texts or len(set(names)) < len(names):
        raise ValueError(
            f"{name}.parameters is {names!r:.80}; it must be a tuple of different names, such as "
            '("D",) with its comma.'
        )
    if not isinstance(problem.domain, Box):
        raise ValueError(
            f"{name}.domain is {problem.domain!r:.80}; it must be a Box, such as bilo.interval(0.0, 1.0)."
        )
    count = problem.components
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{name}.components is {count!r}; it must be a whole number, at least 1.")
    _check_component_names(problem)


def _check_component_names(problem: Problem) -> None:
    name, names, count = type(problem).__name__, problem.component_names, problem.components
    if not names:
        return
    if isinstance(names, str) or len(names) != count or len(set(names)) != count:
        raise ValueError(
            f"{name}.component_names is {names!r}; it must hold a name of its own for each of the "
            f"{count} components."
        )
    taken = reserved_names(problem.domain, count)
    wrong = [n for n in names if not str(n).strip() or n in taken or str(n).startswith(SIGMA)]
    if wrong:
        raise ValueError(
            f"{name}.component_names has {wrong[0]!r}; a column of data so named would be something "
            f"else: {', '.join(sorted(taken))}, and what begins with {SIGMA}, have a meaning. Choose "
            "another name."
        )
