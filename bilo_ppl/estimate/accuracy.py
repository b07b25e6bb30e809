"""How far a point estimate is from that of a nearly exact solution of the PDE.

U and its gradient are computed again at the estimate, by solves to a much smaller loss at more points.
One Newton step, with the Hessian of the least-squares rows or that of Laplace's approximation, then says,
in posterior standard deviations, where the estimate would move.

Of many unknowns there is a bound: where rows r, with the Jacobian J, change by d, the estimate moves by
-(J^T J)^-1 J^T d. Of a Gaussian with the covariance (J^T J)^-1 that is at most |d| standard deviations,
in whatever direction, and however many unknowns there are; to first order, with J as it is.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from bilo_ppl._compile import jit_once
from bilo_ppl.estimate.derivatives import differentiated
from bilo_ppl.estimate.laplace_approximation import entries_of, laplace
from bilo_ppl.estimate.objective import Objective
from bilo_ppl.estimate.result import Estimate

__all__ = ["EstimateAccuracy", "check_estimate", "gauss_newton_covariance"]

SHIFT_LIMIT = 0.1
"""Largest shift of an estimate, in posterior standard deviations."""

CHEAPER = 20
"""How many times the unknowns may be where the Gauss-Newton Hessian does: it takes no differences."""


class EstimateAccuracy(NamedTuple):
    """What a tighter solve would change in an estimate.

    Examples:
        >>> abs(accuracy.energy_change) < 1e-4, accuracy.converged  # of the example before
        (True, True)
        >>> list(accuracy.shifts), accuracy.alarming, str(accuracy)[:4]
        (['r'], False, 'GOOD')
    """

    energy_change: float
    """U by the tighter solve, less U of the estimate."""
    shifts: dict[str, float] | None
    """By entry of the unconstrained position, in posterior standard deviations; None where these are not
    known."""
    loss: float
    """Loss of the tighter solve."""
    converged: bool
    """Whether it reached its tolerance."""
    note: str
    """Why there are no shifts, or by what the posterior standard deviations are."""
    bound: float | None = None
    """What no shift exceeds, in the same unit; None where that is not known, or the shifts are."""

    @property
    def largest_shift(self) -> float:
        """Largest shift in absolute value, or what bounds it; NaN without either."""
        if self.shifts:
            return max(map(abs, self.shifts.values()))
        return math.nan if self.bound is None else self.bound

    @property
    def good(self) -> bool:
        """Whether the estimate would hardly move, by a solve that has reached its tolerance."""
        return self.converged and self.largest_shift <= SHIFT_LIMIT

    @property
    def alarming(self) -> bool:
        """Whether the estimate would move: a bound does not tell."""
        return bool(self.shifts) and self.largest_shift > SHIFT_LIMIT

    def __str__(self) -> str:
        change = f"U by {self.energy_change:+.2g}"
        missed = "" if self.converged else ", short of its tolerance,"
        solve = f"solving to a loss of {self.loss:.0e}{missed}"
        verdict = "GOOD" if self.good else "ALARM" if self.alarming else "UNDECIDED"
        advice = (
            "" if self.good else " Estimate again with a tighter tolerance (--tol) or more points."
        )
        if self.bound is not None:
            return (
                f"{verdict}: {solve} would change {change}, and predictions by {self.bound:.2g} sd of "
                f"the noise: the estimate, to first order, by at most as many posterior sd.{advice}"
            )
        if self.shifts is None:
            return f"UNDECIDED: {solve} would change {change}; {self.note}"
        name = max(self.shifts, key=lambda n: abs(self.shifts[n]))  # pyright: ignore
        units = f" {self.note}" if self.note else ""
        return (
            f"{verdict}: {solve} would change {change}, and move the estimate by "
            f"{self.largest_shift:.2g} posterior sd ({name}){units}.{advice}"
        )


def check_estimate(
    estimate: Estimate, *, factor: float = 100.0, max_steps: int = 60, max_dimension: int = 30
) -> EstimateAccuracy:
    """Compare an estimate with that of solves to a loss ``factor`` times smaller, at more points.

    Posterior standard deviations are those of the Gauss-Newton Hessian where all data have normal
    likelihoods and determine the unknowns: it is free of the differences of gradients, and of the noise
    of solves in them, that Laplace's approximation is made of, which serves elsewhere. It is tried for
    up to 20 times ``max_dimension`` unknowns. For more than ``max_dimension``, where it does not serve
    and all data have normal likelihoods, there is the bound; else only the change of U is known. Raises
    a ``ValueError`` if an operator cannot be tightened.

    Examples:
        >>> from bilo_ppl.estimate import check_estimate
        >>> accuracy = check_estimate(estimate)
        >>> accuracy.good, accuracy.largest_shift < 0.1  # in posterior standard deviations
        (True, True)
    """
    objective = estimate.objective
    try:
        operators = {n: op.tightened(factor, max_steps) for n, op in objective.operators.items()}
    except NotImplementedError as error:
        raise ValueError(f"check_estimate: {error}") from error
    # The gradient is the true one, whatever the sensitivity of the operator.
    tight = {name: operator.searching() for name, operator in operators.items()}
    better = eqx.tree_at(lambda o: o.operators, objective, tight)
    states = {
        name: objective.operators[name].state_for(tight[name], state)
        for name, state in estimate.operator_states.items()
    }
    energy, gradient, rows, info = jax.device_get(_evaluated(better, estimate.z, states))
    gradient = np.asarray(ravel_pytree(gradient)[0], float)
    size = gradient.size
    covariance, note = _covariance(estimate, size, max_dimension)
    shifts = bound = None
    if covariance is not None:
        moved = -covariance @ gradient
        sd = np.sqrt(np.diag(covariance))
        shifts = dict(zip(entries_of(estimate.z), (moved / sd).tolist(), strict=True))
    elif size > max_dimension and objective.is_gaussian(estimate.z, estimate.operator_states):
        own = _rows(objective, estimate.z, estimate.operator_states)
        bound = float(np.linalg.norm(rows - np.asarray(own)))
    change = float(energy) - estimate.energy
    return EstimateAccuracy(change, shifts, float(info.loss), bool(info.converged), note, bound)


def _covariance(estimate: Estimate, size: int, max_dimension: int) -> tuple[np.ndarray | None, str]:
    """Of the posterior about the estimate, and what is to be said of it; None if it is not known.

    ``size`` is the number of unknowns.
    """
    if size <= CHEAPER * max_dimension:
        found = gauss_newton_covariance(estimate)
        if found is not None:
            return found, "by the Gauss-Newton Hessian"
    try:
        return laplace(estimate, max_dimension=max_dimension).covariance, ""
    except ValueError as error:
        return None, str(error).removeprefix("laplace: ").rstrip(".")


def gauss_newton_covariance(estimate: Estimate) -> np.ndarray | None:
    """Inverse of the Gauss-Newton Hessian of U; None unless all data are Gaussian and determine z."""
    where = estimate.z, estimate.operator_states
    if not estimate.objective.is_gaussian(*where):
        return None
    rows = np.asarray(_jacobian(estimate.objective, *where))
    normal = rows.T @ rows
    determined = np.isfinite(normal).all() and np.linalg.cond(normal) < 1 / np.finfo(float).eps
    return np.linalg.inv(normal) if determined else None


@jit_once
def _jacobian(objective: Objective, z: Any, states: Any) -> Any:
    """Of the least-squares rows of data and priors."""
    return differentiated(objective, z, states, rows=True)[2]


@jit_once
def _rows(objective: Objective, z: Any, states: Any) -> Any:
    """Of data and priors."""
    return objective.with_rows(z, states)[0][1]


@jit_once
def _evaluated(objective: Objective, z: Any, states: Any) -> Any:
    """U, its gradient, the rows of data and priors, and what the solves report."""

    def energy(z):
        (value, rows), (_, found) = objective.with_rows(z, states)
        return value, (rows, found.info)

    (value, (rows, info)), gradient = jax.value_and_grad(energy, has_aux=True)(z)
    return value, gradient, rows, info
