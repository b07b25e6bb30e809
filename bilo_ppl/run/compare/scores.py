"""Outcomes against the truth, against the numerical solution, and against the exact posterior."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from bilo_ppl.diagnostics._draws import scalar_draws
from bilo_ppl.ppl.look import look_at
from bilo_ppl.run.compare.by_operators import u_at
from bilo_ppl.run.compare.outcome import Outcome
from bilo_ppl.run.compare.processes import Ran
from bilo_ppl.run.compare.task import Task
from bilo_ppl.run.map.scores import relative_errors
from bilo_ppl.run.record import warn
from bilo_ppl.validation.distance import distances
from bilo_ppl.validation.posterior_grid import GridPosterior, grid_posterior

__all__ = ["Exact", "exact_posterior", "score"]

MOST = 1000
"""Scalars beyond which convergence is looked at for the first ones only."""


class Exact:
    """The posterior that others are compared with: on a grid, or by draws with the numerical operator."""

    def __init__(self, grid: GridPosterior | None, draws: Mapping[str, Any] | None):
        self.grid, self.draws = grid, draws

    def moments(self, name: str) -> tuple[float, float] | None:
        """Mean and sd of a scalar unknown; None if they are not known."""
        if self.grid is not None and name in self.grid.names:
            return self.grid.mean(name), self.grid.sd(name)
        if self.draws is not None and name in self.draws:
            return float(np.mean(self.draws[name])), float(np.std(self.draws[name]))
        return None


def exact_posterior(task: Task, numerical: Outcome | None) -> Exact:
    """On the model file's grid where there is one, else by the draws of the method "numerical".

    So it is, with a warning, where data that the grid was not made for put mass beyond it.
    """
    file = task.file
    if file.reference_grid is not None and file.reference is not None:
        args, kwargs = task.arguments
        model = task.bound(task.reference)
        try:
            return Exact(grid_posterior(model, file.reference_grid, *args, **kwargs), None)
        except ValueError as error:
            warn(f"no exact posterior on the grid of {file.path}: {error}")
    return Exact(None, None if numerical is None else dict(scalar_draws(numerical.samples)))


def score(ran: Ran, exact: Exact) -> dict[str, Any]:
    """One row of the table, as numbers by name; what does not apply is left out."""
    task, outcome = ran.task, ran.outcome
    row: dict[str, Any] = {"method": task.method, "seed": task.data_seed}
    if outcome is None:
        return row | {"failed": ran.reason, "wall_seconds": ran.wall_seconds}
    row |= {
        name: getattr(outcome, name) for name in ("evaluations", "training", "notes", "settings")
    }
    row |= ran.costs | {"wall_seconds": ran.wall_seconds}
    row["values"] = {
        n: np.asarray(v).tolist() for n, v in outcome.values.items() if np.size(v) < 20
    }
    row["relative_error"] = _errors(task, outcome)
    row["u_error"] = _u_error(task, outcome)
    if outcome.samples:
        row |= _of_draws(outcome, exact)
    return row


def _errors(task: Task, outcome: Outcome) -> dict[str, float]:
    """Of every entry of the truth, at the posterior mean or the estimate."""
    if task.data is not None or task.file.truth is None or task.file.reference is None:
        return {}
    args, kwargs = task.arguments
    look = look_at(task.bound(task.reference), args, kwargs, values=outcome.values)
    theta = next(iter(look.solutions.values())).theta
    return relative_errors(task.file, theta, outcome.values)


def _u_error(task: Task, outcome: Outcome) -> float | None:
    """Relative L2 error of u against the numerical solution at the same theta."""
    if task.file.reference is None or outcome.u is None:
        return None
    wanted = u_at(task, task.reference, outcome.values)
    return float(np.linalg.norm(outcome.u - wanted) / np.linalg.norm(wanted))


def _of_draws(outcome: Outcome, exact: Exact) -> dict[str, Any]:
    found: dict[str, Any] = {"sd": {}, "mean_off": {}, "sd_ratio": {}, "total_variation": {}}
    ess, r_hat = [], []
    for name, draws in list(scalar_draws(outcome.samples).items())[:MOST]:
        draws = np.asarray(draws, float)
        if np.ptp(draws) > 0:
            ess.append(float(effective_sample_size(draws)))
            r_hat.append(float(split_gelman_rubin(draws)))
        else:
            ess.append(1.0)
        found["sd"][name] = float(draws.std())
        moments = exact.moments(name)
        if moments is not None:
            mean, sd = moments
            found["mean_off"][name] = float((draws.mean() - mean) / sd)
            found["sd_ratio"][name] = float(draws.std() / sd)
        if exact.grid is not None and name in exact.grid.names:
            away = distances(draws, exact.grid, name)
            found["total_variation"][name] = away.total_variation
    sampling = outcome.samples
    total = next(iter(sampling.values())).shape[:2]
    return found | {
        "ess": min(ess),
        "r_hat": max(r_hat, default=float("inf")),
        "draws": int(np.prod(total)),
        "shape": list(total),
        "diverging": outcome.diverging,
    }
