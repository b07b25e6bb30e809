"""Neural operators that are trained on numerical solutions at prior draws."""

from typing import Any

from bilo_ppl.run.compare.by_operators import sampled
from bilo_ppl.run.compare.outcome import Outcome
from bilo_ppl.run.compare.task import Task
from bilo_ppl.run.map.scores import compared_points
from bilo_ppl.surrogates import Trained, TrainingSet, prior_thetas, solve_all
from bilo_ppl.surrogates import train_deeponet as fit_deeponet
from bilo_ppl.surrogates import train_fno as fit_fno

__all__ = ["COUNT", "deeponet", "fno"]

COUNT = 400
"""Draws from the prior at which the numerical operator solves."""

DEEPONET_STEPS, FNO_STEPS = 8000, 4000

GRIDS = {1: (65,), 2: (33, 33)}
"""Points of the grid of a Fourier neural operator, by dimension."""


def deeponet(task: Task) -> Outcome:
    """NUTS with a DeepONet."""
    data = _solutions(task, compared_points(task.file.problem))
    with task.spent.stage("training"):
        found = fit_deeponet(
            task.file.problem, data, key=task.key(1), steps=DEEPONET_STEPS, progress=False
        )
    return _sampled(task, data, found)


def fno(task: Task) -> Outcome:
    """NUTS with a Fourier neural operator."""
    domain = task.file.problem.domain
    if domain.dimension not in GRIDS:
        raise ValueError(
            f"fno: there is no grid for {domain.dimension} dimensions, only for 1 and 2."
        )
    shape = GRIDS[domain.dimension]
    data = _solutions(task, domain.grid(*shape))
    with task.spent.stage("training"):
        found = fit_fno(
            task.file.problem, data, shape=shape, key=task.key(1), steps=FNO_STEPS, progress=False
        )
    return _sampled(task, data, found)


def _solutions(task: Task, points: Any) -> TrainingSet:
    args, kwargs = task.arguments
    with task.spent.stage("solving"):
        thetas = prior_thetas(task.bound(task.reference), task.key(0), COUNT, *args, **kwargs)
        return solve_all(task.reference, thetas, points)


def _sampled(task: Task, data: TrainingSet, found: Trained) -> Outcome:
    left_out = f", {data.unsolved} more not solved" if data.unsolved else ""
    return sampled(
        task,
        found.surrogate,
        training=f"{data.count} prior draws{left_out}",
        notes=f"test error {100 * found.median_error:.2g} %",
    )
