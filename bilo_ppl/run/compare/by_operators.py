"""Posteriors and estimates by operators that need no fine-tuning: the numerical one, and surrogates."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC, NUTS

from bilo_ppl._compile import jit_once
from bilo_ppl.estimate import find_map
from bilo_ppl.mcmc import PCN, RandomWalk, init_near, sample_in_blocks
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.effect import solve_site
from bilo_ppl.ppl.experiments import values_at
from bilo_ppl.ppl.look import look_at
from bilo_ppl.run.compare.outcome import Outcome
from bilo_ppl.run.compare.task import Task
from bilo_ppl.run.map.scores import compared_points
from bilo_ppl.run.sample.kernel import FIRST_STEP, TREE_DEPTH

__all__ = ["adjoint", "crank_nicolson", "means", "numerical", "random_walk", "sampled", "u_at"]

THINNED = 20
"""Transitions without a gradient for one draw: about what a trajectory evaluates."""


def numerical(task: Task) -> Outcome:
    """NUTS with the numerical operator."""
    return sampled(task, task.reference)


def random_walk(task: Task) -> Outcome:
    """Random-walk Metropolis with the numerical operator."""
    return _without_gradient(task, RandomWalk)


def crank_nicolson(task: Task) -> Outcome:
    """Preconditioned Crank-Nicolson with the numerical operator, from the prior."""
    return _without_gradient(task, PCN)


def adjoint(task: Task) -> Outcome:
    """The maximum of the posterior density with the numerical operator: the discrete adjoint method."""
    args, kwargs = task.arguments
    with task.spent.stage("descent"):
        found = find_map(
            task.file.model, task.key(1), task.reference, *args, progress=False, **kwargs
        )
    u = u_at(task, task.reference, found.values)
    notes = "" if found.converged else found.message
    return Outcome(found.values, u, evaluations=int(found.history.steps), notes=notes)


def sampled(
    task: Task,
    operator: AbstractSolutionOperator,
    *,
    settings: Mapping[str, Any] | None = None,
    **told: Any,
) -> Outcome:
    """NUTS with an operator, from near the first guess."""
    args, kwargs = task.arguments
    depth: Any = TREE_DEPTH  # annotated as an int in NumPyro, documented as possibly a pair
    kernel = NUTS(
        task.bound(operator),
        step_size=FIRST_STEP,
        max_tree_depth=depth,
        init_strategy=init_near(task.first_values(operator)),
    )
    with task.spent.stage("sampling"):
        draws = sample_in_blocks(
            kernel,
            task.key(2),
            *args,
            num_warmup=task.warmup,
            num_samples=task.samples,
            num_chains=task.chains,
            progress=False,
            **kwargs,
        )
    values = means(draws.samples)
    return Outcome(
        values,
        u_at(task, operator, values),
        draws.samples,
        diverging=int(draws.statistics["diverging"].sum()),
        evaluations=int(draws.statistics["num_steps"].sum()),
        settings={**(settings or {}), "warm-up": task.warmup, "largest tree depth": TREE_DEPTH[1]},
        **told,
    )


def _without_gradient(task: Task, kind: type[RandomWalk] | type[PCN]) -> Outcome:
    args, kwargs = task.arguments
    operator = task.reference
    kernel = kind(task.bound(operator), init_strategy=init_near(task.first_values(operator)))
    mcmc = MCMC(
        kernel,
        num_warmup=THINNED * task.warmup,
        num_samples=THINNED * task.samples,
        thinning=THINNED,
        num_chains=task.chains,
        chain_method="sequential",
        progress_bar=False,
    )
    with task.spent.stage("sampling"):
        mcmc.run(task.key(2), *args, **kwargs)
        samples = jax.device_get(mcmc.get_samples(group_by_chain=True))
    values = means(samples)
    return Outcome(
        values,
        u_at(task, operator, values),
        samples,
        diverging=int(mcmc.get_extra_fields()["diverging"].sum()),
        evaluations=THINNED * task.samples * task.chains,
        notes=f"every {THINNED}th transition is kept",
        settings={"warm-up": THINNED * task.warmup, "transitions": THINNED * task.samples},
    )


def means(samples: Any) -> dict[str, Any]:
    """Means of draws ``(chains, draws, ...)`` by site."""
    return {name: np.mean(draws, axis=(0, 1)) for name, draws in samples.items()}


def u_at(task: Task, operator: AbstractSolutionOperator, values: Any) -> Any:
    """The solution of the first site by an operator, at values of latent sites."""
    args, kwargs = task.arguments
    look = look_at(task.bound(operator), args, kwargs, values=values)
    site = next(iter(look.solutions.values()))
    points = jnp.asarray(compared_points(task.file.problem))

    @jit_once
    def solution(operator, theta):
        field = solve_site(operator, theta, batch=site.batch, accept=True).field
        return values_at(field, points)

    return np.asarray(solution(operator, dict(site.theta)))
