"""Figures that a model file draws of its own: what it is given, and what it must give back."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bilo_ppl._types import Points
from bilo_ppl.diagnostics import solution_draws
from bilo_ppl.estimate import Estimate
from bilo_ppl.pde.data import Observations
from bilo_ppl.plots.figure_file import Drawn, figure_of
from bilo_ppl.run.plan import Plan

__all__ = ["of_draws", "of_estimate"]

DRAWS = 48
"""Draws whose solutions a figure may ask for."""

Solutions = Callable[[Points], Float[np.ndarray, "k n"]]


def of_estimate(plan: Plan, estimate: Estimate) -> Iterator[tuple[str, Drawn]]:
    """The figures of a model file for a point estimate, which is a single draw: name and figure."""
    site = plan.solutions[0]
    values = {name: np.asarray(value)[None] for name, value in estimate.values.items()}
    x, y, sigma = estimate.objective.args[1:4]
    return _drawn(
        plan,
        lambda points: np.asarray(estimate.solution(points, site))[None],
        values,
        Observations(np.asarray(x), np.asarray(y), sigma),
    )


def of_draws(
    plan: Plan, model: Callable, samples: Mapping[str, Any]
) -> Iterator[tuple[str, Drawn]]:
    """The same for draws ``(chains, draws, ...)`` of a posterior, some of them evenly spaced."""
    data, site = plan.observations, plan.solutions[0]
    joined = {name: np.asarray(v).reshape(-1, *np.shape(v)[2:]) for name, v in samples.items()}
    count = len(next(iter(joined.values())))
    spaced = np.linspace(0, count - 1, min(count, DRAWS)).round().astype(int)
    values = {name: v[spaced] for name, v in joined.items()}

    def solutions(points: Points) -> np.ndarray:
        return solution_draws(
            model,
            {name: jnp.asarray(v) for name, v in values.items()},
            points,
            *data.model_args,
            site=site,
            max_draws=DRAWS,
            batch_ndims=1,
            accept_unconverged=plan.settings.accept_unconverged,
            **data.model_kwargs,
        )

    return _drawn(plan, solutions, values, data)


def _drawn(
    plan: Plan, solutions: Solutions, values: Mapping[str, Any], data: Observations
) -> Iterator[tuple[str, Drawn]]:
    file = plan.file
    if file.figures is None:
        return
    for name, drawn in file.figures(solutions, values, data):
        try:
            yield str(name), figure_of(drawn)
        except TypeError as error:
            raise TypeError(f"{file.path}: figures, under the name {name!r}: {error}") from error
