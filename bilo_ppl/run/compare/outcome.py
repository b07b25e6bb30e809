"""What a method has found, and what that has cost; from process to process as JSON and arrays."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bilo_ppl.run.record import Clock, plain

__all__ = ["Outcome", "Spent", "save_arrays"]

RESULT, ARRAYS = "result.json", "arrays.npz"

TOLD = ("diverging", "evaluations", "training", "notes", "settings")
"""What goes from process to process as it is."""


def save_arrays(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name as an ``.npz`` file."""
    plain_arrays: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    with open(path, "wb") as file:
        np.savez_compressed(file, **plain_arrays)


class Spent:
    """CPU seconds by stage, compilation apart."""

    def __init__(self):
        self.cpu: dict[str, float] = {}
        self.compilation = 0.0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        clock = Clock()
        try:
            yield
        finally:
            self.add(name, clock.elapsed()[0], clock.compilation())

    def add(self, name: str, cpu: float, compilation: float) -> None:
        """Add seconds that were measured elsewhere."""
        self.cpu[name] = round(self.cpu.get(name, 0.0) + cpu, 3)
        self.compilation += compilation


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Draws or an estimate, and the solution there."""

    values: Mapping[str, Any]
    """Latent sites: means of the draws, or the estimate."""
    u: Any
    """The method's solution at these values, at `compared_points` of the problem; None if unknown."""
    samples: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Draws by site, ``(chains, draws, ...)``; empty for an estimate."""
    diverging: int = 0
    evaluations: int | None = None
    """Evaluations of U with its gradient (of it alone, where a sampler takes none), in sampling or a
    descent."""
    training: str = ""
    """What was solved numerically beforehand to learn from."""
    notes: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the method was done with, by name, for a reader."""

    def write(self, folder: str, spent: Spent, peak_megabytes: float) -> None:
        """Write it for the process that has started this one."""
        arrays = {f"samples/{name}": value for name, value in self.samples.items()}
        arrays |= {f"values/{name}": value for name, value in self.values.items()}
        if self.u is not None:
            arrays["u"] = self.u
        where = pathlib.Path(folder)
        save_arrays(where / ARRAYS, arrays)
        told = {name: getattr(self, name) for name in TOLD}
        costs = {
            "cpu_seconds": spent.cpu,
            "compile_seconds": spent.compilation,
            "peak_megabytes": peak_megabytes,
        }
        (where / RESULT).write_text(json.dumps(plain({"told": told, "costs": costs})))

    @classmethod
    def read(cls, folder: str) -> tuple["Outcome", dict[str, Any]]:
        """The outcome and its costs; raises an ``OSError`` where the process has left none."""
        where = pathlib.Path(folder)
        found = json.loads((where / RESULT).read_text())
        with np.load(where / ARRAYS) as arrays:
            kept = {name: arrays[name] for name in arrays.files}

        def named(prefix):
            return {n.removeprefix(prefix): v for n, v in kept.items() if n.startswith(prefix)}

        outcome = cls(named("values/"), kept.get("u"), named("samples/"), **found["told"])
        return outcome, found["costs"]
