"""What a point estimation is asked to do."""

import dataclasses
import pathlib

import optax

from bilo_ppl.estimate import gauss_newton
from bilo_ppl.run.settings import RunSettings

__all__ = ["METHODS", "OPTIMIZERS", "MapSettings"]

METHODS = ("nested", "simultaneous")
OPTIMIZERS = ("lbfgs", "gauss-newton", "adam", "sgd")


@dataclasses.dataclass(frozen=True)
class MapSettings:
    """Arguments of ``bilo-ppl map``, as on the command line."""

    model: str
    data: str | None = None
    data_seed: int = 0
    seeds: int = 5
    """Data sets: noise of the seeds ``data_seed``, ``data_seed + 1``, ..."""
    noise: float | None = None
    """Standard deviation of the noise of the synthetic data; None: the model's own."""
    method: str = "nested"
    optimizer: str | None = None
    """None: "lbfgs" for "nested", "adam" for "simultaneous"."""
    learning_rate: float = 1e-2
    steps: int | None = None
    """Largest number of outer steps; None: 500 for "nested", 5000 for "simultaneous"."""
    rank: int = 4
    tol: float = 1e-6
    inner: str | None = None
    """None: "lm" for "nested", "adam" for "simultaneous"."""
    max_inner_steps: int | None = None
    sensitivity: str = "auto"
    seed: int = 0
    operator: str = "fine-tuned"
    operator_file: str | None = None
    out: str | None = None
    overwrite: bool = False
    quiet: bool = False

    def check(self) -> None:
        """Raise a ``ValueError`` for a value that cannot be meant."""
        for name, value, choices in (
            ("method", self.method, METHODS),
            ("optimizer", self.chosen_optimizer, OPTIMIZERS),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.")
        for name, value in (("seeds", self.seeds), ("steps", self.chosen_steps)):
            if value < 1:
                raise ValueError(f"{name} is {value}; the least is 1.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate:g}; it must be positive.")
        if self.noise is not None and not 0 <= self.noise < float("inf"):
            raise ValueError(f"noise is {self.noise:g}; a standard deviation is at least 0.")
        if self.noise is not None and self.data is not None:
            raise ValueError("--noise is for synthetic data; the file of --data has its own sigma.")
        if self.sensitivity == "partial":
            raise ValueError(
                "sensitivity is 'partial', whose gradient is right for an adapted operator only; use "
                "implicit or residual-gradient."
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
    def chosen_optimizer(self) -> str:
        """The optimiser, with the default filled in."""
        return self.optimizer or ("lbfgs" if self.method == "nested" else "adam")

    @property
    def chosen_steps(self) -> int:
        """The limit of steps, with the default filled in."""
        default = 500 if self.method == "nested" else 5000
        return default if self.steps is None else self.steps

    @property
    def data_seeds(self) -> list[int]:
        """Seeds of the synthetic data; a file is one data set."""
        count = 1 if self.data is not None else self.seeds
        return [self.data_seed + i for i in range(count)]

    def make_optimizer(self) -> optax.GradientTransformation | None:
        """The outer optimiser; None for the default of `find_map`."""
        if self.chosen_optimizer == "lbfgs":
            return None
        if self.chosen_optimizer == "gauss-newton":
            return gauss_newton()
        return {"adam": optax.adam, "sgd": optax.sgd}[self.chosen_optimizer](self.learning_rate)

    def as_run(self) -> RunSettings:
        """The part that a run of a sampler has too: model, data, operator, results."""
        stem = pathlib.Path(self.model).stem
        default = str(pathlib.Path("runs") / f"{stem}-map-{self.method}")
        return RunSettings(
            model=self.model,
            data=self.data,
            data_seed=self.data_seed,
            rank=self.rank,
            tol=self.tol,
            inner=self.inner or ("lm" if self.method == "nested" else "adam"),
            max_inner_steps=self.max_inner_steps,
            sensitivity=self.sensitivity,
            seed=self.seed,
            operator=self.operator,
            operator_file=self.operator_file,
            adapt=False,
            certify=False,
            out=self.out or default,
            overwrite=self.overwrite,
            quiet=self.quiet,
        )
