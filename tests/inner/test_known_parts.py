"""Functions at a point that are evaluated in parts."""

import jax
import jax.numpy as jnp
import numpy as np

from bilo_ppl.inner.known_parts import PointFunction

TABLE = np.array([2.0, -1.0, 0.5], dtype=np.float32)
X = jnp.array([0.3, -0.7])
MORE = {"a": jnp.array([1.5, 0.2, -0.4]), "b": jnp.array(0.6)}


@jax.jit
def mixed(x, a):
    """A function of its own, in part of the point alone."""
    return jnp.tanh(3 * x[0]) * jnp.sum(a), jnp.exp(x[1])


def value(x, more, table):
    waves = jnp.sin(x[0] * jnp.arange(1.0, 4.0)) * jnp.flip(table)
    first, second = mixed(x, more["a"])
    clipped = jnp.clip(x[1] * 5, -1.0, 1.0)
    return {"sum": waves @ more["a"] + clipped * more["b"] ** 2 + first, "point": second}


def both_ways(x, more):
    traced = PointFunction(value, x, more, TABLE)
    return value(x, more, TABLE), traced.finish(traced.known(x), more)


def test_the_value_is_that_of_the_whole():
    for wanted, found in zip(*map(jax.tree.leaves, both_ways(X, MORE)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_what_follows_from_the_point_is_taken_as_it_is_given():
    traced = PointFunction(value, X, MORE, TABLE)
    known = traced.known(X)
    found = traced.finish(known, MORE)
    np.testing.assert_allclose(found["sum"], value(X, MORE, TABLE)["sum"], rtol=1e-6)
    # What is given is taken, of another point as well.
    elsewhere = traced.finish(traced.known(2 * X), MORE)
    np.testing.assert_allclose(elsewhere["sum"], value(2 * X, MORE, TABLE)["sum"], rtol=1e-6)
    # The waves, the clipped coordinate and tanh of the inner function; exp, which is a result.
    assert sorted(v.shape for v in known) == [(), (), (), (3,)]


def test_nothing_that_needs_theta_is_known():
    traced = PointFunction(value, X, MORE, TABLE)
    assert all(np.isfinite(v).all() for v in traced.known(X))
    nowhere = jax.tree.map(lambda leaf: leaf * jnp.nan, MORE)
    assert np.isnan(traced.finish(traced.known(X), nowhere)["sum"])


def test_derivatives_and_batches_are_those_of_the_whole():
    def whole(more, x):
        return value(x, more, TABLE)["sum"]

    def parts(more, x):
        return both_ways(x, more)[1]["sum"]

    for name in MORE:
        wanted, found = (jax.grad(f)(MORE, X)[name] for f in (whole, parts))
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        assert np.any(np.asarray(wanted) != 0)
    points = jnp.stack([X, -X, 2 * X])
    many = [jax.vmap(f, (None, 0))(MORE, points) for f in (whole, parts)]
    np.testing.assert_allclose(*many, rtol=1e-5)


def test_a_name_is_that_of_the_equations():
    def name(f, more, table=TABLE):
        return PointFunction(f, X, more, table).name

    named = []
    jax.jit(lambda more, table: named.append(name(value, more, table)))(MORE, TABLE)
    assert named == [name(value, MORE)]
    assert name(value, {"a": MORE["a"], "b": MORE["a"]}) != named[0]
    assert name(lambda x, more, table: x[0] * more["b"], MORE) != named[0]


def test_a_function_with_effects_is_not_pure():
    def talks(x, more, table):
        jax.debug.print("{}", x)
        return x @ x

    assert not PointFunction(talks, X, MORE, TABLE).is_pure
    assert PointFunction(value, X, MORE, TABLE).is_pure
