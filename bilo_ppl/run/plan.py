"""A run that has passed the checks, and what its options ask of the solves."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import optax
from jax.sharding import Mesh

from bilo_ppl.inner.lower_level import AbstractSensitivity
from bilo_ppl.inner.sensitivity import ImplicitDifferentiation, PartialDerivative, ResidualGradient
from bilo_ppl.inner.sharding import device_mesh
from bilo_ppl.inner.solvers import AbstractInnerSolver, LevenbergMarquardt, OptaxSolver
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.pde.data import Observations
from bilo_ppl.run.folder import RunFolder
from bilo_ppl.run.model_file import ModelFile
from bilo_ppl.run.settings import CommonSettings
from bilo_ppl.run.sizes import Chosen, sized

__all__ = ["USUAL_TOLERANCE", "Plan", "stand_in", "untrained"]

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
    scalars: int
    """How many numbers these have together."""
    first_guess: dict[str, Any]
    """The start of the model file as values of those of these sites that have its names and shapes."""
    chains_near: dict[str, Any]
    """What the model file gives as ``init``: values of latent sites."""
    solutions: tuple[str, ...]
    """Names of the model's solution sites."""
    data_kind: str
    """What the data are, as `bilo_ppl.ppl.data_sites.data_kind` says it."""
    tolerance: float
    """On the loss of an inner solve: that of the settings, or, once it is known, from the noise."""

    @property
    def by_values(self) -> bool:
        """Whether the data are values such as those of u, and no counts or points of a process."""
        return self.data_kind in {"values", "positive", "fractions"}

    @property
    def has_noise_sd(self) -> bool:
        """Whether they are, and sigma is the standard deviation of their noise."""
        return self.data_kind == "values"

    @property
    def inputs(self) -> dict[str, str | os.PathLike]:
        """The files that were read, by what they are."""
        settings = self.settings
        found = {"model": self.file.path, "data": settings.data, "operator": settings.operator_file}
        return {name: path for name, path in found.items() if path is not None}

    def described(self) -> dict[str, Any]:
        """What is solved for, and from which data, for a reader."""
        settings = self.settings
        source = settings.data or f"synthetic, seed {settings.data_seed}"
        return {
            **self.file.described(),
            "unknowns": self.latent,
            "data": f"{self.observations.described(self.data_kind)} ({source})",
        }

    @property
    def finds_tolerance(self) -> bool:
        """Whether the tolerance follows from the noise."""
        settings = self.settings
        return settings.fine_tuned and settings.tol is None and settings.chosen_inner == "lm"

    def with_tolerance(self, tolerance: float) -> "Plan[S]":
        """The plan with another tolerance."""
        return dataclasses.replace(self, tolerance=tolerance)

    def with_features(self) -> "Plan[S]":
        """The plan with the output layer as all that is fine-tuned, where the options leave it open."""
        settings = dataclasses.replace(self.settings, fine_tune="output-layer")
        file, sizes = sized(self.file, settings)
        if sizes["points"].value == self.sizes["points"].value:
            sizes["points"] = self.sizes["points"]
        return dataclasses.replace(self, settings=settings, file=file, sizes=sizes)

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


def untrained(plan: Plan) -> LocalOperator:
    """An operator with random weights: enough to check ranks and shapes."""
    if plan.loaded is not None:
        return plan.loaded
    problem, start = plan.file.problem, plan.file.start
    return LocalOperator(problem, start, key=jax.random.key(0), **plan.file.architecture)


def stand_in(plan: Plan) -> FineTuned:
    """An operator to look at a model with, where nothing is solved."""
    return plan.fine_tuned(untrained(plan))


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
