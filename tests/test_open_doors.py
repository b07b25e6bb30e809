"""A problem, network, field, solver, sensitivity and operator of a user's own, defined out here.

Everything in this file uses the package from outside; nothing in it is known to the package.
"""

import json
import pathlib
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC, NUTS, init_to_value

import bilo_ppl as bilo
from bilo_ppl.cli import main
from bilo_ppl.pde.theta import admit

SIGMA = 0.05
D_TRUE = 1.3
X = bilo.interval(0.0, 1.0).interior_grid(9)
Y = np.sin(np.pi * X[:, 0]) / D_TRUE


class Poisson(bilo.Problem):
    """D u'' = -pi^2 sin(pi x): u = sin(pi x) / D. D may be a number or a function."""

    parameters = ("D",)
    components = 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(21)

    def residual(self, u, x, theta):
        D = theta["D"](x) if callable(theta["D"]) else theta["D"]
        return D * bilo.laplacian(u)(x) + jnp.pi**2 * jnp.sin(jnp.pi * x[0])

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


class Sines(eqx.Module):
    """A network of another kind: one layer of sines, Equinox's own layers, a scale of its own."""

    first: eqx.nn.Linear
    middle: eqx.nn.Linear
    last: eqx.nn.Linear
    slope: jax.Array
    shift: bilo.Frozen

    def __init__(self, width: int, key: Any):
        keys = jax.random.split(key, 4)
        self.first = eqx.nn.Linear(1, width, key=keys[0])
        self.middle = eqx.nn.Linear(width, width, use_bias=False, key=keys[1])
        self.last = eqx.nn.Linear(width, 1, key=keys[2])
        self.slope = jnp.ones(width)
        self.shift = bilo.Frozen(jax.random.uniform(keys[3], (width,)))

    def __call__(self, x, e):
        h = jnp.sin(2 * self.first(x) + self.shift.value + e)
        return self.last(jnp.tanh(self.slope * self.middle(h)))


class Slope(eqx.Module):
    """A field of its own: f(x) = a + b x."""

    coefficients: Any

    def __call__(self, x):
        a, b = self.coefficients
        return a + b * jnp.reshape(jnp.asarray(x), (-1,))[0]


class NewtonState(NamedTuple):
    weights: Any
    loss: Any
    steps: Any


class Newton(bilo.AbstractInnerSolver):
    """Plain Gauss-Newton steps with the pseudo-inverse, halved until the loss falls."""

    tolerance: float
    max_steps: int

    def init(self, problem, weights):
        return NewtonState(weights, problem.loss(weights), jnp.array(0))

    def step(self, problem, state):
        flat, unravel = ravel_pytree(state.weights)
        J, rows = problem.jacobian(state.weights), problem.rows(state.weights)
        full, *_ = jnp.linalg.lstsq(J, rows, rcond=1e-7)
        lengths = 0.5 ** jnp.arange(8)
        losses = jax.vmap(lambda s: problem.loss(unravel(flat - s * full)))(lengths)
        best = jnp.argmin(losses)
        better = losses[best] < state.loss
        weights = unravel(flat - jnp.where(better, lengths[best], 0) * full)
        loss = jnp.where(better, losses[best], state.loss)
        return NewtonState(weights, loss, state.steps + 1)


class PseudoInverse(bilo.AbstractSensitivity):
    """dW/dtheta by the pseudo-inverse of the Jacobian of all rows."""

    def attach(self, lower_level, weights, theta):
        arrays, static = eqx.partition(theta, eqx.is_array)
        fixed = eqx.combine(jax.lax.stop_gradient(arrays), static)
        weights = jax.lax.stop_gradient(weights)
        flat, unravel = ravel_pytree(weights)
        J = lower_level.at(fixed).jacobian(weights)
        rows = lower_level.at(theta).rows(weights)
        return unravel(flat - jnp.linalg.pinv(J, rtol=1e-6) @ (rows - jax.lax.stop_gradient(rows)))


