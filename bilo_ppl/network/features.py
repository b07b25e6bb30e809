"""Features of a network, the inputs of its output layer, and their Taylor polynomials at points.

Where only the output layer is fine-tuned, and the features do not depend on theta, all that a residual at
a point can ask of them is known beforehand: their derivatives there. A polynomial with the same
derivatives takes the place of the network.
"""

import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Point, Points
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.network.lora import merge_lora
from bilo_ppl.network.mlp import MLP
from bilo_ppl.network.modulation import close_modulations

__all__ = ["Polynomials", "blinded", "features", "output_weights", "with_output_weights"]

BATCH = 64
"""Points whose derivatives are computed side by side."""


def blinded(operator: LocalOperator) -> LocalOperator:
    """The operator with the features that it has at the theta of its training, whatever theta is."""
    network = close_modulations(_plain(operator))
    still = [
        eqx.tree_at(lambda m: m.matrix.value, m, replace_fn=jnp.zeros_like)
        for m in network.modulations
    ]
    return eqx.tree_at(
        lambda o: (o.network, o.embedding.matrix),
        operator,
        (
            eqx.tree_at(lambda n: n.modulations, network, still),
            jnp.zeros_like(operator.embedding.matrix),
        ),
    )


def features(operator: LocalOperator, x: Point) -> Float[Array, " features"]:
    """What the output layer of a blinded operator sees at a point ``(d,)``, with a one for its bias."""
    network = _plain(operator)
    size = network.layers[-1].weight.shape[1]
    bare = eqx.tree_at(
        lambda n: (n.layers[-1].weight, n.layers[-1].bias),
        network,
        (jnp.eye(size, dtype=operator.dtype), jnp.zeros(size, operator.dtype)),
    )
    inputs = operator.problem.domain.normalise(x)
    nothing = jnp.zeros(len(operator.embedding.matrix), operator.dtype)
    return jnp.concatenate([bare(inputs, nothing), jnp.ones(1, operator.dtype)])


def output_weights(operator: LocalOperator) -> Float[Array, "components features"]:
    """The output layer, its bias as the last column."""
    last = _plain(operator).layers[-1]
    return jnp.concatenate([last.weight, last.bias[:, None]], axis=1)


def with_output_weights(
    operator: LocalOperator, weights: Float[Array, "components features"]
) -> LocalOperator:
    """The operator with another output layer."""
    network = eqx.tree_at(
        lambda n: (n.layers[-1].weight, n.layers[-1].bias),
        _plain(operator),
        (weights[:, :-1].astype(operator.dtype), weights[:, -1].astype(operator.dtype)),
    )
    return eqx.tree_at(lambda o: o.network, operator, network)


def _plain(operator: LocalOperator) -> MLP:
    network = merge_lora(operator.network)
    if not isinstance(network, MLP):
        raise TypeError(
            f"features: the network is a {type(network).__name__}; only of an MLP is it known which "
            "layer is the last."
        )
    return network


class Polynomials(eqx.Module):
    """Taylor polynomials of the features, one about each of some points ``(n, d)``."""

    points: Float[Array, "n d"]
    derivatives: tuple[Float[Array, "n features ..."], ...]
    """By order: values, gradients, second derivatives, ..."""

    @classmethod
    def of(cls, operator: LocalOperator, points: Points, order: int) -> "Polynomials":
        """With derivatives up to an ``order``, computed once."""
        points = jnp.asarray(points, operator.dtype)
        return cls(points, _tabulated(operator, points, order))

    @staticmethod
    def value(
        derivatives: tuple[Any, ...], weights: Float[Array, "components features"], step: Any
    ) -> Float[Array, " components"]:
        """The raw output, as far from the point as ``step`` says, by the derivatives at one point."""
        total: Any = 0.0
        for order, table in enumerate(derivatives):
            term = jnp.tensordot(weights, table, 1)
            for _ in range(order):
                term = term @ step
            total = total + term / math.factorial(order)
        return total


@jit_once
def _tabulated(operator: LocalOperator, points: Any, order: int) -> tuple[Any, ...]:
    functions: list[Any] = [partial(features, operator)]
    for _ in range(order):
        functions.append(jax.jacfwd(functions[-1]))
    return tuple(jax.lax.map(f, points, batch_size=BATCH) for f in functions)
