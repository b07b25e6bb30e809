"""What every command is asked: a model, data, a solution operator, and a folder for the results."""

# ruff: noqa: RUF009 (`option` makes a field, as `dataclasses.field` does)

import abc
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from bilo_ppl.run.options import check_options, option

__all__ = ["BadInputError", "CommonSettings", "RunFailedError", "refusing"]


class BadInputError(ValueError):
    """The arguments, the model file or the data cannot be used; nothing was computed or written."""


class RunFailedError(Exception):
    """A stage did not reach what the next one needs; the message says what to do."""


@contextmanager
def refusing() -> Iterator[None]:
    """Make a `BadInputError` of what a check finds wrong, or cannot read."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadInputError(str(error)) from error


OPERATOR, RESULTS = "solution operator", "results"
"""Titles of groups in the help."""


@dataclasses.dataclass(frozen=True)
class CommonSettings(abc.ABC):
    """Arguments that all commands have, as on the command line.

    A value that cannot be meant is a `BadInputError`, whoever gives it.
    """

    COMMAND: ClassVar[str]
    """Name of the command."""
    GROUPS: ClassVar[tuple[str, ...]]
    """Titles of the groups in the help, in their order."""
    FILES: ClassVar[tuple[str, ...]]
    """Names of the files that the command writes, besides run.json and operators."""

    model: str | os.PathLike = option(
        help="path of a model file, or short name such as nonlinear_poisson"
    )
    data: str | os.PathLike | None = option(
        None,
        metavar="FILE",
        help="CSV file with columns for the coordinates, y, and optionally sigma; without it, the "
        "model's synthetic data",
    )
    data_seed: int = option(0, least=0, help="seed of the synthetic data")
    seed: int = option(0, least=0, help="seed of everything but the data")
    operator: str = option(
        "fine-tuned",
        choices=("fine-tuned", "numerical"),
        group=OPERATOR,
        help="a fine-tuned network, or the model file's numerical solver",
    )
    operator_file: str | os.PathLike | None = option(
        None,
        metavar="FILE",
        group=OPERATOR,
        help="load this operator instead of pretraining one",
    )
    points: int | None = option(
        None,
        least=1,
        unset="the model file's, else by dimension: 51 in one, 81 of time alone, 1000 in two",
        group=OPERATOR,
        help="number of collocation points, in the place of the model file's: fewer are an even part of "
        "these, more are these and others scattered between, so that they lie where these do; where the "
        "file states none they are even in the whole domain, time included",
    )
    width: int | None = option(
        None,
        least=1,
        unset="the model file's, else 64",
        group=OPERATOR,
        help="units in each hidden layer of the network",
    )
    depth: int | None = option(
        None,
        least=1,
        unset="the model file's, else 2, in three dimensions 3",
        group=OPERATOR,
        help="hidden layers of the network",
    )
    fourier: int | None = option(
        None,
        least=0,
        unset="the model file's, else 0",
        group=OPERATOR,
        help="random Fourier features in which the network sees the point, for oscillating solutions",
    )
    tol: float | None = option(
        None,
        positive=True,
        rule="the tolerance on the loss must be positive",
        unset="from the noise: that at which u is right to 0.05 of its sd at the data; 1e-6 with adam",
        group=OPERATOR,
        help="tolerance on the PDE loss",
    )
    rank: int = option(
        4, least=0, group=OPERATOR, help="rank of the fine-tuned increments; 0: all weights"
    )
    fine_tune: str = option(
        "increments",
        choices=("increments", "output-layer"),
        group=OPERATOR,
        help="what a solve may change: low-rank increments, or the output layer alone, on random "
        "features: for equations linear in u, with many unknowns or unknown functions",
    )
    inner: str | None = option(
        "lm",
        choices=("lm", "adam"),
        group=OPERATOR,
        help="inner solver: Levenberg-Marquardt or Adam",
    )
    max_inner_steps: int | None = option(
        None,
        least=0,
        unset="20 for lm, 6 once adapted, 2000 for adam",
        group=OPERATOR,
        help="limit of one solve",
    )
    sensitivity: str = option(
        "auto",
        choices=("auto", "partial", "implicit", "residual-gradient"),
        group=OPERATOR,
        help="how the solution is differentiated with respect to theta; auto: partial once adapted, "
        "else implicit with lm, residual-gradient with adam",
    )
    devices: int = option(
        1,
        least=0,
        group=OPERATOR,
        help="devices over which the rows of pretraining and adaptation are spread; 0: all that JAX has",
    )
    out: str | os.PathLike | None = option(
        None, metavar="DIR", group=RESULTS, help="folder of the results"
    )
    overwrite: bool = option(
        False, group=RESULTS, help="replace the results of an earlier run there"
    )
    resume: bool = option(
        False,
        group=RESULTS,
        help="go on with the run in the folder where it was interrupted, with the same settings, or "
        "extend one that has ended",
    )
    quiet: bool = option(False, group=RESULTS, help="print warnings and errors only")

    def __post_init__(self):
        with refusing():
            self.check()

    def check(self) -> None:
        """Raise a ``ValueError`` for a value that cannot be meant."""
        check_options(self)
        if self.resume and self.overwrite:
            raise ValueError(
                "--resume goes on with a run, and --overwrite replaces it: give one of them."
            )
        sizes = [*self.architecture, *(["points"] if self.points is not None else [])]
        if sizes and not self.pretrains:
            raise ValueError(
                f"--{' and --'.join(sizes)} would shape a network to pretrain, and there is "
                "none: the operator is numerical, or comes from a file."
            )
        if self.devices != 1 and not (self.pretrains or self.adapts):
            raise ValueError(
                "--devices would spread pretraining and adaptation, and there is neither: the operator "
                "is numerical, or comes from a file."
            )
        if self.output_layer:
            self._check_output_layer()

    def _check_output_layer(self) -> None:
        others = {"depth": self.depth, "fourier": self.fourier, "operator-file": self.operator_file}
        if given := [name for name, value in others.items() if value is not None]:
            raise ValueError(
                f"--fine-tune output-layer takes one layer of random features; --{given[0]} cannot be "
                "combined with it, --width is their number."
            )
        if self.chosen_inner != "lm" or not self.fine_tuned or self.sensitivity != "auto":
            raise ValueError(
                "--fine-tune output-layer solves in one least-squares step and has a derivative of its "
                "own: leave --operator, --inner and --sensitivity as they are."
            )

    @property
    def fine_tuned(self) -> bool:
        """Whether the PDE is solved by a fine-tuned network."""
        return self.operator == "fine-tuned"

    @property
    def pretrains(self) -> bool:
        """Whether a network is pretrained here."""
        return self.fine_tuned and self.operator_file is None

    @property
    def output_layer(self) -> bool:
        """Whether the output layer is all that is fine-tuned."""
        return self.fine_tune == "output-layer"

    @property
    def architecture(self) -> dict[str, int]:
        """What is given of the network's shape: arguments of `LocalOperator`."""
        given = {name: getattr(self, name) for name in ("width", "depth", "fourier")}
        return {name: value for name, value in given.items() if value is not None}

    @property
    @abc.abstractmethod
    def adapts(self) -> bool:
        """Whether the operator is adapted to the posterior."""

    @property
    @abc.abstractmethod
    def samples_posterior(self) -> bool:
        """Whether the posterior is sampled, so that there must be one."""

    @property
    @abc.abstractmethod
    def tolerates_unconverged(self) -> bool:
        """Whether a solve that misses the tolerance may stand."""

    @property
    @abc.abstractmethod
    def chosen_inner(self) -> str:
        """The inner solver, with the default filled in."""

    @abc.abstractmethod
    def default_folder(self, model_name: str) -> str:
        """Name of the folder in ``runs/`` for the results of a model."""

    @property
    def chosen_sensitivity(self) -> str:
        """The sensitivity, with "auto" resolved."""
        if self.sensitivity != "auto":
            return self.sensitivity
        if self.adapts:
            return "partial"
        return "implicit" if self.chosen_inner == "lm" else "residual-gradient"

    @property
    def inner_limit(self) -> int:
        """Largest number of inner steps in one solve."""
        # An adapted operator rarely needs a step; what it cannot reach in a few is far away.
        default = 2000 if self.chosen_inner == "adam" else 6 if self.adapts else 20
        return default if self.max_inner_steps is None else self.max_inner_steps

    @property
    def written(self) -> tuple[str, ...]:
        """Names of all files that the command may write, as patterns relative to the folder."""
        operators = ("operator.eqx",) * self.pretrains + ("operator-adapted.eqx",) * self.adapts
        return ("run.json", "checkpoint.bin", *operators, *self.FILES)

    def output_folder(self, model_name: str) -> pathlib.Path:
        """Where the results go."""
        return pathlib.Path(self.out or pathlib.Path("runs") / self.default_folder(model_name))