class Formula(bilo.AbstractSolutionOperator):
    """The solution, written down."""

    problem: bilo.Problem

    def init_state(self):
        return ()

    def solve(self, theta, state):
        theta = admit(self.problem, theta, jnp.result_type(float))
        info = bilo.SolveInfo.of(steps=0, loss=0.0, converged=theta["D"] > 0)
        return lambda x: jnp.sin(jnp.pi * x[0]) / theta["D"], state, info


def model(operator, x=X, y=Y, sigma=SIGMA):
    D = numpyro.sample("D", dist.LogNormal(0.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def exact_estimate(operator_model=model):
    """The MAP by the formula, to which a network must come."""
    found = bilo.find_map(operator_model, jax.random.key(0), Formula(Poisson()), progress=False)
    return float(found.values["D"])


@pytest.fixture(scope="module")
def trained():
    """A network of our own, pretrained at D = 1 by the package's solver, in double precision."""
    network = Sines(12, jax.random.key(1))
    return bilo.pretrain(
        Poisson(),
        {"D": 1.0},
        key=jax.random.key(0),
        network=network,
        width=12,
        dtype=np.float64,
        solver=bilo.LevenbergMarquardt(1e-9, 200),
        progress=False,
    ).operator


def fine_tuned(operator, rank=0):
    operator = operator.with_lora(rank, key=jax.random.key(2))
    return bilo.FineTuned(operator, Newton(1e-9, 30), PseudoInverse())


def test_a_network_of_its_own_solves_and_its_frozen_part_stays(trained):
    x = jnp.array([0.3])
    np.testing.assert_allclose(trained(x, {"D": 1.0}), np.sin(0.3 * np.pi), atol=1e-4)
    before = Sines(12, jax.random.key(1))
    np.testing.assert_allclose(trained.network.shift.value, before.shift.value)
    assert not np.allclose(trained.network.slope, before.slope)


@pytest.mark.parametrize("rank", [0, 2])
def test_solver_and_sensitivity_of_its_own_find_the_derivative_of_the_solution(trained, rank):
    operator = fine_tuned(trained, rank)
    x = jnp.array([0.4])

    def u(D):
        field, _, info = operator.solve({"D": D}, operator.init_state())
        return field(x), info

    (value, info), slope = jax.jit(jax.value_and_grad(u, has_aux=True))(1.2)
    assert bilo.StopReason(int(info.reason)) == bilo.StopReason.CONVERGED
    np.testing.assert_allclose(value, np.sin(0.4 * np.pi) / 1.2, rtol=1e-3)
    np.testing.assert_allclose(slope, -np.sin(0.4 * np.pi) / 1.2**2, rtol=1e-2)


def test_find_map_with_network_solver_and_sensitivity_of_its_own(trained):
    found = bilo.find_map(model, jax.random.key(0), fine_tuned(trained, 2), progress=False)
    assert found.converged
    np.testing.assert_allclose(found.values["D"], exact_estimate(), rtol=1e-3)


def test_find_map_with_an_unknown_function_of_its_own_kind(trained):
    def slope_model(operator):
        D = bilo.unknown_function("D", Slope(np.array([1.0, 0.0])), prior_sd=3.0)
        u = bilo.solution("u", operator, {"D": D})
        numpyro.sample("y", dist.Normal(jax.vmap(u)(X), SIGMA), obs=Y)

    operator = bilo.FiniteDifferences(Poisson(), 201, theta={"D": Slope(np.array([1.0, 0.0]))})
    found = bilo.find_map(slope_model, jax.random.key(0), operator, progress=False)
    assert found.converged
    np.testing.assert_allclose(found.theta()["D"](jnp.array([0.5])), D_TRUE, rtol=0.02)


def test_an_operator_of_its_own_is_sampled_by_numpyro():
    kernel = NUTS(model, init_strategy=init_to_value(values={"D": 1.0}))
    mcmc = MCMC(kernel, num_warmup=200, num_samples=500, progress_bar=False)
    mcmc.run(jax.random.key(0), Formula(Poisson()))
    assert abs(np.mean(mcmc.get_samples()["D"]) - D_TRUE) < 0.1


def test_its_file_is_read_back_with_a_network_of_the_same_structure(trained, tmp_path):
    path = tmp_path / "sines.eqx"
    bilo.save_operator(path, trained.with_lora(2, key=jax.random.key(0)))
    again = bilo.load_operator(path, Poisson(), network=Sines(12, jax.random.key(9)))
    x = jnp.array([0.7])
    np.testing.assert_array_equal(again(x, {"D": 1.1}), trained(x, {"D": 1.1}))
    np.testing.assert_array_equal(again.home["D"], 1.0)
    with pytest.raises(ValueError, match=r"holds a network of the class Sines; give .* network="):
        bilo.load_operator(path, Poisson())
    with pytest.raises(ValueError, match="holds another network than the one given"):
        bilo.load_operator(path, Poisson(), network=Sines(13, jax.random.key(9)))


@pytest.mark.parametrize(
    ("network", "width", "message"),
    [
        (Sines(12, jax.random.key(0)), 11, r"fails for inputs .*embedding of shape \(11,\)"),
        (lambda x, e: jnp.zeros(1), 11, "no floating-point arrays"),
        (eqx.nn.Lambda(lambda x: x), 11, "no floating-point arrays"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(network, width, message):
    with pytest.raises(ValueError, match=message):
        bilo.LocalOperator(
            Poisson(), {"D": 1.0}, key=jax.random.key(0), network=network, width=width
        )


def test_what_an_operator_cannot_do_is_said():
    operator = Formula(Poisson())
    assert operator.home == {}
    assert operator.loss_tolerance is None
    assert operator.unsolved({"D": 1.0}) is None
    with pytest.raises(NotImplementedError, match="a Formula cannot solve more tightly"):
        operator.tightened(100.0, 10)
    with pytest.raises(ValueError, match=r"a Formula cannot take inner steps.*method='nested'"):
        bilo.find_map(model, jax.random.key(0), operator, method="simultaneous", progress=False)
    with pytest.raises(ValueError, match="Formula, which has no weights to adapt"):
        bilo.adapt(model, jax.random.key(0), operator, progress=False)


MODEL_FILE = f"""
import jax, numpy as np
import test_open_doors as own

problem, start, truth = own.Poisson(), {{"D": 1.0}}, {{"D": {D_TRUE}}}
architecture = {{"network": own.Sines(12, jax.random.key(1)), "width": 12, "dtype": np.float64}}
reference_grid = {{"D": np.linspace(0.9, 1.8, 301)}}

def model(operator, x, y, sigma=own.SIGMA):
    own.model(operator, x, y, sigma)

def synthetic_data(seed):
    return {{"x": own.X, "y": own.Y, "sigma": own.SIGMA}}

def reference():
    return own.Formula(problem)
"""


@pytest.mark.parametrize(
    "operator", ["numerical", pytest.param("fine-tuned", marks=pytest.mark.slow)]
)
def test_the_command_line_runs_with_operator_and_network_of_its_own(
    operator, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent))
    pathlib.Path("own.py").write_text(MODEL_FILE)
    arguments = ["own.py", "--operator", operator, "--chains", "2", "--quiet"]
    arguments += ["--tol", "1e-6"] if operator == "fine-tuned" else []
    assert main(["run", *arguments, "--warmup", "200", "--samples", "300", "--out", "here"]) == 0
    found = json.loads(pathlib.Path("here/run.json").read_text())["distances"]["D"]
    assert abs(found["mean_error"]) < 4
    assert abs(found["sd_error"]) < 4 * found["sd_error_se"]
