"""Everything about a run that can fail cheaply, before anything expensive starts."""

import pathlib
from typing import TypeVar

import jax

from bilo_ppl._files import is_file
from bilo_ppl.network.operator_file import load_operator
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.pde.data import Observations
from bilo_ppl.run.folder import RunFolder
from bilo_ppl.run.model_file import ModelFile
from bilo_ppl.run.model_look import looked_at, made_reference
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
        if not is_file(settings.operator_file):
            raise FileNotFoundError(f"there is no operator file {settings.operator_file}.")
        loaded = load_operator(
            pathlib.Path(settings.operator_file),
            file.problem,
            network=file.architecture.get("network"),
        )
    numerical = None if settings.fine_tuned else _numerical(file)
    tolerance = USUAL_TOLERANCE if settings.tol is None else settings.tol
    plan = Plan(
        settings,
        file,
        sizes,
        observations,
        folder,
        loaded,
        numerical,
        latent=(),
        scalars=0,
        first_guess={},
        chains_near={},
        solutions=(),
        data_kind="values",
        tolerance=tolerance,
    )
    return looked_at(plan)


def _check_devices(settings: CommonSettings) -> None:
    if settings.devices > jax.device_count():
        raise ValueError(
            f"--devices {settings.devices}: JAX has {jax.device_count()} here ({jax.default_backend()}). "
            "To make several of the cores of a CPU, put "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={settings.devices} in the environment."
        )


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
    if not is_file(settings.data):
        raise FileNotFoundError(f"there is no data file {settings.data}.")
    return file.read_data(settings.data)


def _numerical(file: ModelFile) -> AbstractSolutionOperator:
    if file.reference is None:
        raise ValueError(
            f"{file.path} defines no numerical operator (a function reference()); use --operator "
            "fine-tuned."
        )
    return made_reference(file)
