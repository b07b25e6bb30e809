"""What the solves of point estimates have done, in words: for the terminal, run.json and the page."""

from collections.abc import Sequence

import numpy as np

from bilo_ppl.estimate import Estimate
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.run.map.settings import MapSettings

__all__ = ["solves_of_estimates"]

SOLVERS = {"lm": "Levenberg-Marquardt", "adam": "Adam"}


def solves_of_estimates(
    estimates: Sequence[Estimate], operator: AbstractSolutionOperator, settings: MapSettings
) -> list[str]:
    """What solves, what that took along the descents, and what it has reached at the estimates."""
    inner = sum(int(np.sum(found.history.inner_steps)) for found in estimates)
    steps = sum(found.history.steps for found in estimates)
    losses = [float(found.inner.loss) for found in estimates]
    solved = sum(bool(np.all(found.inner.converged)) for found in estimates)
    tolerance = operator.loss_tolerance
    limit = "" if tolerance is None else f" (tolerance {tolerance:.3g})"
    work = f"{inner} steps in {steps} steps of the descents, {inner / max(steps, 1):.3g} each"
    reached = f"PDE is solved at {solved} of {len(estimates)} estimates"
    lines = [f"Inner solver: {_solver(operator, settings)}."]
    if not settings.fine_tuned:
        return [*lines, f"The {reached}."]
    worst = f"Worst loss at an estimate {max(losses):.3g}{limit}"
    return [*lines, f"Inner solves: {work}.", f"{worst}; the {reached}."]


def _solver(operator: AbstractSolutionOperator, settings: MapSettings) -> str:
    if not settings.fine_tuned:
        return "none, the numerical operator of the model file"
    if isinstance(operator, OutputLayer):
        newton = "" if operator.linear else f", at most {operator.max_steps} Gauss-Newton steps"
        return f"least squares for the output layer{newton}"
    way = f"at most {settings.inner_limit} steps"
    if settings.method == "simultaneous":
        way = "one step with each of the descent"
    name = SOLVERS[settings.chosen_inner]
    return f"{name}, {way}; sensitivity: {settings.chosen_sensitivity}"
