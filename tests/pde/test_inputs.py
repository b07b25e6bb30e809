"""Whether what a network sees of a point follows theta."""

import jax.numpy as jnp
import pytest

import bilo_ppl as bilo
from bilo_ppl.pde.inputs import fixed_inputs


class Plain(bilo.Problem):
    parameters, components, domain = ("a", "b"), 1, bilo.Box((0.0, 0.0), (1.0, 2.0))
    points = domain.grid(5, 5)


class Kinked(Plain):
    def inputs(self, x, theta):
        return jnp.concatenate([x, jnp.abs(x[:1] - 0.3)])


class Moving(Plain):
    def inputs(self, x, theta):
        return jnp.abs(x - theta["a"])


class Defaulting(Plain):
    def inputs(self, x, theta):
        return jnp.abs(x - theta.get("a", 1.0))


class Listing(Plain):
    def inputs(self, x, theta):
        return jnp.concatenate([x, *(jnp.reshape(v, (1,)) for v in theta.values())])


class Greedy(Plain):
    def inputs(self, x, theta):
        return x * max(theta.values())


class Bare(Plain):
    def inputs(self, x, theta):
        return [x[0], x[1]]


@pytest.mark.parametrize(
    ("problem", "count"),
    [
        (Plain(), 2),
        (Kinked(), 3),
        (Moving(), None),
        # At a = 1 nothing tells.
        (Defaulting(), None),
        (Listing(), None),
        (Greedy(), None),
        (Bare(), None),
    ],
)
def test_fixed_inputs_are_told_from_those_that_follow_theta(problem, count):
    assert fixed_inputs(problem, {"a": 1.0, "b": 2.0}) == count
