"""Whether more features solve where the transitions diverged, or nothing may."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to

from bilo_ppl.diagnostics import inner_statistics
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.ppl.look import look_at
from bilo_ppl.run.sample.results import Results
from bilo_ppl.run.sample.solves import over_sites

__all__ = ["told_of_divergences"]

TRIED = 64
"""Thetas about the draws at which transitions diverged."""

MANY_LOST, GAINED = 4, 0.25
"""Of them, as many have to be without a solution for an answer; and the part that more features have to
solve for another operator to be worth its training."""


def told_of_divergences(results: Results) -> str | None:
    """What is to be said where another operator would be of no help against divergences; else None.

    About the draws at which a transition diverged, by a posterior standard deviation, the sampled
    operator does not solve; with two and a half times as many features hardly more is solved.
    """
    operator = results.operator
    richer = operator.richer if isinstance(operator, OutputLayer) else None
    if richer is None:
        return None
    assert isinstance(operator, OutputLayer)
    near = _near_divergences(results)
    lost = _missed(results, operator, near)
    if lost.sum() < MANY_LOST:
        return None
    same_loss = richer.to_tolerance(operator.tolerance)
    gained = 1 - _missed(results, same_loss, near)[lost].mean()
    if gained > GAINED:
        return None
    return (
        f"More features do not solve there either ({gained:.0%} of {lost.sum()} thetas): there may be "
        "no solution."
    )


def _missed(
    results: Results, operator: AbstractSolutionOperator, values: dict[str, Any]
) -> np.ndarray:
    model = results.plan.model(operator)
    found = inner_statistics(model, values, *results.args, batch_size=1, **results.kwargs)
    return over_sites(found).missed.ravel()


def _near_divergences(results: Results) -> dict[str, Any]:
    """Values of the latent sites ``(1, TRIED, ...)``, within the priors' supports."""
    diverging = np.asarray(results.draws.statistics["diverging"])
    chain, draw = np.nonzero(diverging)
    rng = np.random.default_rng(results.plan.settings.seed)
    taken = rng.choice(len(chain), TRIED)
    latent = look_at(results.model, results.args, results.kwargs, key=jax.random.key(0)).latent
    found = {}
    for name, site in latent.items():
        transform = biject_to(site["fn"].support)
        draws = np.asarray(transform.inv(jnp.asarray(results.samples[name])))
        spread = draws.std(axis=(0, 1))
        moved = draws[chain[taken], draw[taken]]
        moved = moved + spread * rng.normal(size=moved.shape)
        found[name] = np.asarray(transform(jnp.asarray(moved)))[None]
    return found
