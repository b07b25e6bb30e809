"""Whether more features solve where the transitions diverged, or nothing that is tried."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Theta
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.ppl.experiments import first_theta
from bilo_ppl.ppl.look import ModelLook, look_at
from bilo_ppl.run.sample.results import Results

__all__ = ["told_of_divergences"]

MOST_TRIED, ENOUGH = 200, 12
"""Thetas about the draws at which transitions diverged, and how many that are not solved are enough."""

LEAST, GAINED = 6, 0.25
"""Fewer give no answer; and the part that more features have to solve for another operator to be worth
its training."""


def told_of_divergences(results: Results) -> str | None:
    """What is to be said where another operator would be of no help against divergences; else None.

    Thetas are tried that are as far from a draw at which a transition diverged as draws are from each
    other. Where the sampled operator does not solve, one with two and a half times as many features is
    asked, from its own solution at the draw.
    """
    operator = results.operator
    if not isinstance(operator, OutputLayer):
        return None
    richer = operator.richer
    if richer is None or richer.init_state().shape == operator.init_state().shape:
        return None
    same_loss = richer.to_tolerance(operator.tolerance)
    gained: list[bool] = []
    for at, near in _thetas(results):
        lost, known, more = _solved(operator, same_loss, at, near)
        gained += [bool(more)] if lost and known else []
        if len(gained) == ENOUGH:
            break
    if len(gained) < LEAST or np.mean(gained) > GAINED:
        return None
    return f"More features do not solve there either ({sum(gained)} of {len(gained)} thetas)."


@jit_once
def _solved(
    operator: OutputLayer, richer: OutputLayer, at: Theta, near: Theta
) -> tuple[Any, Any, Any]:
    """Whether ``near`` is not solved, whether more features solve ``at``, and from there ``near``."""
    _, state, _ = operator.solve(at, operator.init_state())
    _, _, lost = operator.solve(near, operator.init_state())
    _, start, known = richer.solve(at, operator.state_for(richer, state))
    _, _, more = richer.solve(near, start)
    return ~lost.converged, known.converged, more.converged


def _thetas(results: Results) -> Iterator[tuple[Theta, Theta]]:
    """Pairs of thetas: at a draw where a transition diverged, and near it. Both are finite.

    Differences of other draws, in unconstrained space, have twice the covariance of the posterior.
    """
    diverging = np.asarray(results.draws.statistics["diverging"])
    rng = np.random.default_rng(results.plan.settings.seed)
    chain, number = np.nonzero(diverging)
    chains, count = diverging.shape

    def look(chain: Any, number: Any) -> Any:
        values = {n: jnp.asarray(value[chain, number]) for n, value in results.samples.items()}
        return look_at(results.model, results.args, results.kwargs, values=values)

    for _ in range(MOST_TRIED):
        one = rng.integers(len(chain))
        looks = [look(chain[one], number[one])]
        looks += [look(rng.integers(chains), rng.integers(count)) for _ in range(2)]
        moved = {}
        for name, site in looks[0].latent.items():
            at, first, second = (_unconstrained(seen.latent[name]) for seen in looks)
            step = (first - second) / np.sqrt(2)
            moved[name] = biject_to(site["fn"].support)(at + step)
        near = look_at(results.model, results.args, results.kwargs, values=moved)
        pair = _theta(looks[0]), _theta(near)
        if all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(pair) if _is_number(leaf)):
            yield pair


def _theta(look: ModelLook) -> Theta:
    """Of the first solution, and of its first experiment."""
    site = next(iter(look.solutions.values()))
    return site.theta if site.batch is None else first_theta(site.theta, site.batch)


def _unconstrained(site: Any) -> Any:
    return biject_to(site["fn"].support).inv(jnp.asarray(site["value"], jnp.result_type(float)))


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, (float, np.ndarray, jax.Array))
