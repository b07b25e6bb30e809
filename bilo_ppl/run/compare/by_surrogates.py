"""Neural operators that are trained on numerical solutions at prior draws."""

from typing import Any

from bilo_ppl.run.compare.by_operators import sampled
from bilo_ppl.run.compare.outcome import Outcome
from bilo_ppl.run.compare.task import Task
from bilo_ppl.run.map.scores import compared_points
from bilo_ppl.surrogates import (
    Trained,
    TrainingSet,
    prior_thetas,
    solve_all,
    solve_with_derivatives,
)
from bilo_ppl.surrogates import train_deeponet as fit_deeponet
from bilo_ppl.surrogates import train_dino as fit_dino
from bilo_ppl.surrogates import train_fno as fit_fno

__all__ = ["COUNT", "deeponet", "dino", "fno"]

COUNT = 400
"""Draws from the prior at which the numerical operator solves."""

DEEPONET_STEPS, FNO_STEPS, DINO_STEPS = 8000, 4000, 4000

GRIDS = {1: (65,), 2: (33, 33)}
"""Points of the grid of a Fourier neural operator, by dimension."""

MODE_GRIDS = {1: (257,), 2: (65, 65)}
"""Points at which the modes of a DINO are known; what it costs hardly depends on them."""


def deeponet(task: Task) -> Outcome:
    """NUTS with a DeepONet."""
    data = _solutions(task, compared_points(task.file.problem))
    with task.spent.stage("training"):
        found = fit_deeponet(
            task.file.problem, data, key=task.key(1), steps=DEEPONET_STEPS, progress=False
        )
    return _sampled(task, data, found, DEEPONET_STEPS)


def fno(task: Task) -> Outcome:
    """NUTS with a Fourier neural operator."""
    domain = task.file.problem.domain
    shape = _grid("fno", GRIDS, domain.dimension)
    data = _solutions(task, domain.grid(*shape))
    with task.spent.stage("training"):
        found = fit_fno(
            task.file.problem, data, shape=shape, key=task.key(1), steps=FNO_STEPS, progress=False
        )
    return _sampled(task, data, found, FNO_STEPS)


def dino(task: Task) -> Outcome:
    """NUTS with a DINO."""
    problem = task.file.problem
    points = problem.domain.grid(*_grid("dino", MODE_GRIDS, problem.domain.dimension))
    with task.spent.stage("solving"):
        data = solve_with_derivatives(task.reference, _thetas(task), points, key=task.key(3))
    with task.spent.stage("training"):
        found = fit_dino(problem, data, key=task.key(1), steps=DINO_STEPS, progress=False)
    return _sampled(task, data, found, DINO_STEPS)


def _grid(method: str, grids: dict[int, tuple[int, ...]], dimension: int) -> tuple[int, ...]:
    if dimension not in grids:
        raise ValueError(
            f"{method}: there is no grid for {dimension} dimensions, only for "
            f"{' and '.join(map(str, grids))}."
        )
    return grids[dimension]


def _thetas(task: Task) -> Any:
    args, kwargs = task.arguments
    return prior_thetas(task.bound(task.reference), task.key(0), COUNT, *args, **kwargs)


def _solutions(task: Task, points: Any) -> TrainingSet:
    with task.spent.stage("solving"):
        return solve_all(task.reference, _thetas(task), points)


def _sampled(task: Task, data: TrainingSet, found: Trained, steps: int) -> Outcome:
    left_out = f", {data.unsolved} more not solved" if data.unsolved else ""
    if data.derivatives is not None:
        left_out += f", derivatives of each: {data.derivatives.changes.shape[1]}"
    return sampled(
        task,
        found.surrogate,
        training=f"{data.count} prior draws{left_out}",
        notes=f"test error {100 * found.median_error:.2g} %",
        settings={"solutions to learn from": data.count, "steps of training": steps},
    )
