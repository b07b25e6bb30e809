"""Everything about a run that can fail cheaply, before anything expensive starts."""

import dataclasses
import math
import pathlib
import shutil
from collections.abc import Callable

import jax
import optax
from numpyro import handlers

from bilo_ppl.inner.lower_level import AbstractSensitivity
from bilo_ppl.inner.sensitivity import ImplicitDifferentiation, PartialDerivative, ResidualGradient
from bilo_ppl.inner.solvers import AbstractInnerSolver, LevenbergMarquardt, OptaxSolver
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.network.operator_file import load_operator
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.pde.data import Observations, read_csv
from bilo_ppl.ppl.handlers import find_solutions
from bilo_ppl.run.model_file import ModelFile, load_model
from bilo_ppl.run.record import FILES
from bilo_ppl.run.settings import SAMPLERS, RunSettings

__all__ = ["Plan", "prepare"]

_CHOICES = {
    "sampler": SAMPLERS,
    "chain_method": ("vectorized", "sequential", "parallel"),
    "inner": ("lm", "adam"),
    "sensitivity": ("auto", "partial", "implicit", "residual-gradient"),
    "operator": ("fine-tuned", "numerical"),
    "init": ("start", "prior"),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run that has passed the checks."""

    settings: RunSettings
    file: ModelFile
    observations: Observations
    folder: pathlib.Path
    chain_method: str
    loaded: LocalOperator | None
    """The operator of ``--operator-file``."""
    numerical: AbstractSolutionOperator | None
    """The numerical operator, if it is the one to sample with."""
    solutions: tuple[str, ...]
    """Names of the model's solution sites."""
    notes: tuple[str, ...]
    """What will be done differently from what was asked."""

    def solver(self) -> AbstractInnerSolver:
        """The inner solver of sampling."""
        return _solver(self.settings)

    def fine_tuned(self, operator: LocalOperator) -> FineTuned:
        """A trained operator, with the inner solver and the sensitivity that were asked for."""
        rank, key = self.settings.rank, jax.random.key(self.settings.seed + 1)
        return FineTuned(  # pyright: ignore[reportCallIssue]
            operator=operator.with_lora(rank, key=key),
            solver=self.solver(),
            sensitivity=self.sensitivity(),
        )

    def sensitivity(self) -> AbstractSensitivity:
        """How the solution is differentiated, in pretraining (which rows there are) and after."""
        return _sensitivity(self.settings)

    def model(self, operator: AbstractSolutionOperator) -> Callable[..., None]:
        """The NumPyro model of the data ``(x, y, sigma)`` with an operator put in."""

        def model(x, y, sigma):
            self.file.model(operator, x, y, sigma)

        return model


def prepare(settings: RunSettings) -> Plan:
    """Check a run and make its folder.

    Raises a ``ValueError`` or a ``FileNotFoundError`` that says what is wrong and what to do. With
    ``overwrite``, the results of an earlier run in the folder are deleted.
    """
    _check_values(settings)
    file = load_model(settings.model)
    folder = settings.folder(file.name)
    _check_folder(folder, settings.overwrite)
    observations = _observations(settings, file)
    loaded = None
    if settings.fine_tuned and settings.operator_file is not None:
        loaded = load_operator(settings.operator_file, file.problem)
    numerical = None if settings.fine_tuned else _numerical(file)
    notes = []
    plan = Plan(
        settings,
        file,
        observations,
        folder,
        _chain_method(settings, notes),
        loaded,
        numerical,
        (),
        (),
    )
    operator = numerical or plan.fine_tuned(_untrained(plan))
    latent, solutions = _sites(plan, operator)
    absent = [name for name in file.start if name not in latent]
    if absent and settings.init == "start":
        notes.append(
            f"The model has no sample sites {absent}, only {latent}: what the pretrained theta "
            "does not determine starts at random."
        )
    _make_folder(folder)
    return dataclasses.replace(plan, solutions=tuple(solutions), notes=tuple(notes))


def _check_values(settings: RunSettings) -> None:
    for name, choices in _CHOICES.items():
        value = getattr(settings, name)
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.")
    least = {"chains": 1, "warmup": 0, "samples": 1, "rank": 0, "inner_limit": 0, "seed": 0}
    for name, smallest in least.items():
        if getattr(settings, name) < smallest:
            shown = name.replace("inner_limit", "max_inner_steps")
            raise ValueError(f"{shown} is {getattr(settings, name)}; the least is {smallest}.")
    if not (settings.tol > 0 and math.isfinite(settings.tol)):
        raise ValueError(f"tol is {settings.tol:g}; the tolerance on the loss must be positive.")


def _check_folder(folder: pathlib.Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another folder with --out.")
    if (folder / "run.json").exists() and not overwrite:
        raise ValueError(
            f"{folder} holds the results of another run; choose another folder with --out, or give "
            "--overwrite to replace them."
        )


def _make_folder(folder: pathlib.Path) -> None:
    """Make the folder without the results of an earlier run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "figures", ignore_errors=True)
        (folder / "figures").mkdir()
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder} ({error.strerror}); choose another folder with --out."
        ) from error


def _observations(settings: RunSettings, file: ModelFile) -> Observations:
    if settings.data is None:
        return file.observations(settings.data_seed)
    if not pathlib.Path(settings.data).is_file():
        raise FileNotFoundError(f"there is no data file {settings.data}.")
    return read_csv(settings.data, file.problem.domain, file.default_sigma)


def _numerical(file: ModelFile) -> AbstractSolutionOperator:
    if file.reference is None:
        raise ValueError(
            f"{file.path} defines no numerical operator (a function reference()); use --operator "
            "fine-tuned."
        )
    return file.reference()


def _chain_method(settings: RunSettings, notes: list[str]) -> str:
    devices = jax.local_device_count()
    if settings.chain_method == "parallel" and settings.chains > devices:
        notes.append(
            f"{settings.chains} chains in parallel need as many devices, and JAX has {devices}: "
            "the chains run one after another instead. On a CPU, set the environment variable "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={settings.chains}, or use "
            "--chain-method vectorized."
        )
        return "sequential"
    return settings.chain_method


def _untrained(plan: Plan) -> LocalOperator:
    """An operator with random weights: enough to check ranks and shapes."""
    if plan.loaded is not None:
        return plan.loaded
    return LocalOperator(plan.file.problem, plan.file.start, key=jax.random.key(0))


def _sites(plan: Plan, operator: AbstractSolutionOperator) -> tuple[list[str], list[str]]:
    """Names of the latent and of the solution sites; nothing is solved."""
    found = find_solutions()
    latent: list[str] = []

    def look():
        with found:
            seeded = handlers.seed(plan.model(operator), jax.random.key(0))
            trace = handlers.trace(seeded).get_trace(*plan.observations.model_args)
        latent.extend(
            name
            for name, site in trace.items()
            if site["type"] == "sample" and not site["is_observed"]
        )

    try:
        jax.eval_shape(look)
    except Exception as error:
        raise ValueError(
            f"{plan.file.path}: model(operator, x, y, sigma) fails on these data: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not found.sites or not latent:
        missing = "bilo_ppl.solution(...) call" if latent else "sample site without data"
        raise ValueError(
            f"{plan.file.path}: the model has no {missing}: there is nothing to infer."
        )
    return latent, list(found.sites)


def _solver(settings: RunSettings) -> AbstractInnerSolver:
    if settings.inner == "lm":
        return LevenbergMarquardt(tolerance=settings.tol, max_steps=settings.inner_limit)
    return OptaxSolver(
        optimiser=optax.adam(1e-3), tolerance=settings.tol, max_steps=settings.inner_limit
    )


def _sensitivity(settings: RunSettings) -> AbstractSensitivity:
    kinds = {
        "partial": PartialDerivative,
        "implicit": ImplicitDifferentiation,
        "residual-gradient": ResidualGradient,
    }
    return kinds[settings.chosen_sensitivity]()
