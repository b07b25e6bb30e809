"""`find_map`: point estimates by gradient descent on the samplers' potential energy."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax

from bilo_ppl._pages import see
from bilo_ppl._types import Key
from bilo_ppl.estimate.descent import Descent
from bilo_ppl.estimate.files import check_same, load_state
from bilo_ppl.estimate.first_guess import Start, find_start
from bilo_ppl.estimate.gradient_check import check_gradient
from bilo_ppl.estimate.line_search import (
    LeastSquaresTrials,
    Trials,
    backtracking_lbfgs,
    gauss_newton,
)
from bilo_ppl.estimate.loop import MapState, begin, resumed
from bilo_ppl.estimate.objective import Objective
from bilo_ppl.estimate.result import (
    Estimate,
    History,
    evaluate,
    lag_note,
    message,
    solve_note,
)
from bilo_ppl.estimate.stopping import Best, Status, Stopping
from bilo_ppl.operators.base import AbstractSolutionOperator
from bilo_ppl.ppl.experiments import first_theta, initial_states

__all__ = ["find_map"]

METHODS = ("nested", "simultaneous")
MAX_MISSES = 10
FEW = 50
"""Unknowns up to which a Gauss-Newton step, a linear solve for each of them, is the cheaper one."""
IMPROVEMENT, MANY = 1e-4, 100
"""Fall of U for each unknown that is none, and unknowns that count: a draw from the posterior has, for
each of them, half a nat more than the least."""


def find_map(
    model: Callable,
    key: Key,
    *model_args: Any,
    method: str = "nested",
    optimizer: optax.GradientTransformation | None = None,
    init: Mapping[str, Any] | None = None,
    steps: int = 1000,
    inner_steps: int = 1,
    gradient_tolerance: float = 1e-3,
    step_tolerance: float = 0.0,
    patience: int | None = None,
    improvement: float | None = None,
    jacobian: bool = False,
    resume: "Estimate | str | Path | None" = None,
    progress: bool = True,
    **model_kwargs: Any,
) -> Estimate:
    """The maximum of the posterior density (MAP) of a NumPyro model with a solution site.

    The objective is the samplers' potential energy, ``U = -log p(values, data)``. By default it is the
    density in the space of the model, whose maximum does not depend on how a site is transformed;
    with ``jacobian`` it is that of the unconstrained position z, in which samplers move. Descent is in
    z either way. With flat priors the estimate is that of maximum likelihood.

    **Arguments**

    - ``model``, ``model_args``, ``model_kwargs``: an ordinary NumPyro model and its arguments. Arrays
      are traced: one compilation serves all data of one shape.
    - ``key``: for sites that start at the median of prior draws.
    - ``method``: "nested" solves every PDE to its operator's tolerance at every step, from the weights
      of the last accepted point; any solution operator will do (a numerical one makes it the discrete
      adjoint method). "simultaneous" takes ``inner_steps`` inner steps instead, whose solver state
      persists (Algorithm 1 of arXiv:2404.17789); the operator must be a `FineTuned`, whose solver
      has the learning rate of the weights.
    - ``optimizer``: any optax optimiser of z, by site: learning rates may differ between sites
      (`optax.partition`). By default ``optax.adam(1e-2)`` for "simultaneous". For "nested" two that
      need no learning rate: `gauss_newton`, which takes the fewest steps, for at most 50 unknowns and
      data with a normal or log-normal likelihood, else `backtracking_lbfgs`.
    - ``init``: values of latent sites, in the space of the model; a field stands for its weights.
      Other sites start at the first guess of `unknown_function`, at the operator's pretraining
      theta of the same name, or at the prior's median.
    - ``steps``: largest number of steps.
    - ``gradient_tolerance``: converged where no entry of the gradient of U in z is larger (nats per
      unit of z) and the PDE is solved; ``step_tolerance``: the same for the step in z.
    - ``patience``: stop after so many steps in which U fell by less than ``improvement`` nats; by
      default never for "simultaneous", else 100, or 12 with backtracking_lbfgs and gauss_newton.
      ``improvement`` is 1e-4 by default for each unknown, of which no more than 100 count.
    - ``resume``: an `Estimate`, or a file by `save_estimate`, of the same model, method and optimiser.

    The result is the best solved point ("nested") or the last one ("simultaneous"), where the PDE is
    solved once more to its tolerance. Ctrl-C keeps it; so does divergence, and the message says what to
    change. Raises a ``ValueError`` before anything expensive for bad arguments, a first guess
    outside the support, unknown names, negative noise, a model without solution site, or an operator
    whose gradient is wrong there (`PartialDerivative` without adaptation).

    Examples:
        >>> operator = bilo.OutputLayer(features, start, tolerance=1e-5)
        >>> estimate = bilo.find_map(model, key, operator, x, y, progress=False)
        >>> round(float(estimate.values["r"]), 2), estimate.converged
        (8.96, True)
    """
    _check(method, steps, inner_steps, gradient_tolerance, step_tolerance, patience, improvement)
    if patience is None and method == "nested":
        patience = 12 if optimizer is None or isinstance(optimizer, Trials) else 100
    start = find_start(model, key, model_args, model_kwargs, init or {})
    optimizer = _default_optimizer(method, start) if optimizer is None else optimizer
    _check_optimizer(optimizer, method, start)
    if improvement is None:
        improvement = IMPROVEMENT * min(_unknowns(start), MANY)
    objective = Objective(model, model_args, dict(model_kwargs), start.operators, jacobian)
    check_gradient(objective, start.z)
    stopping = Stopping(
        gradient_tolerance,
        step_tolerance,
        patience,
        improvement,
        MAX_MISSES if method == "nested" else None,
        isinstance(optimizer, Trials),
        isinstance(optimizer, LeastSquaresTrials),
        _inner_tolerance(start),
    )
    working = objective
    if method == "simultaneous":
        working = eqx.tree_at(lambda o: o.operators, objective, _one_steps(start, inner_steps))
    state, history = _first_state(working, start, optimizer, resume)
    descent = Descent(working, optimizer, stopping, state, history)
    interrupted = descent.run(steps, progress)
    return _result(objective, method, descent, interrupted, stopping.inner_tolerance)


def _default_optimizer(method: str, start: Start) -> optax.GradientTransformation:
    if method == "simultaneous":
        return _ADAM
    return _GAUSS_NEWTON if start.least_squares and _unknowns(start) <= FEW else _LBFGS


def _unknowns(start: Start) -> int:
    return sum(np.size(leaf) for leaf in jax.tree.leaves(start.z))


# One object each: a new one would compile everything again.
_GAUSS_NEWTON = gauss_newton()
_LBFGS = backtracking_lbfgs()
_ADAM = optax.adam(1e-2)


def _check(method, steps, inner_steps, gradient, step, patience, improvement) -> None:
    if method not in METHODS:
        raise ValueError(f"find_map: method is {method!r}; it must be one of {METHODS}.")
    for name, value, least in (
        ("steps", steps, 1),
        ("inner_steps", inner_steps, 1),
        ("gradient_tolerance", gradient, 0),
        ("step_tolerance", step, 0),
        ("improvement", 0 if improvement is None else improvement, 0),
        ("patience", 1 if patience is None else patience, 1),
    ):
        if not value >= least:
            raise ValueError(f"find_map: {name} is {value}; the least is {least}.")


def _check_optimizer(optimizer: Any, method: str, start: Start) -> None:
    if not isinstance(optimizer, Trials):
        return
    if method != "nested":
        raise ValueError(
            "find_map: backtracking compares U at solved points; with method='simultaneous' use an "
            "optimizer such as optax.adam."
        )
    if isinstance(optimizer, LeastSquaresTrials) and not start.least_squares:
        raise ValueError(
            "find_map: gauss_newton needs data with a normal or log-normal likelihood, of which there "
            "are none; leave optimizer out."
        )


def _inner_tolerance(start: Start) -> float:
    known = [operator.loss_tolerance for operator in start.operators.values()]
    return max((tolerance for tolerance in known if tolerance is not None), default=1.0)


def _one_steps(start: Start, inner_steps: int) -> dict[str, AbstractSolutionOperator]:
    try:
        return {
            name: operator.in_steps(
                first_theta(start.thetas[name], start.batches[name]), inner_steps
            )
            for name, operator in start.operators.items()
        }
    except NotImplementedError as error:
        raise ValueError(f"find_map: {str(error)[:-1]}; use method='nested'.") from error


def _first_state(
    objective: Objective, start: Start, optimizer: Any, resume: Any
) -> tuple[MapState, History | None]:
    state = begin(start.z, _states(objective.operators, start.batches), optimizer)
    if resume is None:
        return state, None
    if isinstance(resume, Estimate):
        check_same(state, resume.state)
        return resumed(resume.state), resume.history
    state, history = load_state(resume, state)
    return resumed(state), history


@eqx.filter_jit
def _states(
    operators: Mapping[str, AbstractSolutionOperator], batches: Mapping[str, int | None]
) -> dict[str, Any]:
    return initial_states(operators, batches)


def _result(
    objective: Objective, method: str, descent: Descent, interrupted: bool, tolerance: float
) -> Estimate:
    state = descent.state
    history = descent.history
    point = _chosen(state, method)
    if point is None:
        raise ValueError(_why_not_started(descent.objective, state))
    states = point.operator_states
    if method == "simultaneous":
        states = {name: inner.weights for name, inner in states.items()}
    energy, (states, found) = jax.device_get(evaluate(objective, point.z, states))
    ended = Status(int(state.status))
    status = ended.name.lower()
    if ended == Status.RUNNING:
        ended = status = "interrupted" if interrupted else "steps"
    text = message(ended, state, tolerance)
    went_on = ended not in {Status.DIVERGED, Status.INNER_DIVERGED}
    lagging = method == "simultaneous" and went_on and not history.inner_converged[-1]
    text += lag_note(history, found.info, tolerance) if lagging else solve_note(found.info)
    return Estimate(
        values={name: np.asarray(value) for name, value in found.values.items()},
        energy=float(energy),
        data_loss=float(found.data_loss),
        terms={name: float(value) for name, value in found.terms.items()},
        inner=found.info,
        status=status,
        message=text,
        history=history,
        z=dict(point.z),
        operator_states=dict(states),
        objective=objective,
        method=method,
        state=state,
    )


def _chosen(state: MapState, method: str) -> Best | None:
    """The point to report; None if not even the first one could be evaluated."""
    if method == "nested" and np.isfinite(state.best.energy):
        return state.best
    return state.last if np.isfinite(state.last.energy) else None


def _why_not_started(objective: Objective, state: MapState) -> str:
    _, (_, found) = jax.device_get(evaluate(objective, state.z, state.operator_states))
    bad = {n: float(v) for n, v in found.terms.items() if not np.isfinite(v)}
    return (
        f"find_map: U or its gradient is not finite at the first guess: {bad or 'the gradient'} "
        f"(lower-level loss {float(found.info.loss):.1e}). {see('Descents that end early')}"
    )
