"""Rows spread over eight devices; `test_sharding.py` runs this file in a process that has them."""

import collections
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import bilo_ppl as bilo
from bilo_ppl.inner.fitting import fit
from bilo_ppl.inner.least_squares import LeastSquares, RowFamily
from bilo_ppl.inner.linearised import Dense, MatrixFree, linearise
from bilo_ppl.inner.sharded_gram import ShardedGram
from bilo_ppl.inner.sharding import everywhere
from bilo_ppl.inner.stepping import AllRows, PartOfRows

MESH = bilo.device_mesh()
SOLVER = bilo.LevenbergMarquardt(tolerance=1e-10, max_steps=20)
COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "reduce-scatter",
)


def problem(count, dtype=float):
    """Rows that no weights make zero: three a point, weighted, and one of a family of three items."""
    x = jnp.linspace(0.1, 1, count, dtype=dtype)

    def rows(w, x):
        u = jnp.sum(w["a"] * jnp.tanh(w["b"] * x))
        return {
            "pair": jnp.stack([u - jnp.sin(3 * x), x * u]),
            "end": jnp.atleast_1d(w["b"][0] * x),
        }

    def condition(w, c):
        return {"sum": jnp.atleast_1d(jnp.sum(w["a"]) - c)}

    items = jnp.asarray([0.3, 0.5, 0.9], dtype)
    return LeastSquares(
        (RowFamily(rows, x, {"end": 0.1}), RowFamily(condition, items, {"sum": 2.0}))
    )


def weights(count, dtype=float):
    rng = np.random.default_rng(0)
    return {name: jnp.asarray(rng.normal(size=count), dtype) for name in "ab"}


