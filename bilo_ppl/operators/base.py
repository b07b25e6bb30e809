"""Solution operators: from theta to the PDE solution, a function of a point."""

import abc
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx

from bilo_ppl._types import Field, Theta
from bilo_ppl.pde.problem import Problem

if TYPE_CHECKING:
    # To pyright Equinox's own alias declares a field of ``__init__``; at runtime it does not.
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

__all__ = ["AbstractSolutionOperator", "SolveInfo"]


class SolveInfo(NamedTuple):
    """What a solve reports: arrays only, so that samplers can carry and record them."""

    steps: Any
    """Inner steps taken, int."""
    loss: Any
    """Lower-level loss at the end (an operator without one reports its own residual measure)."""
    converged: Any
    """Whether the tolerance was reached, bool."""


class AbstractSolutionOperator(eqx.Module):
    """Anything that solves the PDE for a given theta, differentiably.

    ``state`` is whatever a solve can start from (a warm start): weights for a fine-tuned network, an
    empty tuple for an operator without memory. The field depends on theta differentiably; the new
    state and the info do not.
    """

    problem: AbstractVar[Problem]

    @abc.abstractmethod
    def init_state(self) -> Any:
        """The state that a solve without history starts from."""

    @abc.abstractmethod
    def solve(self, theta: Theta, state: Any) -> tuple[Field, Any, SolveInfo]:
        """Solve at ``theta`` from ``state``: the solution, the new state, and the report."""
