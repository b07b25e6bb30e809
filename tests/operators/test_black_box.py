"""Solvers that JAX cannot look into: a plain function, and a server of ours that is asked over HTTP."""

import http.server
import json
import threading
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import HMC, init_to_value

import bilo_ppl as bilo
from bilo_ppl.mcmc import sample_in_blocks
from models import poisson

POINTS = np.linspace(0.1, 0.9, 5)[:, None]
SHAPE = np.sin(np.pi * POINTS[:, 0])
SIGMA = 0.1
CHEAP = bilo.ClosedForm(poisson.problem, lambda x, theta: 1.1 * jnp.sin(jnp.pi * x[0]) / theta["D"])


def solver(theta):
    """NumPy only; it finds nothing for D above 3."""
    return SHAPE / theta["D"] if theta["D"] < 3 else np.full(5, np.nan)


def black_box(function=solver, **options):
    return bilo.BlackBox(poisson.problem, function, POINTS, **options)


def model(operator):
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(POINTS), SIGMA), obs=SHAPE / 1.3)


def two_stage(operator, method="sequential", samples=1500):
    first = HMC(model, trajectory_length=1.0, init_strategy=init_to_value(values={"D": 1.2}))
    kernel = bilo.TwoStage(first, {"u": operator})
    options = {"num_warmup": 100, "num_samples": samples, "num_chains": 2, "progress": False}
    return sample_in_blocks(kernel, jax.random.key(0), CHEAP, chain_method=method, **options)


@pytest.fixture(scope="module")
def draws():
    return two_stage(black_box())


def on_grid():
    D = np.linspace(0.5, 3, 20001)
    misfit = (SHAPE[:, None] * (1 / D - 1 / 1.3)) / SIGMA
    log = np.log(D) - D - 0.5 * np.sum(misfit**2, axis=0)
    weight = np.exp(log - log.max())
    mean = np.sum(weight * D) / weight.sum()
    return mean, np.sqrt(np.sum(weight * (D - mean) ** 2) / weight.sum())


@pytest.mark.parametrize("batched", [False, True])
def test_its_values_are_those_of_the_function(batched):
    many = lambda theta: SHAPE / np.reshape(theta["D"], (*np.shape(theta["D"]), 1))  # noqa: E731
    operator = black_box(many if batched else solver, batched=batched)
    field, _, info = operator.solve({"D": 2.0}, ())
    assert bool(info.converged)
    np.testing.assert_allclose(jax.jit(jax.vmap(field))(POINTS[::-1]), SHAPE[::-1] / 2, rtol=1e-6)
    # Between the points there is nothing.
    assert np.isnan(field(jnp.array([0.2])))
    D = jnp.array([1.0, 2.0, 2.5])
    values = jax.vmap(lambda D: jax.vmap(operator.solve({"D": D}, ())[0])(POINTS))(D)
    np.testing.assert_allclose(values, SHAPE / np.asarray(D)[:, None], rtol=1e-6)


def test_values_that_are_not_finite_are_no_solution():
    info = black_box().solve({"D": 3.5}, ())[2]
    assert not bool(info.converged)
    assert bilo.StopReason(int(info.reason)) is bilo.StopReason.NOT_FINITE


def test_it_has_no_derivative_and_says_so():
    operator = black_box()
    with pytest.raises(TypeError, match=r"no derivative in theta.*TwoStage"):
        jax.grad(lambda D: operator.solve({"D": D}, ())[0](jnp.array(POINTS[0])))(1.0)


def test_what_will_not_do_is_refused():
    with pytest.raises(ValueError, match=r"shape \(5,\); they must be \(n, 1\)"):
        bilo.BlackBox(poisson.problem, solver, POINTS[:, 0])
    with pytest.raises(ValueError, match="1 points lie outside"):
        bilo.BlackBox(poisson.problem, solver, [[0.5], [2.0]])
    with pytest.raises(Exception, match=r"shape \(4,\).*they must be \(5,\)"):
        jax.block_until_ready(black_box(lambda theta: np.ones(4)).solve({"D": 1.0}, ())[2])


def test_two_stages_give_its_posterior(draws):
    mean, sd = on_grid()
    D = np.asarray(draws.samples["D"])
    effective = bilo.diagnostics.results.chain_diagnostics(D).ess_bulk
    assert effective > 200
    assert abs(D.mean() - mean) < 4 * sd / np.sqrt(effective)
    assert abs(D.std() / sd - 1) < 4 / np.sqrt(2 * effective)
    # The first stage alone would be a standard deviation off.
    assert abs(0.1 * mean) > sd


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vectorized", "parallel"])
def test_chains_side_by_side_ask_for_the_same(draws, method):
    others = two_stage(black_box(), method, samples=100)
    np.testing.assert_allclose(others.samples["D"], draws.samples["D"][:, :100], rtol=1e-9)


class Server(http.server.BaseHTTPRequestHandler):
    """The part of the UM-Bridge protocol that evaluates a model."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (self.path, asked["name"]) == ("/Evaluate", "poisson")
        (D,) = asked["input"][0]
        answer = json.dumps({"output": [(SHAPE / D).tolist()]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


@pytest.fixture
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_behind_a_server_as_in_the_readme(address):
    def ask(theta):
        body = {"name": "poisson", "input": [[float(theta["D"])]], "config": {}}
        request = urllib.request.Request(f"{address}/Evaluate", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["output"][0]

    found = two_stage(black_box(ask), samples=60)
    D = np.asarray(found.samples["D"])
    misfit = (SHAPE * (1 / D[..., None] - 1 / 1.3)) / SIGMA
    np.testing.assert_allclose(
        found.statistics["potential_energy"] - found.statistics["potential_energy"][0, 0],
        (lambda U: U - U[0, 0])(0.5 * (misfit**2).sum(-1) - 2 * np.log(D) + D),
        rtol=1e-5,
        atol=1e-6,
    )
