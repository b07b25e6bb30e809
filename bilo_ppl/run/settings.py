"""What a run is asked to do."""

import dataclasses
import pathlib

__all__ = ["SAMPLERS", "BadInputError", "RunFailedError", "RunSettings"]

SAMPLERS = ("nuts", "hmc", "bilo-nuts", "bilo-hmc")


class BadInputError(Exception):
    """The arguments, the model file or the data cannot be used; nothing was computed."""


class RunFailedError(Exception):
    """A stage did not reach what the next one needs; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Arguments of a run, as on the command line."""

    model: str
    """Path or short name of a model file."""
    data: str | None = None
    """CSV file; without one, the model's synthetic data of ``data_seed``."""
    data_seed: int = 0
    sampler: str = "nuts"
    chains: int = 4
    chain_method: str = "sequential"
    warmup: int = 500
    samples: int = 1000
    rank: int = 4
    """Rank of the increments that are fine-tuned; 0 for all weights."""
    tol: float = 1e-6
    """Tolerance on the lower-level loss."""
    inner: str = "lm"
    max_inner_steps: int | None = None
    """Limit for one solve; by default 2000 for "adam"; for "lm" 20, or 6 once adapted."""
    sensitivity: str = "auto"
    """"auto": partial for an adapted operator, else implicit with "lm", residual-gradient with "adam"."""
    seed: int = 0
    operator: str = "fine-tuned"
    operator_file: str | None = None
    """Load this operator instead of pretraining one."""
    adapt: bool = True
    certify: bool = True
    init: str = "start"
    out: str | None = None
    overwrite: bool = False
    accept_unconverged: bool = False
    quiet: bool = False

    @property
    def stateful(self) -> bool:
        """Whether the chain carries the weights along (the papers' algorithm)."""
        return self.sampler.startswith("bilo-")

    @property
    def fine_tuned(self) -> bool:
        """Whether the PDE is solved by a fine-tuned network."""
        return self.operator == "fine-tuned"

    @property
    def adapts(self) -> bool:
        """Whether the operator is adapted before sampling."""
        return self.adapt and self.fine_tuned and not self.stateful

    @property
    def chosen_sensitivity(self) -> str:
        """The sensitivity, with "auto" resolved."""
        if self.sensitivity != "auto":
            return self.sensitivity
        if self.adapts:
            return "partial"
        return "implicit" if self.inner == "lm" else "residual-gradient"

    @property
    def inner_limit(self) -> int:
        """Largest number of inner steps in one solve."""
        # An adapted operator rarely needs a step; what it cannot reach in a few is far away.
        default = 2000 if self.inner == "adam" else 6 if self.adapts else 20
        return default if self.max_inner_steps is None else self.max_inner_steps

    def folder(self, model_name: str) -> pathlib.Path:
        """Where the results go."""
        return pathlib.Path(self.out or pathlib.Path("runs") / f"{model_name}-{self.sampler}")
