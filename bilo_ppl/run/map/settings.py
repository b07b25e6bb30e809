"""What ``bilo-ppl map`` is asked to do."""

# ruff: noqa: RUF009 (`option` makes a field, as `dataclasses.field` does)

import dataclasses
import os
from typing import ClassVar

import optax

from bilo_ppl.estimate import backtracking_lbfgs, gauss_newton
from bilo_ppl.run.options import changed, option
from bilo_ppl.run.settings import OPERATOR, RESULTS, CommonSettings

__all__ = ["MapSettings"]

ESTIMATE = "point estimate"

USUAL_SEEDS, USUAL_RATE = 5, 1e-2
"""Number of data sets, and step of a gradient descent."""


@dataclasses.dataclass(frozen=True)
class MapSettings(CommonSettings):
    """Arguments of ``bilo-ppl map``, as on the command line.

    Raises a `BadInputError` for values that cannot be meant, alone or together.

    Examples:
        >>> from bilo_ppl.run import MapSettings
        >>> settings = MapSettings("poisson", method="simultaneous", data_seed=3, seeds=2)
        >>> settings.data_seeds, settings.chosen_optimizer
        ([3, 4], 'adam')
        >>> settings.output_folder("poisson").as_posix()
        'runs/poisson-map-simultaneous'
    """

    COMMAND: ClassVar[str] = "map"
    GROUPS: ClassVar[tuple[str, ...]] = (ESTIMATE, OPERATOR, RESULTS)
    FILES: ClassVar[tuple[str, ...]] = ("map.json", "map.csv", "estimate-*.eqx", "figures/*.png")

    seeds: int | None = option(
        None,
        least=1,
        most=10**5,
        unset="5",
        group=ESTIMATE,
        help="number of synthetic data sets: of the seeds DATA_SEED, DATA_SEED + 1, ...",
    )
    noise: float | None = option(
        None,
        least=0,
        rule="a standard deviation is at least 0",
        unset="the model's own",
        group=ESTIMATE,
        help="noise sd of the synthetic data",
    )
    method: str = option(
        "nested",
        choices=("nested", "simultaneous"),
        group=ESTIMATE,
        help="solve the PDE to its tolerance at every step, or descend on weights and theta together",
    )
    optimizer: str | None = option(
        None,
        choices=("lbfgs", "gauss-newton", "adam", "sgd"),
        unset="gauss-newton or lbfgs, by the problem, for nested; adam for simultaneous",
        group=ESTIMATE,
        help="of theta",
    )
    learning_rate: float | None = option(
        None,
        positive=True,
        unset="0.01",
        group=ESTIMATE,
        help="of adam or sgd, in unconstrained space",
    )
    steps: int | None = option(
        None,
        least=1,
        most=10**8,
        unset="500 for nested, 5000 for simultaneous",
        group=ESTIMATE,
        help="limit of the steps",
    )
    inner: str | None = changed(
        CommonSettings, "inner", unset="lm for nested, adam for simultaneous"
    )
    max_inner_steps: int | None = changed(
        CommonSettings, "max_inner_steps", unset="20 for lm, 2000 for adam"
    )
    sensitivity: str = changed(
        CommonSettings,
        "sensitivity",
        default="auto",
        choices=("auto", "implicit", "residual-gradient"),
        help="how the solution is differentiated with respect to theta; auto: implicit with lm, "
        "residual-gradient with adam",
    )
    out: str | os.PathLike | None = changed(CommonSettings, "out", unset="runs/MODEL-map-METHOD")

    def check(self) -> None:
        """Raise a ``ValueError`` for a value, or values together, that cannot be meant."""
        if self.sensitivity == "partial":
            raise ValueError(
                "sensitivity is 'partial', whose gradient is right for an adapted operator only; use "
                "implicit or residual-gradient."
            )
        super().check()
        if self.noise is not None and self.data is not None:
            raise ValueError("--noise is for synthetic data; the file of --data has its own sigma.")
        if self.seeds is not None and self.data is not None:
            raise ValueError(
                "--seeds counts sets of synthetic data; the file of --data is one: leave one of them out."
            )
        if self.learning_rate is not None and self.chosen_optimizer not in ("adam", "sgd"):
            raise ValueError(
                "--learning-rate is that of adam or sgd, and the steps of "
                f"{'lbfgs and gauss-newton' if self.optimizer is None else self.optimizer} have none: "
                "leave it out, or add --optimizer adam."
            )
        if self.method == "simultaneous" and self.operator == "numerical":
            raise ValueError(
                "a numerical operator has no weights to descend on; use --method nested."
            )
        if self.method == "simultaneous" and self.chosen_optimizer in ("lbfgs", "gauss-newton"):
            raise ValueError(
                f"{self.chosen_optimizer} needs U to be a function of theta, which it is not with "
                "--method simultaneous; use --optimizer adam."
            )

    @property
    def adapts(self) -> bool:
        """A descent goes on from the pretrained operator."""
        return False

    @property
    def may_take_features(self) -> bool:
        """The papers' simultaneous descent is one on all weights."""
        return super().may_take_features and self.method == "nested"

    @property
    def samples_posterior(self) -> bool:
        """An estimate may have flat priors."""
        return False

    @property
    def tolerates_unconverged(self) -> bool:
        """An estimate is of solutions of the PDE."""
        return False

    @property
    def chosen_inner(self) -> str:
        """The inner solver, with the default filled in."""
        return self.inner or ("lm" if self.method == "nested" else "adam")

    @property
    def chosen_optimizer(self) -> str:
        """The optimiser, with the default filled in; "auto" where `find_map` chooses by the problem."""
        return self.optimizer or ("auto" if self.method == "nested" else "adam")

    @property
    def chosen_steps(self) -> int:
        """The limit of steps, with the default filled in."""
        default = 500 if self.method == "nested" else 5000
        return default if self.steps is None else self.steps

    @property
    def data_seeds(self) -> list[int]:
        """Seeds of the synthetic data; a file is one data set."""
        count = 1 if self.data is not None else self.seeds or USUAL_SEEDS
        return [self.data_seed + i for i in range(count)]

    def default_folder(self, model_name: str) -> str:
        """``MODEL-map-METHOD``."""
        return f"{model_name}-map-{self.method}"

    def make_optimizer(self) -> optax.GradientTransformation | None:
        """The outer optimiser; None for the default of `find_map`."""
        if self.chosen_optimizer == "auto":
            return None
        if self.chosen_optimizer == "lbfgs":
            return backtracking_lbfgs()
        if self.chosen_optimizer == "gauss-newton":
            return gauss_newton()
        rate = self.learning_rate or USUAL_RATE
        return {"adam": optax.adam, "sgd": optax.sgd}[self.chosen_optimizer](rate)
