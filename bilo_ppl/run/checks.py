"""Everything about a run that can fail cheaply, before anything expensive starts."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from bilo_ppl.network.operator_file import load_operator
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.pde.data import Observations
from bilo_ppl.ppl.data_sites import check_missing
from bilo_ppl.ppl.look import ModelLook, look_at
from bilo_ppl.ppl.model_checks import (
    check_likelihood,
    check_priors,
    check_shapes,
    check_solutions,
)
from bilo_ppl.ppl.site_values import site_values
from bilo_ppl.run.folder import RunFolder
from bilo_ppl.run.model_file import ModelFile
from bilo_ppl.run.plan import USUAL_TOLERANCE, Plan, stand_in, untrained
from bilo_ppl.run.settings import CommonSettings
from bilo_ppl.run.sizes import sized

__all__ = ["Plan", "prepare", "stand_in", "untrained"]

S = TypeVar("S", bound=CommonSettings)


def prepare(settings: S, file: ModelFile) -> Plan[S]:
    """Check a run of a model file; nothing is written.

    Raises a ``ValueError`` or an ``OSError`` that says what is wrong and what to do.
    """
    folder = _folder(settings, file)
    folder.check()
    _check_devices(settings)
    file, sizes = sized(file, settings)
    observations = _observations(settings, file)
    loaded = None
    if settings.fine_tuned and settings.operator_file is not None:
        loaded = load_operator(
            pathlib.Path(settings.operator_file),
            file.problem,
            network=file.architecture.get("network"),
        )
    numerical = None if settings.fine_tuned else _numerical(file)
    tolerance = USUAL_TOLERANCE if settings.tol is None else settings.tol
    plan = Plan(
        settings, file, sizes, observations, folder, loaded, numerical, (), {}, {}, (), tolerance
    )
    operator = numerical or stand_in(plan)
    look = _look(plan, operator)
    return dataclasses.replace(
        plan,
        latent=tuple(look.latent),
        first_guess=site_values(file.start, look.latent),
        chains_near=_chains_near(file, look.latent),
        solutions=tuple(look.solutions),
    )


def _check_devices(settings: CommonSettings) -> None:
    if settings.devices > jax.device_count():
        raise ValueError(
            f"--devices {settings.devices}: JAX has {jax.device_count()} here ({jax.default_backend()}). "
            "To make several of the cores of a CPU, put "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={settings.devices} in the environment."
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


def _folder(settings: CommonSettings, file: ModelFile) -> RunFolder:
    inputs = [path for path in (file.path, settings.data, settings.operator_file) if path]
    return RunFolder(
        settings.output_folder(file.name),
        written=settings.written,
        inputs=inputs,
        overwrite=settings.overwrite,
    )


def _observations(settings: CommonSettings, file: ModelFile) -> Observations:
    if settings.data is None:
        return file.observations(settings.data_seed)
    if not pathlib.Path(settings.data).is_file():
        raise FileNotFoundError(f"there is no data file {settings.data}.")
    return file.read_data(settings.data)


def _numerical(file: ModelFile) -> AbstractSolutionOperator:
    if file.reference is None:
        raise ValueError(
            f"{file.path} defines no numerical operator (a function reference()); use --operator "
            "fine-tuned."
        )
    return file.reference()


def _look(plan: Plan, operator: AbstractSolutionOperator) -> ModelLook:
    """The sites of the model, checked; nothing is solved."""
    looks: list[ModelLook] = []

    def note():
        data = plan.observations
        looks.append(look_at(plan.model(operator), data.model_args, data.model_kwargs))
        check_solutions(looks[0], plan.file.start)

    try:
        jax.eval_shape(note)
    except Exception as error:
        raise ValueError(
            f"{plan.file.path}: model(operator, x, y, sigma) fails on these data: "
            f"{type(error).__name__}: {error}"
        ) from error
    look = looks[0]
    if not look.solutions or not look.latent:
        missing = "bilo_ppl.solution(...) call" if look.latent else "sample site without data"
        raise ValueError(
            f"{plan.file.path}: the model has no {missing}: there is nothing to infer."
        )
    try:
        check_shapes(look)
        check_likelihood(look, plan.observations.y)
        if plan.settings.samples_posterior:
            check_priors(look)
        if np.isnan(plan.observations.y).any():
            # Seen by a look at values, which the one above has not.
            data = plan.observations
            check_missing(look_at(plan.model(operator), data.model_args, data.model_kwargs))
    except ValueError as error:
        raise ValueError(f"{plan.file.path}: {error}") from error
    return look
