"""A neural operator behind ``solution``: no solve, and no residual that would tell how wrong it is."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from bilo_ppl._types import Field, Point, Theta
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import admit
from bilo_ppl.surrogates.deeponet import DeepONet
from bilo_ppl.surrogates.dino import DINO
from bilo_ppl.surrogates.encoding import ThetaEncoding
from bilo_ppl.surrogates.fno import FNO

__all__ = ["Surrogate"]


class Surrogate(AbstractSolutionOperator):
    """u = lift(x, s * network(x; theta), theta) with a trained `DeepONet` or `FNO`; a `DINO` is u itself.

    A solve costs one pass of the network and always counts as converged: outside of what it was trained
    on a surrogate is wrong without saying so. ``s`` is the size of what the network has to learn.

    >>> surrogate = trained.surrogate  # of the example before
    >>> u, _, info = surrogate.solve({"r": 9.0}, surrogate.init_state())
    >>> float(u(jnp.array([0.0]))), bool(info.converged)  # 1 at the left end, by the lift
    (1.0, True)
    >>> round(float(surrogate.home["r"]), 1)  # the thetas went from 2 to 15
    8.7
    """

    problem: Problem
    network: DeepONet | FNO | DINO
    encoding: ThetaEncoding
    size: Array
    home_theta: dict[str, Array]
    """The middle of the training set, without the entries that are functions."""

    @property
    def home(self) -> dict[str, Array]:
        """The middle of the training set."""
        return self.home_theta

    def init_state(self) -> tuple[()]:
        """Nothing is carried from one solve to the next."""
        return ()

    def solve(self, theta: Theta, state: Any) -> tuple[Field, Any, SolveInfo]:
        """One pass of the network."""
        theta = admit(self.problem, theta, jnp.result_type(float))
        return self.field(theta), state, SolveInfo.of(0, 0.0, True)

    def unsolved(self, theta: Theta) -> Field:
        """The solution itself, as far as it is known."""
        return self.field(admit(self.problem, theta, jnp.result_type(float)))

    def field(self, theta: Theta) -> Field:
        """The solution at one theta, a function of a point."""
        return _AtTheta(self, theta, self.network.at(self.encoding(theta)))


class _AtTheta(eqx.Module):
    """The surrogate's solution: what depends on theta alone is computed once."""

    surrogate: Surrogate
    theta: Any
    known: Any

    def __call__(self, x: Point) -> Any:
        surrogate, problem = self.surrogate, self.surrogate.problem
        x = jnp.atleast_1d(x)
        if isinstance(surrogate.network, DINO):
            u = surrogate.network.value(self.known, x)
            return u if problem.components > 1 else u[0]
        inputs = x if isinstance(surrogate.network, FNO) else problem.inputs(x, self.theta)
        raw = surrogate.size * surrogate.network.value(self.known, inputs.astype(jnp.float32))
        return problem.lift(x, raw if problem.components > 1 else raw[0], self.theta)
