"""What all kernels of this package share: NumPyro's interface, and where a chain begins."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from bilo_ppl.mcmc._numpyro import MCMCKernel, is_prng_key
from bilo_ppl.mcmc.initial_position import InitialPosition, find_initial_position

__all__ = ["ModelKernel", "StartingKernel", "split_keys"]


class ModelKernel(MCMCKernel):
    """A kernel of a NumPyro model, whose draws are unconstrained values by site."""

    _num_warmup: int | None = None
    """Transitions of warm-up; None before ``init``."""

    @property
    def sample_field(self) -> str:
        """Where `MCMC` finds the draw."""
        return "z"

    @property
    def _sample_fn(self) -> Callable | None:
        """NumPyro's `MCMC` calls `init` anew, even for a chain that it resumes, if this is None."""
        return None if self._num_warmup is None else self.sample

    def _warmup(self) -> int:
        """Transitions of warm-up. Raises a ``RuntimeError`` before ``init``."""
        if self._num_warmup is None:
            raise RuntimeError(f"{type(self).__name__}: call init before sample.")
        return self._num_warmup


class StartingKernel(ModelKernel):
    """A kernel that finds the start of its chains itself, without solving."""

    _start: InitialPosition | None = None

    def __init__(self, model: Callable, init_strategy: Any):
        self._model, self._init_strategy = model, init_strategy

    @property
    def model(self) -> Callable:
        """The NumPyro model."""
        return self._model

    def postprocess_fn(self, model_args: tuple, model_kwargs: Mapping[str, Any]) -> Callable:
        """Map unconstrained values to the model's sites.

        Without deterministic sites no solve takes place. A deterministic site that depends on the
        solution is recomputed from the operator's stored state, a solve for each draw.
        """
        if self._start is None:
            return lambda z: z
        return self._start.postprocess_fn(*model_args, **model_kwargs)

    def _begin(
        self,
        key: Any,
        num_warmup: int,
        init_params: Any,
        model_args: tuple,
        model_kwargs: Mapping[str, Any],
    ) -> Any:
        """Unconstrained values at which chains begin, by site: those given, or found for these keys."""
        self._start = find_initial_position(
            key, self._model, model_args, model_kwargs, self._init_strategy
        )
        self._num_warmup = num_warmup
        return self._start.z if init_params is None else init_params


def split_keys(rng_key: Any) -> Any:
    """Two keys of one, or of each of a batch of keys: two batches."""
    split = jax.random.split if is_prng_key(rng_key) else jax.vmap(jax.random.split, out_axes=1)
    return split(rng_key)
