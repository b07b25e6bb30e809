"""Everything about a run that can fail cheaply, before anything expensive starts."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from bilo_ppl.inner.lower_level import AbstractSensitivity
from bilo_ppl.inner.sensitivity import ImplicitDifferentiation, PartialDerivative, ResidualGradient
from bilo_ppl.inner.sharding import device_mesh
from bilo_ppl.inner.solvers import AbstractInnerSolver, LevenbergMarquardt, OptaxSolver
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.network.operator_file import load_operator
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.fine_tuned import FineTuned
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
from bilo_ppl.run.settings import CommonSettings
from bilo_ppl.run.sizes import Chosen, sized

__all__ = ["Plan", "prepare", "stand_in", "untrained"]

USUAL_TOLERANCE = 1e-6
"""On the loss, until the noise says more."""

S = TypeVar("S", bound=CommonSettings)


@dataclasses.dataclass(frozen=True)
class Plan(Generic[S]):
    """A run that has passed the checks."""

    settings: S
    file: ModelFile
    """With all sizes filled in."""
    sizes: dict[str, Chosen]
    """These, and where they are from; what an operator that is loaded has is its own."""
    observations: Observations
    folder: RunFolder
    loaded: LocalOperator | None
    """The operator of ``--operator-file``."""
    numerical: AbstractSolutionOperator | None
    """The numerical operator, if it is the one to sample with."""
    latent: tuple[str, ...]
    """Names of the model's sample sites without data."""
    first_guess: dict[str, Any]
    """The start of the model file as values of those of these sites that have its names and shapes."""
    chains_near: dict[str, Any]
    """What the model file gives as ``init``: values of latent sites."""
    solutions: tuple[str, ...]
    """Names of the model's solution sites."""
    tolerance: float
    """On the loss of an inner solve: that of the settings, or, once it is known, from the noise."""

    @property
    def finds_tolerance(self) -> bool:
        """Whether the tolerance follows from the noise."""
        settings = self.settings
        return settings.fine_tuned and settings.tol is None and settings.chosen_inner == "lm"

    def with_tolerance(self, tolerance: float) -> "Plan[S]":
        """The plan with another tolerance."""
        return dataclasses.replace(self, tolerance=tolerance)

    @property
    def mesh(self) -> Mesh | None:
        """The devices over which rows are spread; None for one."""
        count = self.settings.devices or jax.device_count()
        return device_mesh(jax.devices()[:count]) if count > 1 else None

    def solver(self) -> AbstractInnerSolver:
        """The inner solver of sampling."""
        return _solver(self.settings, self.tolerance)

    def fine_tuned(self, operator: LocalOperator) -> FineTuned:
        """A trained operator, with the inner solver and the sensitivity that were asked for."""
        rank, key = self.settings.rank, jax.random.key(self.settings.seed + 1)
        # Of one hidden layer there is no increment to have.
        rank = 0 if self.settings.output_layer else rank
        return FineTuned(  # pyright: ignore[reportCallIssue]
            operator=operator.with_lora(rank, key=key),
            solver=self.solver(),
            sensitivity=self.sensitivity(),
        )

    def sensitivity(self) -> AbstractSensitivity:
        """How the solution is differentiated, in pretraining (which rows there are) and after."""
        return _sensitivity(self.settings)

    def model(self, operator: AbstractSolutionOperator) -> Callable[..., None]:
        """The NumPyro model of the data ``(x, y, sigma)`` with an operator put in.

        Its keywords are the ``model_kwargs`` of the observations.
        """

        def model(x, y, sigma, **kwargs):
            self.file.model(operator, x, y, sigma, **kwargs)

        return model


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
        resume=settings.resume,
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


def untrained(plan: Plan) -> LocalOperator:
    """An operator with random weights: enough to check ranks and shapes."""
    if plan.loaded is not None:
        return plan.loaded
    problem, start = plan.file.problem, plan.file.start
    return LocalOperator(problem, start, key=jax.random.key(0), **plan.file.architecture)


def stand_in(plan: Plan) -> FineTuned:
    """An operator to look at a model with, where nothing is solved."""
    return plan.fine_tuned(untrained(plan))


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


def _solver(settings: CommonSettings, tolerance: float) -> AbstractInnerSolver:
    if settings.chosen_inner == "lm":
        return LevenbergMarquardt(tolerance=tolerance, max_steps=settings.inner_limit)
    return OptaxSolver(
        optimiser=optax.adam(1e-3), tolerance=tolerance, max_steps=settings.inner_limit
    )


def _sensitivity(settings: CommonSettings) -> AbstractSensitivity:
    kinds = {
        "partial": PartialDerivative,
        "implicit": ImplicitDifferentiation,
        "residual-gradient": ResidualGradient,
    }
    return kinds[settings.chosen_sensitivity]()
