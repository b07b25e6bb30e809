"""What every command is asked: a model, data, a solution operator, and a folder for the results."""

# ruff: noqa: RUF009 (`option` makes a field, as `dataclasses.field` does)

import abc
import dataclasses
import os
import pathlib
from typing import ClassVar

from bilo_ppl.run.combinations import check_together
from bilo_ppl.run.errors import BadInputError, RunFailedError, refusing
from bilo_ppl.run.options import check_options, option

__all__ = ["BadInputError", "CommonSettings", "RunFailedError", "refusing"]


LARGEST_SEED = 2**32 - 1
"""Of all generators; a stage adds a small number to the seed."""

OPERATOR, RESULTS = "solution operator", "results"
"""Titles of groups in the help."""

STEERING = (
    *("width", "depth", "fourier", "tol", "rank"),
    *("inner", "max_inner_steps", "sensitivity", "devices"),
)
"""Options that say how a network is shaped, trained or fine-tuned."""


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
        help="path of a model file, or short name such as nonlinear_poisson. A model file is Python, and "
        "runs as a program of yours: take none that you would not run. No other file can run anything"
    )
    data: str | os.PathLike | None = option(
        None,
        metavar="FILE",
        help="CSV file with columns for the coordinates, y, and optionally sigma; without it, the "
        "model's synthetic data",
    )
    data_seed: int = option(0, least=0, most=LARGEST_SEED, help="seed of the synthetic data")
    seed: int = option(0, least=0, most=LARGEST_SEED, help="seed of everything but the data")
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
        most=10**6,
        unset="the model file's, else by dimension: 51 in one, 81 of time alone, 1000 in two",
        group=OPERATOR,
        help="number of collocation points, in the place of the model file's: fewer are an even part of "
        "these, more are these and others scattered between, so that they lie where these do; where the "
        "file states none they are even in the whole domain, time included",
    )
    width: int | None = option(
        None,
        least=1,
        most=10**4,
        unset="the model file's, else 64",
        group=OPERATOR,
        help="units in each hidden layer of the network",
    )
    depth: int | None = option(
        None,
        least=1,
        most=100,
        unset="the model file's, else 2, in three dimensions 3",
        group=OPERATOR,
        help="hidden layers of the network",
    )
    fourier: int | None = option(
        None,
        least=0,
        most=10**4,
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
        4,
        least=0,
        most=10**4,
        group=OPERATOR,
        help="rank of the fine-tuned increments; 0: all weights",
    )
    fine_tune: str = option(
        "auto",
        choices=("auto", "increments", "output-layer"),
        group=OPERATOR,
        help="what a solve may change: low-rank increments of a trained network, or the output layer "
        "alone, on random features. auto: the output layer where features solve as well as the "
        "noise asks, else increments, as where an option shapes them",
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
        most=10**6,
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
        most=10**6,
        group=OPERATOR,
        help="devices over which the rows of pretraining and adaptation are spread; 0: all that JAX has",
    )
    out: str | os.PathLike | None = option(
        None, metavar="DIR", group=RESULTS, help="folder of the results"
    )
    overwrite: bool = option(
        False, group=RESULTS, help="replace the results of an earlier run there"
    )
    strict: bool = option(
        False, group=RESULTS, help="exit with status 3 where the verdict on the results is DOUBTFUL"
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
        check_together(self)

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
    def may_take_features(self) -> bool:
        """Whether the output layer may be tried: no option shapes a network, or how it is solved for."""
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        left = all(getattr(self, name) == usual[name] for name in STEERING)
        return self.fine_tune == "auto" and self.pretrains and left

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
