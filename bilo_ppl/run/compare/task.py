"""What one process is to do: a model, a data set, a method; written for it as JSON."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax

from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.pde.data import Observations
from bilo_ppl.ppl.data_sites import data_kind
from bilo_ppl.ppl.look import look_at
from bilo_ppl.ppl.site_values import site_values
from bilo_ppl.run.compare.outcome import Spent
from bilo_ppl.run.model_file import ModelFile, load_model
from bilo_ppl.run.model_look import made_reference

__all__ = ["Task"]

FILE = "task.json"


@dataclasses.dataclass(frozen=True)
class Task:
    """One method on one data set."""

    method: str
    model: str
    data: str | None
    data_seed: int
    noise: float | None
    seed: int
    chains: int
    warmup: int
    samples: int
    folder: str
    """Where the process may write."""

    def write(self) -> None:
        """Write it for a process to read."""
        path = pathlib.Path(self.folder) / FILE
        path.write_text(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, folder: str) -> "Task":
        """What `write` has written."""
        return cls(**json.loads((pathlib.Path(folder) / FILE).read_text()))

    @cached_property
    def file(self) -> ModelFile:
        """The model file, with the model whose posterior is meant."""
        return load_model(self.model).for_sampling().with_noise(self.noise)

    @cached_property
    def observations(self) -> Observations:
        """The data."""
        if self.data is not None:
            return self.file.read_data(self.data)
        return self.file.observations(self.data_seed)

    @cached_property
    def spent(self) -> Spent:
        """CPU seconds by stage."""
        return Spent()

    def key(self, number: int) -> jax.Array:
        """A random key of its own for each purpose."""
        return jax.random.fold_in(jax.random.key(self.seed), number)

    @cached_property
    def reference(self) -> AbstractSolutionOperator:
        """The numerical operator; raises a ``ValueError`` where the file has none."""
        if self.file.reference is None:
            raise ValueError(
                f"{self.file.path} defines no numerical operator (a function reference())."
            )
        return made_reference(self.file)

    def bound(self, operator: AbstractSolutionOperator) -> Callable[..., None]:
        """The model of the data alone, with an operator put in."""

        def model(x, y, sigma, **kwargs):
            self.file.model(operator, x, y, sigma, **kwargs)

        return model

    def problem(self) -> dict[str, Any]:
        """What is solved for, and from which data, for a reader."""
        source = self.data or f"synthetic, seed {self.data_seed}"
        unknowns = tuple(self.file.problem.parameters)
        data = f"{self.described()} ({source})"
        return {**self.file.described(), "unknowns": unknowns, "data": data}

    def described(self) -> str:
        """The data in a line; a model is looked at with its numerical operator, if there is one."""
        args, kwargs = self.arguments
        if self.file.reference is None:
            return str(self.observations)
        look = look_at(self.bound(self.reference), args, kwargs)
        return self.observations.described(data_kind(look))

    @property
    def stated_sizes(self) -> dict[str, int]:
        """The numbers that the model file states of a network's shape."""
        return {n: v for n, v in self.file.architecture.items() if isinstance(v, int)}

    @property
    def arguments(self) -> tuple[tuple, dict[str, Any]]:
        """What the model gets besides an operator."""
        return self.observations.model_args, self.observations.model_kwargs

    def first_values(self, operator: AbstractSolutionOperator) -> dict[str, Any]:
        """Values of latent sites to start near: the file's ``start``, and ``init`` before it."""
        args, kwargs = self.arguments
        latent = look_at(self.bound(operator), args, kwargs).latent
        return {**site_values(self.file.start, latent), **site_values(self.file.init, latent)}
