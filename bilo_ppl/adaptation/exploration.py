"""Where the posterior is: thetas that a short chain visits, or draws from the prior.

The chain carries the inner solver's state and samples the posterior at a temperature T, of density
proportional to exp(-U / T): T > 1 widens the region without a guess at its shape, and whatever it
visits has a solution, since a failed solve is rejected.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from numpyro.infer import init_to_value
from numpyro.infer.util import constrain_fn

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Key, Theta
from bilo_ppl.adaptation.batches import described
from bilo_ppl.mcmc.chain import BiLOState, Chain, Settings
from bilo_ppl.mcmc.initial_position import find_initial_position
from bilo_ppl.mcmc.transitions import FixedLength
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.handlers import replace_operator, without_solving
from bilo_ppl.ppl.look import look_at, theta_at
from bilo_ppl.ppl.potential import PotentialInfo, StatefulPotential

__all__ = ["Explorer", "Site", "prior_thetas"]

UNKNOWN = 1e30
"""Potential of a start that has not been evaluated: the first finite trajectory is accepted."""

LEAST_MOVES = 5
"""A chain with fewer distinct positions has not explored anything."""

FIRST_STEP = 0.1
"""First step size, before adaptation: a larger one leaps to thetas that cannot be solved."""

LEAPFROGS = 4
"""Leapfrog steps of a transition: the step size adapts, the cost of a transition does not vary."""


class Site(NamedTuple):
    """A solution site of a model with its arguments."""

    model: Callable
    args: tuple
    kwargs: Mapping[str, Any]
    name: str

    def theta(self, values: Mapping[str, Any]) -> Theta:
        """What the site is asked to solve, given constrained values of the latent sites."""
        return theta_at(self.model, self.args, self.kwargs, values, self.name)

    def drawn(self, key: Key) -> Theta:
        """What the site is asked to solve at a draw from the prior.

        Raises a ``ValueError`` where a prior is improper.
        """
        look = look_at(self.model, self.args, self.kwargs, key=key, first=_from_prior)
        return dict(look.solutions[self.name].theta)


def _from_prior(site: Any) -> Any:
    try:
        return site["fn"](*site["args"], **site["kwargs"])
    except NotImplementedError as error:
        raise ValueError(
            f"adapt: nothing can be drawn from the prior of {site['name']!r}, an improper "
            f"{type(site['fn']).__name__}; leave thetas='prior' out, or give thetas."
        ) from error


def prior_thetas(site: Site, key: Key, count: int) -> Theta:
    """``count`` thetas from the prior, a leading axis on every array; nothing is solved."""
    return jit_once(jax.vmap(site.drawn))(jax.random.split(key, count))


class Explorer:
    """A chain at any temperature, with the operator as an argument: one compilation in all.

    The first half of the first ``draws`` transitions is warm-up.
    """

    def __init__(self, site: Site, operator: AbstractSolutionOperator, draws: int, key: Key):
        self.site, self.draws, self.temperature = site, draws, 1.0
        floating = jnp.result_type(float)
        guess = {name: jnp.asarray(v, floating) for name, v in operator.home.items()}
        key_start, key_chain = jax.random.split(key)
        z = find_initial_position(
            key_start, site.model, site.args, site.kwargs, init_to_value(values=guess)
        ).z
        self._unravel = ravel_pytree(z)[1]
        self._static = eqx.partition(operator.relaxed(), eqx.is_array)[1]
        self.state = self._chain(_unknown).first(z, key_chain, {site.name: operator.init_state()})
        self._run = jax.jit(self._transitions)

    def _chain(self, potential: Callable) -> Chain:
        settings = Settings(step_size=FIRST_STEP)
        return Chain(potential, FixedLength(LEAPFROGS), settings, self.draws // 2)

    def _transitions(self, state: BiLOState, arrays: Any, temperature: Any):
        """``draws`` transitions; the positions and whether anything was accepted yet."""
        operator = eqx.combine(arrays, self._static)

        def model(*args, **kwargs):
            with replace_operator(operators={self.site.name: operator}):
                return self.site.model(*args, **kwargs)

        potential = StatefulPotential(model, self.site.args, self.site.kwargs)

        def tempered(z, solver_state):
            energy, aux = potential(z, solver_state)
            return energy / temperature, aux

        chain = self._chain(tempered)

        def step(state, _):
            state = chain.next(False, state)
            return state, (state.z, state.potential_energy < UNKNOWN / 2)

        return jax.lax.scan(step, state, None, self.draws)

    def __call__(
        self, operator: AbstractSolutionOperator, temperature: float
    ) -> Float[np.ndarray, "n dim"]:
        """Unconstrained positions visited at a temperature, the warm-up's left out.

        Raises a ``ValueError`` if the chain hardly moved.
        """
        arrays = eqx.partition(operator.relaxed(), eqx.is_array)[0]
        warming_up = int(self.state.i) == 0
        state = _retempered(self.state, temperature / self.temperature)
        # Another operator, other energies: one kept from the old could be too low ever to leave.
        state = state._replace(
            potential_energy=jnp.full_like(state.potential_energy, UNKNOWN),
            z_grad=jax.tree.map(jnp.zeros_like, state.z_grad),
            solver_state={self.site.name: operator.init_state()},
        )
        self.temperature = temperature
        self.state, (visited, known) = self._run(state, arrays, temperature)
        flat = np.asarray(jax.vmap(lambda z: ravel_pytree(z)[0])(visited))
        kept = flat[self.draws // 2 if warming_up else 0 :]
        kept = kept[np.asarray(known)[len(flat) - len(kept) :]]
        moves = len(np.unique(kept, axis=0))
        if moves < LEAST_MOVES:
            raise ValueError(
                f"adapt: the chain could not leave its start, or stayed where it was, in {self.draws} "
                f"transitions ({moves} distinct positions): nearly no solve reached "
                f"{described(operator.relaxed())}, or the potential is not finite. Pretrain nearer to "
                "the posterior or to a smaller loss, choose a larger rank, or look at the priors and "
                "the data."
            )
        return kept

    def thetas(self, positions: Float[np.ndarray, "n dim"]) -> Theta:
        """Thetas of the solution site at unconstrained positions; nothing is solved."""

        def theta_at(position):
            site = self.site
            with without_solving():
                z = self._unravel(position)
                values = constrain_fn(site.model, site.args, dict(site.kwargs), z)
            return site.theta(values)

        return jit_once(jax.vmap(theta_at))(jnp.asarray(positions))


def _unknown(z: Any, solver_state: Any):
    """A potential that nobody has evaluated."""
    nothing = PotentialInfo(jnp.array(0), jnp.array(0.0), jnp.array(True))
    return jnp.asarray(UNKNOWN, jnp.result_type(float)), (solver_state, nothing)


def _retempered(state: BiLOState, ratio: float) -> BiLOState:
    """The state of a chain with units of length for a temperature multiplied by ``ratio``."""
    adapted = state.adapt_state

    def scaled(tree, factor):
        return jax.tree.map(lambda leaf: leaf * factor, tree)

    return state._replace(
        adapt_state=adapted._replace(
            inverse_mass_matrix=scaled(adapted.inverse_mass_matrix, ratio),
            mass_matrix_sqrt=scaled(adapted.mass_matrix_sqrt, ratio**-0.5),
            mass_matrix_sqrt_inv=scaled(adapted.mass_matrix_sqrt_inv, ratio**0.5),
        ),
    )
