"""The model of a run seen without solving: what it has, and whether it can be sampled."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpyro.distributions import biject_to

from bilo_ppl._blame import blaming, told, where
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.data_sites import check_missing, data_kind
from bilo_ppl.ppl.look import ModelLook, look_at
from bilo_ppl.ppl.model_checks import (
    check_latent,
    check_likelihood,
    check_noise,
    check_parameters,
    check_priors,
    check_shapes,
    check_solutions,
)
from bilo_ppl.ppl.site_values import site_values
from bilo_ppl.run.definitions import naming
from bilo_ppl.run.model_file import ModelFile
from bilo_ppl.run.plan import Plan, stand_in
from bilo_ppl.run.plane import known_fields
from bilo_ppl.validation.posterior_grid import check_grid

__all__ = ["looked_at", "made_reference"]

LONGEST_NAME = 100
"""Characters of the name of an unknown, which becomes that of figures."""

TAKEN = ("chain", "draw")
"""Names of the axes of the results."""

MOST_NUMBERS = 2**30
"""Of all draws together: 8 GiB."""


def looked_at(plan: Plan) -> Plan:
    """The plan with what the model has, its sites and values of them.

    Raises a ``ValueError`` that says what is wrong with them.
    """
    file, data = plan.file, plan.observations
    operator = plan.numerical or _network(plan)
    look = _look(plan, operator)
    _check_units(file, look)
    plan = dataclasses.replace(
        plan,
        latent=tuple(look.latent),
        scalars=look.scalars,
        first_guess=site_values(file.start, look.latent),
        chains_near=_chains_near(file, look.latent),
        solutions=tuple(look.solutions),
        data_kind=data_kind(look),
    )
    with naming(file.path):
        for name, values in (("start", plan.first_guess), ("init", plan.chains_near)):
            if name == "init" and not values:
                continue
            # Seen by a look at values, which the one above has not.
            seen = look_at(plan.model(operator), data.model_args, data.model_kwargs, values=values)
            check_parameters(seen)
            _check_support(name, values, seen.latent)
            check_missing(seen)
            check_noise(seen)
        if file.reference_grid is not None and plan.settings.samples_posterior:
            check_grid(
                plan.model(operator), file.reference_grid, data.model_args, data.model_kwargs
            )
    if file.reference is not None and plan.numerical is None:
        # What is needed when all draws are there.
        made_reference(file)
    return plan


def _network(plan: Plan) -> AbstractSolutionOperator:
    """An operator to look with; whatever fails is a ``ValueError``."""
    try:
        return stand_in(plan)
    except ValueError as error:
        raise ValueError(f"{plan.file.path}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"{plan.file.path}: no network can be made for {type(plan.file.problem).__name__}"
            f"{where(error.__traceback__)}: {told(error)}"
        ) from error


def made_reference(file: ModelFile) -> AbstractSolutionOperator:
    """The numerical operator of a model file; a ``ValueError`` if it gives no operator of its problem."""
    with blaming(f"{file.path}: reference()"):
        found = file.reference()
    if not isinstance(found, AbstractSolutionOperator):
        raise ValueError(
            f"{file.path}: reference() returns a {type(found).__name__}; it must return a solution "
            "operator, such as bilo.FiniteDifferences(...)."
        )
    if tuple(found.problem.parameters) != tuple(file.problem.parameters):
        raise ValueError(
            f"{file.path}: reference() solves a problem of the parameters {found.problem.parameters}, "
            f"and those of problem are {file.problem.parameters}."
        )
    return found


def _check_units(file: ModelFile, look: ModelLook) -> None:
    """Refuse units of what there is not."""
    if not file.units:
        return
    problem = file.problem
    known = dict.fromkeys(
        [
            *(*look.latent, *look.observed, *look.solutions, *problem.parameters),
            *(*problem.domain.coordinates, *problem.component_names, *file.observed),
            *known_fields(problem, file.start),
        ]
    )
    if wrong := [name for name in file.units if name not in known]:
        raise ValueError(
            f"{file.path}: units has {wrong}, of which there is nothing; named are {', '.join(known)}."
        )


def _check_support(which: str, values: Mapping[str, Any], latent: Mapping[str, Any]) -> None:
    """Refuse first values at which the prior is zero, or from which no chain could move."""
    for name, value in values.items():
        fn = latent[name]["fn"]
        inside = bool(np.all(fn.support(value)))
        if not inside or not np.isfinite(biject_to(fn.support).inv(value)).all():
            raise ValueError(
                f"{which} has {name} = {np.asarray(value)}, which lies "
                f"{'on the edge of' if inside else 'outside'} the support of its prior, {fn.support}. "
                "Give a value inside, or another prior."
            )


def _check_names(latent: Mapping[str, Any]) -> None:
    for name in latent:
        if not name or len(name) > LONGEST_NAME or name in TAKEN or not name.isprintable():
            raise ValueError(
                f"the unknown {name!r:.60} cannot have this name, which is that of a file and of a "
                f"variable in posterior.nc: take 1 to {LONGEST_NAME} printable characters, and not "
                f"{' or '.join(TAKEN)}."
            )


def _check_number(settings: Any, each: int) -> None:
    """Of draws of ``each`` numbers."""
    if not settings.samples_posterior:
        return
    if each * settings.chains * settings.samples > MOST_NUMBERS:
        raise ValueError(
            f"{settings.chains} chains of {settings.samples} draws of {each} unknowns are more numbers "
            "than can be kept (8 GiB); take fewer --samples or --chains."
        )


def _chains_near(file: ModelFile, latent: Mapping[str, Any]) -> dict[str, Any]:
    """The ``init`` of a model file, all of which must be values of sites."""
    found = site_values(file.init, latent)
    if wrong := [name for name in file.init if name not in found]:
        shapes = ", ".join(f"{name} {site['fn'].shape()}" for name, site in latent.items())
        raise ValueError(
            f"{file.path}: init has {wrong}, which are no sample sites without data, or have not their "
            f"shape. The model has {shapes}."
        )
    return found


def _look(plan: Plan, operator: AbstractSolutionOperator) -> ModelLook:
    """The sites of the model, checked; nothing is solved."""
    looks: list[ModelLook] = []

    def note():
        data = plan.observations
        looks.append(look_at(plan.model(operator), data.model_args, data.model_kwargs))
        check_solutions(looks[0], plan.file.start)

    try:
        jax.eval_shape(note)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{plan.file.path}: model(operator, x, y, sigma) fails on these data"
            f"{where(error.__traceback__)}: {told(error)}"
        ) from error
    look = looks[0]
    if not look.solutions or not look.latent:
        missing = "bilo_ppl.solution(...) call" if look.latent else "sample site without data"
        raise ValueError(
            f"{plan.file.path}: the model has no {missing}: there is nothing to infer."
        )
    with naming(plan.file.path):
        check_shapes(look)
        check_latent(look)
        check_likelihood(look, plan.observations.y)
        if plan.settings.samples_posterior:
            check_priors(look)
        _check_names(look.latent)
        _check_number(plan.settings, look.scalars)
    return look
