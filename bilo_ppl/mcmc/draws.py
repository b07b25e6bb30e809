"""Draws of a model's sites and the statistics of their transitions, in one form for all samplers."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from bilo_ppl.mcmc import _numpyro

__all__ = ["Draws"]


@dataclasses.dataclass(frozen=True)
class Draws:
    """Draws and statistics by name, arrays ``(chains, draws, ...)``, of a model with its arguments.

    Examples:
        >>> {name: values.shape for name, values in draws.items()}
        {'r': (2, 200)}
        >>> "diverging" in run.statistics, run.get_samples()["r"].shape
        (True, (400,))
        >>> bilo.Draws.of(run) is run
        True
    """

    model: Callable | None
    """The NumPyro model; None if it is not known."""
    args: tuple
    kwargs: Mapping[str, Any]
    samples: Mapping[str, Any]
    """Values of the latent and deterministic sites, in the space of the model."""
    statistics: Mapping[str, Any]
    """What the sampler recorded of each draw, such as "diverging"; empty for independent draws."""

    @classmethod
    def of(cls, run: Any) -> "Draws":
        """The draws of a finished `numpyro.infer.MCMC`; `Draws` are given back.

        Raises a ``ValueError`` if they have no names, as where a potential was sampled without a model.
        """
        if isinstance(run, cls):
            return run
        samples = jax.device_get(run.get_samples(group_by_chain=True))
        if not isinstance(samples, Mapping) or not samples:
            raise ValueError("the run has no draws by site name; sample a NumPyro model.")
        args, kwargs = _numpyro.arguments_of(run)
        statistics = run.get_extra_fields(group_by_chain=True)
        return cls(run.sampler.model, args, kwargs, samples, statistics)

    def get_samples(self, group_by_chain: bool = False) -> Mapping[str, Any]:
        """Draws by site, as from `numpyro.infer.MCMC`: flattened to ``(chains * draws, ...)``, or not.

        Examples:
            >>> run.get_samples()["r"].shape, run.get_samples(group_by_chain=True)["r"].shape
            ((400,), (2, 200))
        """
        return self.samples if group_by_chain else _flattened(self.samples)

    def get_extra_fields(self, group_by_chain: bool = False) -> Mapping[str, Any]:
        """Statistics by name, as from `numpyro.infer.MCMC`.

        Examples:
            >>> run.get_extra_fields()["diverging"].shape
            (400,)
        """
        return self.statistics if group_by_chain else _flattened(self.statistics)


def _flattened(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), dict(arrays))
