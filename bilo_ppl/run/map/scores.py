"""Point estimates against the truth and against the numerical solution, over data sets."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Points
from bilo_ppl.estimate import Estimate
from bilo_ppl.fields import KarhunenLoeve, NetworkField, PiecewiseLinear
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.pde.problem import Problem
from bilo_ppl.ppl.effect import solve_site
from bilo_ppl.ppl.experiments import values_at
from bilo_ppl.run.map.settings import MapSettings
from bilo_ppl.run.model_file import ModelFile

__all__ = [
    "compared_points",
    "is_on_a_line",
    "numerical_solution",
    "over_data_sets",
    "own_scores",
    "relative_errors",
    "table",
    "u_error",
]

_LINE = 401


def compared_points(problem: Problem) -> Points:
    """Where solutions are compared: a fine grid of an interval, else all collocation points."""
    if problem.domain.dimension == 1:
        return problem.domain.grid(_LINE)
    return np.asarray(problem.points)


def is_on_a_line(field: Any) -> bool:
    """Whether an unknown function is one of the first coordinate only."""
    if isinstance(field, NetworkField):
        return field.domain.dimension == 1
    return isinstance(field, KarhunenLoeve | PiecewiseLinear)


def _field_points(field: Any, problem: Problem) -> Points:
    """Where an unknown function is compared: points ``(n, d)``, or ``(n, 1)`` on a line."""
    if isinstance(field, PiecewiseLinear):
        return np.linspace(field.lower, field.upper, _LINE)[:, None]
    if is_on_a_line(field):
        return problem.domain.along(0).grid(_LINE)
    return compared_points(problem)


def relative_errors(
    file: ModelFile, theta: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, float]:
    """Relative error of every entry of the truth: absolute for a truth of zero, L2 for a function.

    An entry is looked up in ``theta``, and then in the ``values`` of the latent sites.
    """
    errors = {}
    for name, truth in (file.truth or {}).items():
        found = theta.get(name, values.get(name))
        if found is None:
            continue
        if callable(truth):
            points = _field_points(found, file.problem)
            errors[name] = _relative(_at(found, points), _at(truth, points))
        else:
            errors[name] = _relative(np.asarray(found), np.asarray(truth, dtype=float))
    return errors


def own_scores(file: ModelFile, theta: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that a model file itself makes of an estimate."""
    found = {} if file.scores is None else file.scores(theta)
    return {name: float(value) for name, value in found.items()}


def u_error(
    estimate: Estimate, site: str, numerical: AbstractSolutionOperator, points: Points
) -> float:
    """``|u - u_numerical| / |u_numerical|`` in L2, both at the estimate.

    Of `Problem.observable`; of the u themselves where there are several experiments.
    """
    theta, batch = estimate.theta(site), estimate.experiments(site)
    solved = estimate.solution(points, site), numerical_solution(numerical, theta, points, batch)
    if batch is None:
        problem = numerical.problem
        solved = [_observable(problem, jnp.asarray(points), u, dict(theta)) for u in solved]
    return _relative(*map(np.asarray, solved))


@jit_once
def _observable(problem: Problem, points: Points, values: Any, theta: Any) -> Any:
    return jax.vmap(lambda x, u: problem.observable(x, u, theta))(points, jnp.asarray(values))


def numerical_solution(
    numerical: AbstractSolutionOperator,
    theta: Mapping[str, Any],
    points: Points,
    batch: int | None = None,
) -> Float[np.ndarray, "..."]:
    """The solution by a numerical operator at points ``(n, d)``.

    With ``batch``, those of so many experiments: theta has that axis in front, and so has the result.
    """
    return np.asarray(_solve(numerical, dict(theta), jnp.asarray(points), batch))


@jit_once
def _solve(numerical: AbstractSolutionOperator, theta: Any, points: Any, batch: Any) -> Any:
    return values_at(solve_site(numerical, theta, batch=batch).field, points)


def _at(function: Any, points: Points) -> np.ndarray:
    return np.asarray(jit_once(jax.vmap(function))(jnp.asarray(points)))


def _relative(found: np.ndarray, wanted: np.ndarray) -> float:
    size = float(np.linalg.norm(wanted))
    return float(np.linalg.norm(found - wanted)) / (size or 1.0)


def table(scores: list[dict[str, Any]]) -> Any:
    """A pandas ``DataFrame``: one row for each data set, then mean and standard deviation."""
    import pandas as pd

    rows = []
    for score in scores:
        row = {
            "seed": score["seed"],
            **{n: v for n, v in score["theta"].items() if np.ndim(v) == 0},
        }
        row |= {f"error {name}": value for name, value in score["relative_error"].items()}
        row |= score.get("scores", {})
        row["error u"] = score["u_relative_error"]
        row |= {"steps": score["steps"], "CPU s": score["cpu_seconds"], "status": score["status"]}
        rows.append(row)
    frame = pd.DataFrame(rows).set_index("seed")
    numbers = frame.drop(columns="status").astype(float)
    summary = pd.DataFrame({"mean": numbers.mean(), "sd": numbers.std(ddof=1)}).T
    return pd.concat([frame, summary]).fillna({"status": ""})


def over_data_sets(scores: list[dict[str, Any]], settings: MapSettings) -> dict[str, Any]:
    """The content of map.json: quantities as lists over data sets, with mean and standard deviation."""
    content = {
        "seeds": [score["seed"] for score in scores],
        "noise": settings.noise,
        "method": settings.method,
        "optimizer": settings.chosen_optimizer,
        "theta": [score["theta"] for score in scores],
    }
    for group in ("relative_error", "scores"):
        content[group] = {
            name: _spread([score[group][name] for score in scores]) for name in scores[0][group]
        }
    for name in ("u_relative_error", "cpu_seconds", "data_loss", "inner_loss"):
        values = [score[name] for score in scores]
        content[name] = None if None in values else _spread(values)
    for name in ("steps", "inner_steps", "status", "converged"):
        content[name] = [score[name] for score in scores]
    return content


def _spread(values: list[float]) -> dict[str, Any]:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"values": values, "mean": float(np.mean(values)), "sd": sd}
