"""Features of a network, the inputs of its output layer, and their derivatives at points.

Where only the output layer is fine-tuned, and the features do not depend on theta, all that a residual at
a point can ask of them is known beforehand: their derivatives there. A Taylor polynomial takes the place
of the network.
"""

import math
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Key, Point, Points
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.network.lora import merge_lora
from bilo_ppl.network.mlp import MLP
from bilo_ppl.network.modulation import close_modulations
from bilo_ppl.pde.points import points_along_axes
from bilo_ppl.pde.problem import Problem

__all__ = [
    "Jets",
    "blinded",
    "features",
    "is_one_layer",
    "output_weights",
    "random_places",
    "taylor_value",
    "with_more_features",
    "with_output_weights",
]

POINTS_PER_SLOPE = 4
"""Points along an axis for a unit of steepness along it, in half widths of the domain: between fewer,
a unit may do what it likes."""

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
    inputs = operator.problem.inputs(x, {})
    nothing = jnp.zeros(len(operator.embedding.matrix), operator.dtype)
    hidden = _plain(operator).hidden(inputs, nothing)
    return jnp.concatenate([hidden, jnp.ones(1, operator.dtype)])


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


def is_one_layer(operator: LocalOperator) -> bool:
    """Whether the features are units of one hidden layer, which sees the inputs themselves."""
    network = _plain(operator)
    return len(network.layers) == 2 and network.frequencies is None


def with_more_features(
    operator: LocalOperator, more: float, shares: Float[Any, " n"], *, key: Key
) -> LocalOperator:
    """A blinded operator of one hidden layer with ``more`` times as many units beside its own.

    Half of the new ones are as steep as its own, along each axis in the root mean square, or half as
    steep again, and lie anywhere. The others are four or eight times as steep, as far as collocation
    points see that, and pass through points that are drawn with ``shares`` from the first ``n`` of these:
    where a solution is least right. There are at most half as many in all as collocation points. Their
    weights are zero.
    """
    network = _plain(operator)
    first, last = network.layers
    own, sides = first.weight.shape
    count = max(0, min(math.ceil(more * own), len(operator.points) // 2 - own))
    near = count // 2
    key_slope, key_place, key_point = jax.random.split(key, 3)
    size = jnp.sqrt(jnp.mean(first.weight**2, axis=0, keepdims=True))
    other = 1 + 0.5 * (jnp.arange(count - near) % 2)
    steeper = jnp.concatenate([other, 4.0 * (1 + jnp.arange(near) % 2)])[:, None]
    along = points_along_axes(operator.points)
    if type(operator.problem).inputs is not Problem.inputs:
        # These vary along any axis.
        along = np.full(sides, along.max())
    most = along[None] / POINTS_PER_SLOPE
    sizes = jnp.minimum(size * steeper, most)
    slopes = sizes * jax.random.normal(key_slope, (count, sides), first.weight.dtype)
    places = random_places(operator.problem, count - near, slopes.dtype, key_place)
    drawn = jax.random.choice(key_point, len(shares), (near,), p=jnp.asarray(shares))
    points = jnp.asarray(operator.points, slopes.dtype)[drawn]
    places = jnp.concatenate([places, _seen(operator.problem, points)])
    nothing = jnp.zeros((last.weight.shape[0], count), last.weight.dtype)
    return eqx.tree_at(
        lambda o: (
            o.network.layers[0].weight,
            o.network.layers[0].bias,
            o.network.layers[1].weight,
            o.network.modulations,
            o.embedding.matrix,
        ),
        eqx.tree_at(lambda o: o.network, operator, network),
        (
            jnp.concatenate([first.weight, slopes]),
            jnp.concatenate([first.bias, -jnp.sum(slopes * places, axis=1)]),
            jnp.concatenate([last.weight, nothing], axis=1),
            [type(m)(own + count, 0, first.weight.dtype) for m in network.modulations],
            jnp.zeros((own + count, operator.embedding.matrix.shape[1]), first.weight.dtype),
        ),
    )


def random_places(
    problem: Problem, count: int, dtype: Any, key: Key
) -> Float[Array, "count inputs"]:
    """What the network sees of ``count`` points that lie anywhere in the domain."""
    lower, upper = (np.asarray(end, dtype) for end in (problem.domain.lower, problem.domain.upper))
    anywhere = jax.random.uniform(key, (count, len(lower)), dtype, -1.0, 1.0)
    places = jax.vmap(lambda y: (lower + upper) / 2 + y * (upper - lower) / 2)(anywhere)
    return _seen(problem, places)


def _seen(problem: Problem, points: Any) -> Float[Array, "n inputs"]:
    return jax.vmap(lambda x: problem.inputs(x, {}))(points)


def _plain(operator: LocalOperator) -> MLP:
    network = merge_lora(operator.network)
    if not isinstance(network, MLP):
        raise TypeError(
            f"features: the network is a {type(network).__name__}; only of an MLP is it known which "
            "layer is the last."
        )
    return network


class Jets(eqx.Module):
    """All partial derivatives of the features up to an order at some points ``(n, d)``."""

    points: Float[Array, "n d"]
    table: Float[Array, "jets features n"]
    """Points come last: products with it then run along them."""
    axes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    """Along which axes each of them is taken, none for the value."""

    @classmethod
    def of(cls, operator: LocalOperator, points: Points, order: int) -> "Jets":
        """With derivatives up to an ``order``, computed once."""
        points = jnp.asarray(points, operator.dtype)
        return cls(points, _tabulated(operator, points, order), _axes(points.shape[1], order))


def taylor_value(
    jet: Float[Array, "components jets"], axes: tuple[tuple[int, ...], ...], step: Any
) -> Float[Array, " components"]:
    """What has the derivatives ``jet`` at a point, as far from it as ``step`` ``(d,)`` says."""
    terms = []
    for along in axes:
        # Step to the power of the multi-index, over its factorial.
        repeats = math.prod(math.factorial(along.count(axis)) for axis in set(along))
        power: Any = jnp.ones((), step.dtype)
        for axis in along:
            power = power * step[axis]
        terms.append(power / repeats)
    return jet @ jnp.stack(terms)


def _axes(dimension: int, order: int) -> tuple[tuple[int, ...], ...]:
    orders = range(order + 1)
    return tuple(a for k in orders for a in combinations_with_replacement(range(dimension), k))


@jit_once
def _tabulated(operator: LocalOperator, points: Any, order: int) -> Any:
    functions: list[Any] = [partial(features, operator)]
    for _ in range(order):
        functions.append(jax.jacfwd(functions[-1]))
    axes = _axes(points.shape[1], order)

    def at_point(x):
        tensors = [f(x) for f in functions]
        return jnp.stack([tensors[len(along)][(..., *along)] for along in axes])

    return jnp.moveaxis(jax.lax.map(at_point, points, batch_size=BATCH), 0, -1)
