"""`TwoStage`: Hamiltonian Monte Carlo on a cheap operator, accepted against another one."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro.infer import HMC, NUTS

from bilo_ppl._compile import jit_once
from bilo_ppl._pages import see
from bilo_ppl.mcmc._numpyro import fresh_kernel, is_forward_mode
from bilo_ppl.mcmc.model_kernel import ModelKernel, split_keys
from bilo_ppl.mcmc.second_stage import STATISTICS, Stages, TwoStageState, energy_of
from bilo_ppl.mcmc.transitions import MAX_LEAPFROGS
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.handlers import replace_operator
from bilo_ppl.ppl.look import look_at

__all__ = ["TwoStage"]


class TwoStage(ModelKernel):
    """The exact posterior of one operator, by proposals of a chain on another one that is cheaper.

    ``TwoStage(HMC(model), operators={"u": numerical})`` is a kernel for `numpyro.infer.MCMC` and
    `sample_in_blocks`. ``transitions`` of ``HMC`` on the model as it is, such as with an adapted network,
    make a proposal; it is accepted by the energies of the same model with ``operators`` in the place of
    its own, so that the draws have that posterior, whatever the error of the first. That takes one solve
    a draw, no derivative of it, and nothing of it in warm-up, where ``HMC`` adapts to the cheap energy.

    **Arguments**

    - ``kernel``: a `numpyro.infer.HMC` made with a model. Its transitions must be reversible and its
      energy a function of the position: NUTS, and the kernels that carry weights, are refused.
    - ``operators``: by solution site, or one for all sites. A site that is not named keeps its own.
    - ``transitions``: of the first stage for each draw. More make draws that depend less on each other.
    - ``walk_share``: part of the draws, at least 0 and below 1, that are steps of a random walk accepted
      by the second energy alone: they reach what the first operator cannot solve. With 0 there are none,
      and the draws are exact only where the first energy is finite wherever the second one is.

    ``potential_energy`` of the state is that of ``operators``; ``first_energy`` the cheap one,
    ``second_accept_prob`` the acceptance of the second stage, ``second_solves`` how many solves it took.
    `acceptance` sums them up. Raises a ``ValueError`` for a kernel or a share that will not do, and, when
    a chain starts, for a site that the model has not.

    >>> from numpyro.infer import HMC, init_to_value
    >>> first = HMC(model, init_strategy=init_to_value(values={"r": 9.0}))
    >>> coarse = bilo.FiniteDifferences(problem, nodes=7, theta=start)
    >>> kernel = bilo.TwoStage(first, operators={"u": exact})
    >>> two = bilo.sample_in_blocks(kernel, key, coarse, x, y, **sizes, progress=False)
    >>> two.samples["r"].shape
    (2, 200)
    """

    def __init__(
        self,
        kernel: Any,
        operators: Mapping[str, AbstractSolutionOperator] | AbstractSolutionOperator,
        *,
        transitions: int = 4,
        walk_share: float = 0.1,
    ):
        _check_kernel(kernel)
        if transitions < 1:
            raise ValueError(f"TwoStage: transitions={transitions}; the least is 1.")
        if not 0 <= walk_share < 1:
            raise ValueError(
                f"TwoStage: walk_share={walk_share}; it must be at least 0 and less than 1."
            )
        self.kernel, self.operators = fresh_kernel(kernel), operators
        self.transitions, self.walk_share = transitions, walk_share

    def fresh(self) -> "TwoStage":
        """A copy that has not been initialised."""
        options = {"transitions": self.transitions, "walk_share": self.walk_share}
        return TwoStage(self.kernel, self.operators, **options)

    @property
    def model(self) -> Callable:
        """The NumPyro model, with the operators of the first stage."""
        return self.kernel.model

    @property
    def default_fields(self) -> tuple[str, ...]:
        """Fields collected unasked."""
        return ("z", "diverging", "potential_energy", "accept_prob", *STATISTICS)

    def get_diagnostics_str(self, state: TwoStageState) -> str:
        """The text next to the progress bar."""
        return (
            f"{int(state.num_steps)} steps of size {float(state.adapt_state.step_size):.2e}. "
            f"acc. prob={float(state.inner.mean_accept_prob):.2f}, second "
            f"{float(state.mean_second_accept_prob):.2f}"
        )

    def postprocess_fn(self, model_args: tuple, model_kwargs: Mapping[str, Any]) -> Callable:
        """Map unconstrained values to the model's sites, deterministic ones with the second operators."""
        mapped = self.kernel.postprocess_fn(model_args, model_kwargs)

        def with_second(z):
            with self._replaced(None, model_args, model_kwargs):
                return mapped(z)

        return with_second

    def init(
        self,
        rng_key: Any,
        num_warmup: int,
        init_params: Any = None,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> TwoStageState:
        """First state of a chain, or of one chain for each key in a batch ``(chains, ...)``."""
        own, of_kernel = split_keys(rng_key)
        kwargs = dict(model_kwargs or {})
        inner = self.kernel.init(of_kernel, num_warmup, init_params, model_args, kwargs)
        return self.begin(inner, own, num_warmup, model_args, kwargs)

    def begin(
        self,
        inner: Any,
        rng_key: Any,
        num_warmup: int,
        model_args: tuple,
        model_kwargs: Mapping[str, Any],
    ) -> TwoStageState:
        """First state, or states, of chains whose first stage is at ``inner`` already.

        Raises a ``ValueError`` where no chain that has no warm-up has a finite second energy.
        """
        self._check_sites(model_args, model_kwargs)
        self._num_warmup = num_warmup
        stages = self._stages(model_args, model_kwargs)
        if isinstance(jax.tree.leaves(inner.z)[0], Tracer):
            return stages.begin(inner, rng_key)
        state = jit_once(stages.begin)(inner, rng_key)
        finite = np.isfinite(np.atleast_1d(state.potential_energy))
        if num_warmup == 0 and not finite.all():
            where = jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), inner.z)
            raise ValueError(
                f"TwoStage: the second energy is not finite where chain {int(np.argmin(finite))} starts "
                f"(unconstrained: {where}). {see('A chain that cannot start')}"
            )
        return state

    def sample(
        self,
        state: TwoStageState,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> TwoStageState:
        """One draw, of one chain or of a batch of chains."""
        return self._stages(model_args, dict(model_kwargs or {})).next(state)

    def _stages(self, args: tuple, kwargs: Mapping[str, Any]) -> Stages:
        num_warmup = self._warmup()
        cheap = energy_of(self.model, args, kwargs)
        forward = is_forward_mode(self.kernel)
        return Stages(
            first=lambda inner: _not_too_short(self.kernel.sample(inner, args, kwargs)),
            cheap=_forward(cheap) if forward else jax.value_and_grad(cheap),
            dear=energy_of(self._replaced(self.model, args, kwargs), args, kwargs),
            num_warmup=num_warmup,
            transitions=self.transitions,
            walk_share=self.walk_share,
        )

    def _replaced(self, model: Any, args: tuple, kwargs: Mapping[str, Any]) -> Any:
        """The model of the second stage; without one, a handler that makes it of what is called."""
        given = self.operators
        if not isinstance(given, Mapping):
            given = dict.fromkeys(look_at(self.model, args, kwargs).solutions, given)
        return replace_operator(model, operators=given)

    def _check_sites(self, args: tuple, kwargs: Mapping[str, Any]) -> None:
        sites = list(look_at(self.model, args, kwargs).solutions)
        given = self.operators
        unknown = (
            [name for name in given if name not in sites] if isinstance(given, Mapping) else []
        )
        if not sites or unknown:
            raise ValueError(
                f"TwoStage: operators are given for the sites {unknown or 'of all solutions'}; the "
                f"solution sites of the model are {sites}."
            )


def _not_too_short(state: Any) -> Any:
    """The state with a step size that does not make a trajectory endless.

    Where V is infinite nearby, no step size reaches the acceptance that adaptation aims at.
    """
    if state.trajectory_length is None:
        return state
    shortest = state.trajectory_length / MAX_LEAPFROGS
    adapt_state = state.adapt_state
    step_size = jnp.maximum(adapt_state.step_size, shortest.astype(adapt_state.step_size.dtype))
    return state._replace(adapt_state=adapt_state._replace(step_size=step_size))


def _forward(energy: Callable) -> Callable:
    """Value and gradient by forward mode."""

    def twice(z):
        value = energy(z)
        return value, value

    def value_and_gradient(z):
        gradient, value = jax.jacfwd(twice, has_aux=True)(z)
        return value, gradient

    return value_and_gradient


def _check_kernel(kernel: Any) -> None:
    name = type(kernel).__name__
    if isinstance(kernel, NUTS):
        raise ValueError(
            "TwoStage: the second stage needs reversible transitions, which those of NUTS may not be; "
            "give numpyro.infer.HMC."
        )
    if not isinstance(kernel, HMC):
        raise ValueError(
            f"TwoStage: the first stage is a {name}; it must be a numpyro.infer.HMC. "
            + see("Two stages", "exact")
        )
    if kernel.model is None:
        raise ValueError("TwoStage: give HMC a model; a potential_fn has no operators to replace.")
