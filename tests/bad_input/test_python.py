"""The Python API, given what it cannot use: a ValueError or TypeError of its own, before any work."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl.diagnostics import goodness_of_fit, load
from bilo_ppl.pde.collocation import resized
from bilo_ppl.pde.data import Observations, check
from bilo_ppl.pde.point_checks import check_point
from bilo_ppl.pde.points import even_part

KEY = jax.random.key(0)
SPACE = bilo.interval(0.0, 1.0)


@pytest.fixture(scope="module")
def problem(loaded):
    return loaded.problem


@pytest.fixture(scope="module")
def local(problem):
    return bilo.LocalOperator(problem, {"a": 1.0}, key=KEY, width=8, depth=1)


@pytest.fixture(scope="module")
def exact(problem):
    return bilo.ClosedForm(problem, lambda x, theta: theta["a"] * x[0])


BOXES = [
    (lambda: bilo.interval(1.0, 0.0), "lower must be below upper"),
    (lambda: bilo.interval(0.0, 0.0), "lower must be below upper"),
    (lambda: bilo.interval(0.0, np.inf), "limits must be finite"),
    (lambda: bilo.interval(np.nan, 1.0), "limits must be finite"),
    (lambda: bilo.Box((0.0,), (1.0, 2.0)), "lower has 1 and upper 2"),
    (lambda: bilo.Box((), ()), "at least one"),
    (lambda: bilo.Box((0.0,), (1.0,), time=1), "none of the coordinates"),
    (lambda: bilo.space_time(bilo.time_interval(0, 1), 1.0), "is time already"),
    (lambda: bilo.space_time(SPACE, 0.0), "lower must be below upper"),
    (lambda: SPACE.grid(1), "at least 2"),
    (lambda: SPACE.grid(0), "at least 2"),
    (lambda: SPACE.grid(-3), "at least 2"),
    (lambda: SPACE.grid(3, 3), "needs 1 counts"),
    (lambda: SPACE.grid([0.5, 0.1]), "increasing"),
    (lambda: SPACE.grid([0.5, 1.5]), "outside"),
    (lambda: SPACE.grid([0.5, np.nan]), "increasing"),
    (lambda: bilo.graded(SPACE, 1, 0.5, width=0.1, density=3.0), "at least 2 points"),
    (lambda: bilo.graded(SPACE, 9, 1.5, width=0.1, density=3.0), "outside"),
    (lambda: bilo.graded(SPACE, 9, 0.5, width=0.0, density=3.0), "positive width"),
    (lambda: bilo.graded(SPACE, 9, 0.5, width=0.1, density=-1.0), "density"),
    (lambda: bilo.graded(SPACE.until(1.0), 9, 0.5, width=0.1, density=1.0), "needs an interval"),
    (lambda: bilo.hammersley(), "one array of coordinates"),
    (lambda: bilo.hammersley([0.1, 0.2], [0.3]), "all of one length"),
    (lambda: bilo.hammersley([0.1, 0.1], [0.3, 0.4]), "repeat or are not finite"),
    (lambda: bilo.masked(SPACE.grid(3), [True]), "the mask has shape"),
    (lambda: bilo.masked(SPACE.grid(3), [False] * 3), "no point is left"),
    (lambda: even_part(SPACE.grid(3), 4), "4 of 3 points"),
    (lambda: even_part(SPACE.grid(3), 0), "0 of 3 points"),
    (lambda: resized(np.array([[0.5]]), SPACE, 0), "0 of 1 points"),
    (lambda: bilo.image_domain(np.zeros((3, 3), bool), spacing=1.0), "no voxel"),
    (lambda: bilo.image_domain(np.ones(3, bool), spacing=1.0), "2 or 3 axes"),
    (lambda: bilo.image_domain(np.ones((3, 3)) * 0.5, spacing=1.0), "True and False"),
    (lambda: bilo.image_domain(np.ones((3, 3), bool), spacing=0.0), "spacing must be positive"),
    (lambda: bilo.image_domain(np.ones((3, 3), bool), spacing=-1.0), "spacing must be positive"),
    (lambda: bilo.image_domain(np.ones((3, 3), bool), spacing=np.nan), "finite"),
]


@pytest.mark.parametrize("number", range(len(BOXES)))
def test_domains_and_points(number):
    make, message = BOXES[number]
    with pytest.raises(ValueError, match=message):
        make()


def operator(**options):
    return lambda problem: bilo.LocalOperator(problem, {"a": 1.0}, key=KEY, **options)


OPERATORS = [
    (operator(width=0), "width is 0"),
    (operator(width=-1), "width is -1"),
    (operator(width=10**7), "make .* weights"),
    (operator(depth=0), "depth is 0"),
    (operator(depth=10**9), "make .* weights"),
    (operator(fourier=-1), "fourier is -1"),
    (operator(dtype=np.int32), "dtype"),
    (operator(dtype=np.float16), "dtype"),
    (operator(scales={"a": 0.0}), "scales must be positive"),
    (operator(scales={"a": -1.0}), "scales must be positive"),
    (operator(scales={"q": 1.0}), "not parameters"),
    (operator(embedded=("q",)), "not parameters"),
    (lambda problem: bilo.LocalOperator(problem, {}, key=KEY), "missing"),
    (lambda problem: bilo.LocalOperator(problem, {"a": "1"}, key=KEY), "no real number"),
    (lambda problem: bilo.LocalOperator(problem, {"a": np.nan}, key=KEY), "not finite"),
    (lambda problem: bilo.pretrain(problem, {}, key=KEY), "missing"),
    (lambda problem: bilo.pretrain(problem, {"a": None}, key=KEY), "no real number"),
    (lambda problem: bilo.pretrain(problem, {"a": np.inf}, key=KEY), "not finite"),
    (lambda problem: bilo.pretrain(problem, {"a": 1.0}, key=KEY, width=0), "width is 0"),
    (lambda problem: bilo.LevenbergMarquardt(0.0, 5), "tolerance"),
    (lambda problem: bilo.LevenbergMarquardt(-1.0, 5), "tolerance"),
    (lambda problem: bilo.LevenbergMarquardt(np.nan, 5), "tolerance"),
    (lambda problem: bilo.LevenbergMarquardt(1e-6, -1), "max_steps"),
]


@pytest.mark.parametrize("number", range(len(OPERATORS)))
def test_operators(problem, number):
    make, message = OPERATORS[number]
    with pytest.raises(ValueError, match=message):
        make(problem)


USES = [
    (lambda o: o.with_lora(-1, key=KEY), "rank -1 is not between"),
    (lambda o: o.with_lora(100, key=KEY), "rank 100 is not between"),
    (lambda o: o.field({"a": 1.0})(jnp.array([3.0])), "lies outside the domain"),
    (lambda o: o.field({"a": 1.0})(jnp.array([-0.01])), "lies outside the domain"),
    (lambda o: o.field({"a": 1.0})(jnp.zeros((4, 1))), r"write jax.vmap\(u\)\(x\)"),
    (lambda o: o.field({"a": 1.0})(jnp.zeros(2)), r"x has shape \(2,\)"),
    (lambda o: o(jnp.array([3.0]), {"a": 1.0}), "lies outside the domain"),
]


@pytest.mark.parametrize("number", range(len(USES)))
def test_uses_of_an_operator(local, number):
    use, message = USES[number]
    with pytest.raises(ValueError, match=message):
        use(local)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 2)), "write jax.vmap"),
        (np.zeros(3), r"x has shape \(3,\)"),
        (np.zeros(()), r"x has shape \(\)"),
        (np.array([0.5, 1.1]), "lies outside"),
        (np.array([np.nan, 0.5]), "lies outside"),
    ],
)
def test_a_point_of_the_plane(x, message):
    with pytest.raises(ValueError, match=message):
        check_point(bilo.Box((0.0, 0.0), (1.0, 1.0)), x)


def test_points_on_the_edge_in_single_precision_are_inside():
    domain = bilo.interval(0.1, 0.3)
    for x in (0.1, 0.3):
        check_point(domain, jnp.array([x], jnp.float32))


X, Y = np.array([[0.2], [0.6]]), np.array([0.1, 0.2])


def model_with(change):
    def model(operator, x, y, sigma=0.1):
        a = numpyro.sample("a", dist.LogNormal(0.0, 1.0))
        change(operator, a, x, y, sigma)

    return model


def seen(operator, a, x, y, sigma, scale=None):
    u = bilo.solution("u", operator, {"a": a})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma if scale is None else scale), obs=y)


def discrete(operator, a, x, y, sigma):
    numpyro.sample("k", dist.Poisson(2.0))
    seen(operator, a, x, y, sigma)


def unmapped(operator, a, x, y, sigma):
    u = bilo.solution("u", operator, {"a": a})
    numpyro.sample("y", dist.Normal(u(x), sigma), obs=y)


def forgotten(operator, a, x, y, sigma):
    u = bilo.solution("u", operator, {"a": a})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma))


def twice(operator, a, x, y, sigma):
    u = bilo.solution("u", operator, {"a": a})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x)[:, None], sigma), obs=y)


def mapped(operator, a, x, y, sigma):
    u = jax.vmap(lambda b: bilo.solution("u", operator, {"a": b})(x[0]))(a * jnp.ones(2))
    numpyro.sample("y", dist.Normal(u, sigma), obs=y)


MODELS = [
    (seen, (X + 3.0, Y), "points outside of the domain"),
    (seen, (X - 3.0, Y), "points outside of the domain"),
    (seen, (X, np.array([0.1, np.nan])), "missing"),
    (seen, (X, Y, 1e-12), "the noise of 'y' is 1e-12"),
    (seen, (X, Y, -1.0), "has scale = -1; it must be positive"),
    (seen, (X[:, 0], Y), "a solution is a function of one point|fails|x has shape"),
    (seen, (np.zeros((2, 3)), Y), r"x has shape \(3,\)"),
    (seen, (X, Y[:, None]), "count several times"),
    (discrete, (X, Y), "'k' is discrete"),
    (unmapped, (X, Y), r"write jax.vmap\(u\)\(x\)"),
    (forgotten, (X, Y), "no likelihood"),
    (twice, (X, Y), "count several times"),
    (mapped, (X, Y), "inside of a jax.vmap"),
]


@pytest.mark.parametrize("number", range(len(MODELS)))
def test_models(exact, number):
    change, args, message = MODELS[number]
    if number == 5:
        args = (np.zeros((2, 2)), Y)
    with pytest.raises(ValueError, match=message):
        bilo.check_model(model_with(change), exact, *args)


def test_a_good_model(exact):
    bilo.check_model(model_with(seen), exact, X, Y)


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ({}, "missing"),
        ({"a": 1.0, "b": 2.0}, "unknown"),
        ({"a": np.nan}, "not finite"),
        ({"a": "x"}, "no real number"),
        ({"a": None}, "no real number"),
        ({"a": True}, "no real number"),
        ({"a": np.array([True, False])}, "no real number"),
        ({"a": []}, "is empty"),
    ],
)
def test_theta(exact, theta, message):
    with pytest.raises(ValueError, match=message):
        bilo.solution("u", exact, theta)


DATA = [
    ((X, Y, 0.0), "must be positive"),
    ((X, Y, np.nan), "not a finite number"),
    ((X, Y, [0.1, 0.1, 0.1]), "sigma has shape"),
    ((X, Y, "small"), "not an array of numbers"),
    ((X, Y[:1], 0.1), "as many entries"),
    ((X[:, 0], Y, 0.1), "x has shape"),
    ((X[:0], Y[:0], 0.1), "no observations"),
    ((X + 1, Y, 0.1), "outside the domain"),
    ((X, Y * np.inf, 0.1), "y is inf"),
    ((X, ["a", "b"], 0.1), "not an array of numbers"),
    ((X, Y, 0.1, ["a"]), "experiment"),
    ((X, Y, 0.1, [["a"], ["b"]]), "experiment"),
]


@pytest.mark.parametrize("number", range(len(DATA)))
def test_observations(number):
    values, message = DATA[number]
    with pytest.raises(ValueError, match=message):
        check(Observations(*values), SPACE)


RESULTS = [
    (lambda o: bilo.certify(model_with(seen), {"b": np.ones((2, 3))}, o, X, Y, reference=o), "a"),
    (lambda o: bilo.certify(model_with(seen), {}, o, X, Y, reference=o), "no draws"),
    (lambda o: bilo.certify(model_with(seen), {"a": np.ones((2, 3))}, o, X, Y, reference=o,
                            energies=np.ones(4)), "energies have shape"),
    (lambda o: bilo.certify(model_with(seen), {"a": np.ones((2, 3))}, o, X, Y, reference=o,
                            subset=0), "subset"),
    (lambda o: bilo.grid_posterior(model_with(seen), {"a": [3.0, 2.0, 1.0]}, o, X, Y), "increasing"),
    (lambda o: bilo.grid_posterior(model_with(seen), {"b": [1.0, 2.0, 3.0]}, o, X, Y), "names"),
    (lambda o: bilo.grid_posterior(model_with(seen), {}, o, X, Y), "one or two parameters"),
    (lambda o: bilo.grid_posterior(model_with(seen), {"a": [1.0, np.nan, 3.0]}, o, X, Y), "incr"),
    (lambda o: goodness_of_fit(model_with(seen), {"a": np.ones((2, 3))}, o, X, Y, max_draws=0),
     "at least 1"),
    (lambda o: bilo.find_map(model_with(seen), KEY, o, X, Y, method="magic"), "one of"),
    (lambda o: bilo.find_map(model_with(seen), KEY, o, X, Y, steps=0), "least is 1"),
    (lambda o: bilo.find_map(model_with(seen), KEY, o, X, Y, init={"q": 1.0}), "init names"),
    (lambda o: bilo.find_map(model_with(seen), KEY, o, X, Y, init={"a": -1.0}), "outside the support"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(RESULTS)))
def test_results(exact, number):
    use, message = RESULTS[number]
    with pytest.raises(ValueError, match=message):
        use(exact)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04\x95", b"PK\x03\x04", b"x,y\n", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY"]
)
def test_a_file_of_results_that_is_none(tmp_path, content):
    path = tmp_path / "posterior.nc"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a netCDF"):
        load(path)
