"""What a model file must define, and whether it does: names, kinds, and how functions are called."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from bilo_ppl._blame import blaming
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.pde.checks import check_problem
from bilo_ppl.pde.collocation import completed
from bilo_ppl.pde.data_columns import check_names
from bilo_ppl.pde.problem import Problem

__all__ = ["EXPECTED", "SYNTHETIC_DATA", "check_file", "naming"]

LONGEST_UNIT = 40

EXPECTED = {
    "problem": "the PDE, an instance of bilo_ppl.Problem",
    "start": "the theta to pretrain at, a mapping from the problem's parameters to values",
    "model": "the NumPyro model, a function model(operator, x, y, sigma)",
}

SYNTHETIC_DATA = (
    "a function of a seed that returns a mapping with x (n, d), y (n,) or (n, components), sigma, and, "
    "where there are several, experiment (n,)"
)


def check_file(found: Any, learnt: bool) -> None:
    """Raise a ``ValueError`` for a name that is defined as something else than expected."""

    def refuse(name: str) -> None:
        value = getattr(found, name)
        raise ValueError(
            f"{found.path}: {name} is {_described(value)}; it must be {EXPECTED[name]}."
        )

    if not isinstance(found.problem, Problem):
        refuse("problem")
    if not isinstance(found.start, Mapping):
        refuse("start")
    if not isinstance(found.init, Mapping):
        raise ValueError(
            f"{found.path}: init is {_described(found.init)}; it must be a mapping from sample sites of "
            "the model to values."
        )
    data = found.synthetic_data
    if data is not None and not (callable(data) and _takes(data, 0)):
        raise ValueError(
            f"{found.path}: synthetic_data is {_described(data)}; it must be {SYNTHETIC_DATA}."
        )
    if not callable(found.model) or not _takes_data(found.model):
        refuse("model")
    bayesian = found.bayesian_model
    if bayesian is not None and not (callable(bayesian) and _takes_data(bayesian)):
        raise ValueError(
            f"{found.path}: bayesian_model is {_described(bayesian)}; it must be a NumPyro "
            "model, a function bayesian_model(operator, x, y, sigma)."
        )
    if found.figures is not None and not callable(found.figures):
        raise ValueError(
            f"{found.path}: figures is {_described(found.figures)}; it must be a function of solutions, "
            "values and data that gives pairs of a name and a matplotlib Figure."
        )
    if found.scores is not None and not callable(found.scores):
        raise ValueError(
            f"{found.path}: scores is {_described(found.scores)}; it must be a function of theta that "
            "returns numbers by name."
        )
    if found.reference is not None and not (callable(found.reference) and _takes(found.reference)):
        raise ValueError(
            f"{found.path}: reference is {_described(found.reference)}; it must be a function "
            "without arguments that returns a solution operator."
        )
    for name in ("truth", "reference_grid"):
        if not isinstance(getattr(found, name) or {}, Mapping):
            raise ValueError(
                f"{found.path}: {name} is {_described(getattr(found, name))}; it must be a mapping from "
                "parameters to values."
            )
    _check_architecture(found)
    _check_units(found)
    with naming(found.path):
        check_problem(found.problem, found.start, learnt=learnt)
    check_names(found.observed, found.problem.domain, f"{found.path}: observed")
    _check_exact(found)


def _check_architecture(found: Any) -> None:
    """Refuse what pretraining would not understand."""
    known = set(inspect.signature(LocalOperator).parameters) - {"problem", "theta", "key"}
    given = found.architecture
    unknown = sorted(set(given) - known) if isinstance(given, Mapping) else [given]
    if unknown:
        raise ValueError(
            f"{found.path}: architecture has {unknown}; it must be a mapping of arguments of "
            f"LocalOperator: {', '.join(sorted(known))}."
        )


def _check_units(found: Any) -> None:
    """Refuse units that are no texts; which names there are, only a look at the model says."""
    given = found.units
    if not isinstance(given, Mapping):
        raise ValueError(
            f'{found.path}: units is {_described(given)}; it must be a mapping such as {{"k": "1/day"}}.'
        )
    for name, unit in given.items():
        if not isinstance(unit, str) or not 0 < len(unit.strip()) <= LONGEST_UNIT:
            raise ValueError(
                f"{found.path}: units has {name!r}: {unit!r:.60}; a unit is a text such as "
                f'"1/day", of 1 to {LONGEST_UNIT} characters.'
            )


def _check_exact(found: Any) -> None:
    """Refuse an ``exact`` that is no function of a point; figures are where it would be seen else."""
    if found.exact is None:
        return
    problem, name = found.problem, f"{found.path}: exact"
    if not callable(found.exact):
        raise ValueError(f"{name} is {_described(found.exact)}; it must be a function of a point.")
    point = jnp.asarray(completed(problem, found.start).points)[0]
    with blaming(f"{name}(x), of a point x of shape {point.shape},"):
        shape = jax.eval_shape(lambda x: jnp.asarray(found.exact(x)), point).shape
    wanted = (problem.components,) if problem.components > 1 else ()
    if shape != wanted:
        raise ValueError(
            f"{name}(x) has shape {shape} at a point x of shape {point.shape}; it must be {wanted}, as u "
            "is (is x[0] meant where x stands?)."
        )


@contextmanager
def naming(path: Any) -> Iterator[None]:
    """Say of which file a check speaks."""
    try:
        yield
    except (ValueError, NotImplementedError) as error:
        raise ValueError(f"{path}: {error}") from error


def _takes(function: Callable, *arguments: Any) -> bool:
    """Whether a function can be called so; one that does not say how can."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _takes_data(model: Callable) -> bool:
    try:
        signature = inspect.signature(model)
        by_name = {"experiment": None} if "experiment" in signature.parameters else {}
        bound = signature.bind("operator", "x", "y", "sigma", **by_name)
    except (TypeError, ValueError):
        return False
    return "sigma" in bound.arguments


def _described(value: Any) -> str:
    if inspect.isfunction(value):
        return f"{value.__name__}{inspect.signature(value)}"
    return f"of type {value.__name__} (a class)" if isinstance(value, type) else f"{value!r:.80}"