def collectives(program):
    """What devices tell each other, from the text of the compiled program."""
    found = re.findall(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(", program.as_text())
    return dict(collections.Counter(found))


def compiled(function, *args):
    # Methods of a module are not hashable.
    return jax.jit(lambda *args: function(*args)).lower(*args).compile()


def run(function, *args):
    return compiled(function, *args)(*args)


def talk(function, *args):
    return collectives(compiled(function, *args))


SIZES = [pytest.param(21, 8, id="primal"), pytest.param(7, 40, id="dual")]


def test_there_are_eight_devices():
    assert jax.device_count() == MESH.size == 8
    assert MESH.axis_names == ("rows",)


@pytest.mark.parametrize(("count", "width"), SIZES)
def test_rows_that_fill_up_change_nothing(count, width):
    one, w = problem(count), weights(width)
    many = one.over(MESH)
    assert many.count == one.count
    np.testing.assert_allclose(run(many.loss, w), one.loss(w), rtol=1e-13)
    terms, found = one.terms(w), run(many.terms, w)
    assert found.keys() == terms.keys()
    for name in terms:
        np.testing.assert_allclose(found[name], terms[name], rtol=1e-13)
    J, rows = run(lambda w: (many.jacobian(w), many.rows(w)), w)
    assert len(J) == len(rows) == 8 * (3 * -(-count // 8) + 1)
    assert J.sharding.shard_shape(J.shape) == (len(J) // 8, 2 * width)
    own = one.jacobian(w)
    # The order of the rows is another one.
    J, rows, own = np.asarray(J), np.asarray(rows), np.asarray(own)
    np.testing.assert_allclose(J.T @ J, own.T @ own, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(J.T @ rows, own.T @ one.rows(w), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("count", "width"), SIZES)
def test_a_step_is_that_of_one_device(count, width):
    one, w = problem(count), weights(width)

    @jax.jit
    def steps(w):
        system, rows = linearise(one.over(MESH), w, damped=True), one.over(MESH).rows(w)
        assert isinstance(system, ShardedGram)
        assert system.dual is (count == 7)
        found = [system.solve(damping, rows) for damping in (1e-5, 1e-2)]
        return found, jnp.sum((rows + system.apply(found[1])) ** 2)

    found, loss = steps(w)
    system = linearise(one, w)
    assert isinstance(system, Dense)
    for damping, step in zip((1e-5, 1e-2), found, strict=True):
        np.testing.assert_allclose(step, system.solve(damping, one.rows(w)), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(loss, jnp.sum((one.rows(w) + system.apply(found[1])) ** 2))


def test_a_step_in_single_precision_is_solved_for_in_double():
    one, w = problem(7, jnp.float32), weights(40, jnp.float32)

    @jax.jit
    def step(w):
        system = linearise(one.over(MESH), w, damped=True)
        assert system.normal.dtype == np.float64
        return system.solve(1e-4, one.over(MESH).rows(w))

    @jax.jit
    def wide(w):
        J, rows = one.jacobian(w).astype(float), one.rows(w).astype(float)
        return Dense(J).solve(1e-4, rows)

    found = step(w)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wide(w), atol=2e-4)


def test_conjugate_gradients_find_the_step_of_one_device():
    one, w = problem(7), weights(40)
    dense = linearise(one, w)

    @jax.jit
    def solve(w, rows):
        system = linearise(one.over(MESH), w)
        assert isinstance(system, MatrixFree)
        assert not system.dual
        unit = system.scale / dense.scale  # the trace is a random estimate
        return system.solve(0.01 / unit, one.over(MESH).rows(w)), unit

    step, unit = solve(w, one.rows(w))
    assert 0.3 < unit < 3
    np.testing.assert_allclose(step, dense.solve(0.01, one.rows(w)), rtol=1e-4, atol=1e-6)
    # The trace and the right side, in one or in two, and that of an iteration.
    found = collectives(solve.lower(w, one.rows(w)).compile())
    assert found in ({"all-reduce": 2}, {"all-reduce": 3})


ONE = {"all-reduce": 1}


@pytest.mark.parametrize(("count", "width"), SIZES)
def test_the_normal_matrix_and_a_solve_take_one_all_reduce(count, width):
    rows, size = np.zeros(8 * 4), problem(count).rows(weights(width)).size
    J = np.zeros((len(rows), 2 * width))
    J, rows = jax.device_put((J, rows), NamedSharding(MESH, P("rows")))
    dual = size <= 2 * width
    normal = talk(lambda J: ShardedGram(J, MESH, size).normal, J)
    assert normal == (ONE | {"all-to-all": 1} if dual else ONE)
    # Dual: the rows, which the factor is for, and then J^T y.
    given = ShardedGram(J, MESH, size), rows
    solve = talk(lambda system, rows: system.solve(1e-3, rows), *given)
    assert solve == {"all-reduce": 2 if dual else 1}


def test_rows_and_products_need_no_communication():
    many, w = problem(21).over(MESH), weights(8)
    step = jnp.ones(16)
    assert talk(lambda w: (many.rows(w), many.jacobian(w) @ step), w) == {}
    assert talk(lambda w: many.part(jax.random.key(0), 5).rows(w), w) == {}
    assert talk(many.loss, w) == ONE


@pytest.mark.parametrize(
    ("kind", "count", "width"), [(AllRows, 21, 8), (AllRows, 7, 40), (PartOfRows, 7, 40)]
)
def test_a_chunk_of_steps_gathers_nothing_and_is_compiled_once(kind, count, width):
    traced, w, stage = [], weights(width), jnp.array(0)

    def rows(_):
        traced.append("rows")
        return problem(8 * count).over(MESH)

    steps = kind(SOLVER, rows, w, stage, count, mesh=MESH)
    args = (w, steps._blank, jnp.array(True), stage, jnp.array(2), jnp.array(0))
    found = collectives(steps._run.lower(*args).compile().compiled)
    assert found.keys() <= {"all-reduce", "all-to-all"}
    reached = steps(w, None, stage, 2)
    before = len(traced)
    for length in (2, 3):
        reached = steps(reached.weights, reached.state, stage, length)
    assert len(traced) == before
    assert reached.weights["a"].sharding.device_set == {jax.devices()[0]}


def test_what_is_no_array_stays_as_it_is():
    given = {"a": np.ones(3), "b": jnp.tanh, "c": None, "d": 2.0, "e": jnp.array(True)}
    found = everywhere(given, MESH)
    assert (found["b"], found["c"], found["d"]) == (jnp.tanh, None, 2.0)
    for name in "ae":
        assert found[name].sharding.is_fully_replicated
        assert len(found[name].sharding.device_set) == 8


def test_a_fit_by_parts_ends_where_one_device_does():
    x = np.linspace(-1, 1, 2000)

    def data(w, item):
        return {"data": jnp.atleast_1d(w[0] * jnp.sin(w[1] * item[0]) + w[2] - item[1])}

    family = RowFamily(data, (jnp.asarray(x), jnp.asarray(2 * np.sin(3 * x) + 0.5)), {})
    start, options = jnp.array([1.0, 2.5, 0.0]), {"progress": False, "label": "", "mesh": MESH}
    found, report = fit(SOLVER, lambda _: LeastSquares((family,)), start, **options)
    np.testing.assert_allclose(found, [2, 3, 0.5], atol=1e-5)
    assert report.converged


def same(one, many, rtol):
    pairs = zip(*(jax.tree.leaves(o.weights) for o in (one, many)), strict=True)
    for expected, actual in pairs:
        np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol)
        assert actual.sharding == expected.sharding


def test_pretraining_is_that_of_one_device(small_problem, small_pretrained):
    found = bilo.pretrain(
        small_problem,
        {"D": 1.0},
        key=jax.random.key(0),
        solver=bilo.LevenbergMarquardt(tolerance=1e-8, max_steps=200),
        width=16,
        dtype=np.float64,
        progress=False,
        mesh=MESH,
    )
    assert found.report.steps == small_pretrained.report.steps
    assert found.report.loss == pytest.approx(small_pretrained.report.loss, rel=1e-5)
    same(small_pretrained.operator, found.operator, rtol=1e-6)


def test_consolidation_is_that_of_one_device(tuned):
    operator = eqx.tree_at(
        lambda o: o.operator, tuned, tuned.operator.with_lora(2, key=jax.random.key(1))
    )
    thetas = {"D": jnp.linspace(0.9, 1.1, 5)}
    options = {"rank": 2, "steps": 20, "key": jax.random.key(2), "progress": False}
    (one, alone), (many, report) = (
        operator.fitted_to(thetas, mesh=mesh, **options) for mesh in (None, MESH)
    )
    assert report.steps == alone.steps > 0
    assert report.loss == pytest.approx(alone.loss, rel=1e-3)
    same(one.operator, many.operator, rtol=1e-6)
