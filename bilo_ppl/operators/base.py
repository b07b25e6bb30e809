"""Solution operators: from theta to the PDE solution, a function of a point."""

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array

from bilo_ppl._types import Field, Key, Scalar, Theta
from bilo_ppl.inner.fitting import FitReport
from bilo_ppl.inner.stop_reason import StopReason
from bilo_ppl.pde.problem import Problem

if TYPE_CHECKING:
    # To pyright Equinox's own alias declares a field of ``__init__``; at runtime it does not.
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

__all__ = ["AbstractSolutionOperator", "SolveInfo"]


class SolveInfo(NamedTuple):
    """What a solve reports: arrays only, so that samplers can carry and record them.

    Examples:
        >>> info = bilo.SolveInfo.of(steps=3, loss=1e-8, converged=True)
        >>> int(info.steps), bool(info.converged)
        (3, True)
    """

    steps: Any
    """Inner steps taken, int."""
    loss: Any
    """Lower-level loss at the end (an operator without one reports its own residual measure)."""
    reason: Any
    """Why the solve stopped: a `StopReason`, int."""

    @property
    def converged(self) -> Any:
        """Whether the tolerance was reached, bool."""
        return self.reason == StopReason.CONVERGED

    @classmethod
    def of(
        cls, steps: Any, loss: Any, converged: Any, otherwise: Any = StopReason.STEP_LIMIT
    ) -> "SolveInfo":
        """The report of a solve that converged, or stopped for the reason ``otherwise``."""
        reason = jnp.where(converged, jnp.int32(StopReason.CONVERGED), jnp.int32(otherwise))
        return cls(jnp.asarray(steps), jnp.asarray(loss), reason)


class AbstractSolutionOperator(eqx.Module):
    """Anything that solves the PDE for a given theta, differentiably.

    ``state`` is whatever a solve can start from (a warm start): weights for a fine-tuned network, an
    empty tuple for an operator without memory. The field depends on theta differentiably; the new
    state and the info do not.

    **How to write your own.** Subclass it with a field ``problem``, and give `init_state` and `solve`.
    In `solve`, first let theta in by `bilo_ppl.pde.theta.admit`, which checks and casts it; end with
    ``SolveInfo.of(steps, loss, converged)``. Everything must be traceable by JAX (``jit``, ``vmap``,
    reverse mode). All other methods have the answer "cannot" until you override them: a
    model with your operator can be sampled, estimated and compared without them. `ClosedForm` is an
    example.

    Examples:
        >>> from bilo_ppl.pde.theta import admit
        >>> class Exact(bilo.AbstractSolutionOperator):
        ...     problem: bilo.Problem
        ...     def init_state(self):
        ...         return ()
        ...     def solve(self, theta, state):
        ...         theta = admit(self.problem, theta, jnp.float64)
        ...         info = bilo.SolveInfo.of(0, 0.0, converged=True)
        ...         return lambda x: formula(x, theta), state, info
        >>> u = bilo.solution("u", Exact(problem), {"r": 4.0})
        >>> round(float(u(jnp.array([0.5]))), 4)
        0.324
    """

    problem: AbstractVar[Problem]

    @abc.abstractmethod
    def init_state(self) -> Any:
        """The state that a solve without history starts from."""

    @abc.abstractmethod
    def solve(self, theta: Theta, state: Any) -> tuple[Field, Any, SolveInfo]:
        """Solve at ``theta`` from ``state``: the solution, the new state, and the report."""

    @property
    def loss_tolerance(self) -> float | None:
        """Largest loss of a converged solve; None for an operator that has no such setting."""
        return None

    @property
    def differentiates_exactly(self) -> bool:
        """Whether a field's derivative along theta is the solution's wherever the solve converged.

        Where it is not, `searching` should give an operator of which it is true.
        """
        return True

    @property
    def home(self) -> Mapping[str, Array]:
        """Theta where the operator is known to solve, and a search may start; {} if there is none.

        Entries that are functions are left out.
        """
        return {}

    def unsolved(self, theta: Theta) -> Field | None:
        """What the operator knows of u at ``theta`` without solving; None if that means nothing."""
        return None

    def tightened(self, factor: float, max_steps: int) -> "AbstractSolutionOperator":
        """The operator with a tolerance ``factor`` times smaller, reached in ``max_steps`` steps."""
        self._cannot("solve more tightly than it does")

    def state_for(self, tight: Any, state: Any) -> Any:
        """A state of this operator as one of ``tight``, which `tightened` has made of it."""
        return jax.tree.map(lambda old, new: old.astype(new.dtype), state, tight.init_state())

    def corrected_near(
        self, theta: Theta, factor: float, max_steps: int
    ) -> "AbstractSolutionOperator | None":
        """The same for many thetas near ``theta``, by cheaper steps; None if there is no such way."""
        return None

    def refined(self) -> "AbstractSolutionOperator | None":
        """The operator with smaller steps, and less error; None if it has none."""
        return None

    def relaxed(self) -> "AbstractSolutionOperator":
        """The operator for finding a region of thetas: cheaper solves, to a looser tolerance."""
        return self

    def to_tolerance(self, tolerance: float) -> "AbstractSolutionOperator":
        """The operator with another tolerance."""
        self._cannot("be given a tolerance")

    def searching(self) -> "AbstractSolutionOperator":
        """The operator for a descent in theta: its own tolerance, and the true derivative."""
        return self

    def scouting(self) -> "AbstractSolutionOperator | None":
        """A much cheaper operator for a descent that ends near the right place; None if there is none."""
        return None

    def settled(self, theta: Theta, state: Any, *, key: Key) -> "AbstractSolutionOperator":
        """The operator with a state that solves at ``theta`` as its own: its home is there now."""
        return self

    def in_steps(self, theta: Theta, steps: int) -> "AbstractSolutionOperator":
        """``steps`` inner steps at every theta instead of a solve, first at ``theta``.

        For the simultaneous descent on weights and theta.
        """
        self._cannot("take inner steps, since it has no weights to descend on")

    @property
    def heeds_tolerance(self) -> bool:
        """Whether solves to a tighter tolerance come nearer to the solution."""
        return True

    @property
    def is_dear(self) -> bool:
        """Whether solves are better done one after the other: side by side, all take the most steps."""
        return False

    @property
    def can_be_fitted(self) -> bool:
        """Whether `loss_of_home_state` and `fitted_to` have an answer: what adaptation needs."""
        return False

    def loss_of_home_state(self, theta: Theta) -> Scalar:
        """Loss of the state of `init_state` at ``theta``, before any step."""
        self._cannot("tell its loss before a solve, since it has no weights to adapt")

    @property
    def checks_by_solving(self) -> bool:
        """Whether `loss_of_home_state` solves, and is better asked for at one theta after the other."""
        return False

    def fitted_to(
        self,
        thetas: Theta,
        *,
        rank: int,
        steps: int,
        key: Key,
        progress: bool,
        mesh: Mesh | None = None,
    ) -> tuple["AbstractSolutionOperator", FitReport]:
        """The operator adapted to a batch of thetas, so that they need no inner step any more.

        ``mesh`` are the devices over which the work may be spread; None: one.
        """
        self._cannot("be fitted to thetas, since it has no weights to adapt")

    def _cannot(self, what: str) -> NoReturn:
        raise NotImplementedError(f"a {type(self).__name__} cannot {what}.")
