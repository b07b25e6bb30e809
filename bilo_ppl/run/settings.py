"""What a run is asked to do."""

import dataclasses
import pathlib

__all__ = ["SAMPLERS", "RunFailed", "RunSettings"]

SAMPLERS = ("nuts", "hmc", "bilo-nuts", "bilo-hmc")


class RunFailed(Exception):
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
    chain_method: str = "vectorized"
    warmup: int = 500
    samples: int = 1000
    rank: int = 4
    """Rank of the increments that are fine-tuned; 0 for all weights."""
    tol: float = 1e-6
    """Tolerance on the lower-level loss."""
    inner: str = "lm"
    max_inner_steps: int | None = None
    """Limit for one solve; by default 20 for "lm", 2000 for "adam"."""
    sensitivity: str = "residual-gradient"
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
    def inner_limit(self) -> int:
        """Largest number of inner steps in one solve."""
        default = 20 if self.inner == "lm" else 2000
        return default if self.max_inner_steps is None else self.max_inner_steps

    def folder(self, model_name: str) -> pathlib.Path:
        """Where the results go."""
        return pathlib.Path(self.out or pathlib.Path("runs") / f"{model_name}-{self.sampler}")
