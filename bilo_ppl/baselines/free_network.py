"""A network whose weights nothing determines but data and equation together: what a PINN is made of."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.primitives import Messenger

from bilo_ppl._types import Field, Key, Scalar, Theta, Weights
from bilo_ppl.inner.lower_level import LowerLevel
from bilo_ppl.inner.sensitivity import PartialDerivative
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import admit
from bilo_ppl.ppl.effect import TYPE

__all__ = ["FreeNetwork", "free_networks"]


class FreeNetwork(AbstractSolutionOperator):
    """u = lift(x, network(x; W), theta), a network that does not see theta.

    It stands behind ``solution`` as any operator does, but solves nothing: u is what its state, the
    weights W, makes it. What a solve reports as its loss is the mean squared residual there. In
    `bilo_ppl.baselines.fit_pinn` and `bilo_ppl.baselines.bpinn` W is an unknown beside theta.

    >>> from bilo_ppl.baselines import FreeNetwork
    >>> free = FreeNetwork(problem, start, key=key, width=4)
    >>> u, weights, info = free.solve({"r": 9.0}, free.init_state())
    >>> int(info.steps), bool(info.loss == free.mean_squares({"r": 9.0}, weights))  # nothing is solved
    (0, True)
    >>> round(float(free.sum_of_squares({"r": 9.0}, weights) / info.loss))  # over 21 points
    21
    """

    level: LowerLevel

    def __init__(self, problem: Problem, theta: Theta, *, key: Key, **architecture: Any):
        """A network at random weights.

        ``theta`` is a first guess, ``architecture`` are arguments of `LocalOperator`: width, depth,
        fourier, dtype, or a ``network`` of one's own, of which all but `bilo_ppl.network.Frozen` are
        weights.
        """
        operator = LocalOperator(problem, theta, key=key, **{**architecture, "embedded": ()})
        self.level = LowerLevel(operator, PartialDerivative())

    @property
    def problem(self) -> Problem:
        """The PDE."""
        return self.operator.problem

    @property
    def operator(self) -> LocalOperator:
        """The network with its lift, at the weights of `init_state`."""
        return self.level.operator

    @property
    def home(self) -> Mapping[str, Array]:
        """The first guess."""
        return self.operator.home

    def init_state(self) -> Weights:
        """The weights."""
        return self.operator.weights

    def solve(self, theta: Theta, state: Weights) -> tuple[Field, Weights, SolveInfo]:
        """The network at the weights ``state``: nothing is solved."""
        theta = admit(self.problem, theta, self.operator.dtype)
        loss = self.level.at(theta).loss(state)
        return self.operator.with_weights(state).field(theta), state, SolveInfo.of(0, loss, True)

    def mean_squares(self, theta: Theta, weights: Weights) -> Scalar:
        """The PDE loss at theta: mean squared residual, and squares of conditions."""
        return self.level.at(admit(self.problem, theta, self.operator.dtype)).loss(weights)

    def sum_of_squares(self, theta: Theta, weights: Weights) -> Scalar:
        """The sum over all collocation points of the squared residual, and the squares of conditions."""
        least_squares = self.level.at(admit(self.problem, theta, self.operator.dtype))
        return sum(  # pyright: ignore[reportReturnType]
            family.count * jnp.sum(rows**2)
            for family in least_squares.families
            for rows in family.named(weights).values()
        )


class free_networks(Messenger):  # noqa: N801
    """Give the weights of `FreeNetwork` s and collect what the equation says of them.

    ``weights_of(name, operator, batch)`` gives the weights at a solution site: for `solutions`, of
    ``batch`` experiments, with that axis in front of every array. ``measure`` is
    `FreeNetwork.mean_squares` or `FreeNetwork.sum_of_squares`. After the model has run,
    ``handler.losses`` holds that of every solution site, over experiments the sum, and ``handler.fields``
    the solutions.
    """

    def __init__(
        self,
        fn: Callable | None = None,
        *,
        weights_of: Callable[[str, FreeNetwork, int | None], Weights],
        measure: Callable[[FreeNetwork, Theta, Weights], Scalar],
    ):
        self.weights_of, self.measure = weights_of, measure
        self.losses: dict[str, Scalar] = {}
        self.fields: dict[str, Any] = {}
        super().__init__(fn)

    def process_message(self, msg: Any) -> None:
        """Put in the weights, and look at the residual."""
        if msg["type"] != TYPE:
            return
        (operator, theta), batch, name = msg["args"], msg["kwargs"]["batch"], msg["name"]
        if not isinstance(operator, FreeNetwork):
            raise TypeError(
                f"solution({name!r}): the operator is a {type(operator).__name__}; a PINN needs a "
                "bilo_ppl.baselines.FreeNetwork in its place."
            )
        weights = self.weights_of(name, operator, batch)
        msg["kwargs"]["state"] = weights
        self.losses[name] = self._loss(operator, theta, weights, batch)

    def postprocess_message(self, msg: Any) -> None:
        """Keep the solution."""
        if msg["type"] == TYPE:
            self.fields[msg["name"]] = msg["value"].field

    def _loss(self, operator, theta, weights, batch) -> Scalar:
        if batch is None:
            return self.measure(operator, theta, weights)
        functions = {entry: value for entry, value in theta.items() if callable(value)}
        arrays = {entry: value for entry, value in theta.items() if entry not in functions}

        def one(arrays, weights):
            return self.measure(operator, {**functions, **arrays}, weights)

        return jnp.sum(eqx.filter_vmap(one)(arrays, weights))
