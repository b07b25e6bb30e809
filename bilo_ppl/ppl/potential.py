"""The potential energy of a NumPyro model, as a pure function of position and solver state."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from numpyro.infer.util import potential_energy

from bilo_ppl._types import Scalar
from bilo_ppl.ppl.experiments import initial_states
from bilo_ppl.ppl.handlers import warm_start
from bilo_ppl.ppl.look import look_at

__all__ = ["PotentialInfo", "StatefulPotential"]


class PotentialInfo(NamedTuple):
    """Report of the inner solves of one evaluation, over all solution sites of the model."""

    steps: Any
    """Inner steps, summed."""
    loss: Any
    """Largest lower-level loss."""
    converged: Any
    """Whether every solve reached its tolerance."""


class StatefulPotential:
    """``(z, state) -> (U, (state', info))``, to be differentiated with ``has_aux=True``.

    ``z`` is NumPyro's unconstrained position, ``state`` maps solution sites to operator states, and
    U = -log p(z, data). A solve that misses its tolerance gives U = inf (a rejected, diverging
    proposal) unless ``accept_unconverged``.

    Examples:
        >>> potential = bilo.StatefulPotential(model, (exact, x, y))
        >>> z, state = {"r": jnp.log(9.0)}, potential.init_state(key)
        >>> (energy, (state, info)), slope = jax.value_and_grad(potential, has_aux=True)(z, state)
        >>> round(float(energy), 1), round(float(slope["r"]), 1), bool(info.converged)
        (-28.8, 0.7, True)
    """

    def __init__(
        self,
        model: Callable,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
        *,
        accept_unconverged: bool = False,
    ):
        self.model = model
        self.model_args = model_args
        self.model_kwargs = dict(model_kwargs or {})
        self.accept_unconverged = accept_unconverged

    def init_state(self, rng_key: Any) -> dict[str, Any]:
        """Stored states of the operators that the model uses.

        Raises a ``ValueError`` if the model has no solution site: then there is nothing to carry, and
        NumPyro's own kernels are the right ones.
        """
        look = look_at(self.model, self.model_args, self.model_kwargs, key=rng_key)
        if not look.solutions:
            raise ValueError(
                "the model has no solution(...) site: there is no inner solver state to carry along "
                "the trajectory; use numpyro.infer.NUTS or HMC."
            )
        return initial_states(look.operators, look.batches)

    def __call__(self, z: Any, state: Any) -> tuple[Scalar, tuple[Any, PotentialInfo]]:
        """U at z with solves from ``state``; where U is inf its gradient means nothing."""
        with_state = warm_start(states=state, accept_unconverged=True)
        with with_state:
            energy = jnp.asarray(
                potential_energy(self.model, self.model_args, self.model_kwargs, z)
            )
        infos = list(with_state.infos.values())
        report = PotentialInfo(
            steps=sum(info.steps for info in infos),
            loss=jnp.max(jnp.stack([info.loss for info in infos])),
            converged=jnp.all(jnp.stack([info.converged for info in infos])),
        )
        if not self.accept_unconverged:
            energy = jnp.where(report.converged, energy, jnp.inf)
        return energy, (with_state.states, report)
