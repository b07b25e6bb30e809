"""Potential energies of a model at given draws, with whatever operators in the place of its own."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.util import potential_energy, unconstrain_fn

from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.experiments import first_theta
from bilo_ppl.ppl.handlers import replace_operator, warm_start, without_solving
from bilo_ppl.ppl.look import ModelLook, look_at

__all__ = [
    "Energies",
    "by_site",
    "corrected_operators",
    "energies_at",
    "flattened",
    "look_at_draw",
]

CHORD_STEPS = 20
"""Most steps of a correction."""


class Energies(NamedTuple):
    """Potential energy at every draw, and what its solves report."""

    energy: Any
    converged: Any
    loss: Any
    """The largest of a draw's solves."""


def energies_at(
    model: Callable,
    args: tuple,
    kwargs: Mapping[str, Any],
    draws: Mapping[str, Any],
    operators: Mapping[str, AbstractSolutionOperator],
    *,
    accept: bool,
) -> Energies:
    """U in unconstrained space at draws, values ``(n, ...)`` by latent site in the space of the model.

    ``operators`` by solution site replace the model's. Where a solve did not converge the energy is
    NaN, unless ``accept``.
    """
    # As arguments, since the factor of a large system is no constant to be compiled in.
    arrays, static = eqx.partition(dict(operators), eqx.is_array)

    def energy(arrays, draw):
        with without_solving():
            z = unconstrain_fn(model, args, kwargs, draw)
        collector = warm_start(accept_unconverged=accept)
        with collector, replace_operator(operators=eqx.combine(arrays, static)):
            value = potential_energy(model, args, kwargs, z)
        infos = list(collector.infos.values())
        converged = jnp.all(jnp.stack([info.converged for info in infos]))
        loss = jnp.max(jnp.stack([info.loss for info in infos]))
        return Energies(jnp.where(converged | accept, value, jnp.nan), converged, loss)

    run = jax.jit(lambda arrays, draws: jax.lax.map(partial(energy, arrays), draws))
    return jax.tree.map(np.asarray, run(arrays, draws))


def flattened(caller: str, samples: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Values of all chains, ``(n, ...)`` by site; a ``ValueError`` of the caller where there are none."""
    flat = {name: np.asarray(v).reshape(-1, *np.shape(v)[2:]) for name, v in samples.items()}
    if not flat or not len(next(iter(flat.values()))):
        raise ValueError(
            f"{caller}: there are no draws; give samples by site, (chains, draws, ...)."
        )
    return flat


def look_at_draw(
    caller: str, model: Callable, draw: Mapping[str, Any], args: tuple, kwargs: Mapping[str, Any]
) -> ModelLook:
    """The model at a draw; nothing is solved.

    Raises a ``ValueError`` of the caller for a model without solution, or a draw that lacks sites.
    """
    look = look_at(model, args, kwargs, values=draw)
    if not look.solutions:
        raise ValueError(f"{caller}: the model has no solution(...) site.")
    if look.missing:
        raise ValueError(
            f"{caller}: the samples have no values for the sites {list(look.missing)}."
        )
    return look


def by_site(
    operators: AbstractSolutionOperator | Mapping[str, AbstractSolutionOperator],
    sites: Iterable[str],
) -> dict[str, AbstractSolutionOperator]:
    """Operators by solution site, of which one may stand for all."""
    return dict(operators) if isinstance(operators, Mapping) else dict.fromkeys(sites, operators)


def corrected_operators(
    look: ModelLook, operators: Mapping[str, AbstractSolutionOperator], factor: float
) -> dict[str, AbstractSolutionOperator]:
    """By solution site, operators that correct solutions near what the site is asked in ``look``.

    To a loss ``factor`` times below their tolerance; without the sites whose operator cannot.
    """
    near = {}
    for name, site in look.solutions.items():
        theta = site.theta if site.batch is None else first_theta(site.theta, site.batch)
        corrected = operators[name].corrected_near(theta, factor, CHORD_STEPS)
        if corrected is not None:
            near[name] = corrected
    return near
