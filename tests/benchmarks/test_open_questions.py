"""Parts of the benchmarks of open questions: closed forms, random trajectories, starts of increments."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC

import bilo_ppl as bilo
from benchmarks import ranks, unknowns_table
from benchmarks.hmc_or_nuts import RandomLengthHMC
from models import nonlinear_poisson

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks" / "not_smooth"


def _load(name):
    spec = importlib.util.spec_from_file_location(f"not_smooth_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _along(name, unknown, value):
    """u of the model file's closed form as a function of a scalar."""
    form = _load(name).closed_form

    def u(x):
        return jnp.atleast_1d(form(jnp.array([x]), {unknown: jnp.array(value)}))[0]

    return u


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [("jump_source", -10.0, 0.0), ("jump_coefficient", -10.0, -2.5), ("flux_form", -10.0, -2.5)],
)
def test_closed_forms_solve_on_both_sides_and_join(name, inside, outside):
    z, eps = 0.37, 1e-12
    u = _along(name, "z", z)
    slope = jax.grad(u)
    assert [float(u(0.0)), float(u(1.0))] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert float(jax.grad(slope)(0.2)) == pytest.approx(inside)
    assert float(jax.grad(slope)(0.8)) == pytest.approx(outside)
    assert float(u(z - eps)) == pytest.approx(float(u(z + eps)))
    material = 1.0 if name == "jump_source" else 4.0
    assert float(slope(z - eps)) == pytest.approx(material * float(slope(z + eps)), rel=1e-6)


def test_the_fold_is_on_the_lower_branch_up_to_where_it_turns():
    module = _load("fold")
    turn = 8 * module.TURN**2 / np.cosh(module.TURN) ** 2
    assert turn == pytest.approx(3.513830719)
    middles = []
    for c in (1.0, 3.4, turn - 1e-6):
        u = _along("fold", "c", c)
        at = jax.grad(jax.grad(u))(0.3) + c * jnp.exp(u(0.3))
        assert float(at) == pytest.approx(0.0, abs=1e-6)
        assert [float(u(0.0)), float(u(1.0))] == pytest.approx([0.0, 0.0], abs=1e-12)
        middles.append(float(u(0.5)))
    assert middles == sorted(middles)
    assert middles[-1] == pytest.approx(2 * np.log(np.cosh(module.TURN)), rel=1e-2)


def test_random_lengths_leave_a_gaussian_as_it_is():
    def model():
        numpyro.sample("z", dist.Normal(1.0, 2.0))

    kernel = RandomLengthHMC(
        model,
        trajectory_length=np.pi,
        inverse_mass_matrix=jnp.array([4.0]),
        step_size=0.9,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )
    mcmc = MCMC(kernel, num_warmup=0, num_samples=4000, progress_bar=False)
    mcmc.run(jax.random.key(0), extra_fields=("num_steps",))
    z = np.asarray(mcmc.get_samples()["z"])
    assert z.mean() == pytest.approx(1.0, abs=0.15)
    assert z.std() == pytest.approx(2.0, rel=0.05)
    # Uniform up to pi: one to four steps of 0.9.
    assert set(np.unique(mcmc.get_extra_fields()["num_steps"])) == {1, 2, 3, 4}


def test_other_starts_of_increments_leave_u_as_it_is():
    home = bilo.LocalOperator(
        nonlinear_poisson.problem, nonlinear_poisson.start, key=jax.random.key(0), width=16, depth=2
    )
    low = home.with_lora(2, key=jax.random.key(1))
    x = jnp.linspace(-0.7, 0.7, 7)[:, None]
    expected = jax.vmap(home.field(nonlinear_poisson.start))(x)
    for name, start in ranks.STARTS.items():
        other = ranks.started(low, start, home)
        found = jax.vmap(other.field(nonlinear_poisson.start))(x)
        np.testing.assert_allclose(found, expected, atol=2e-5, err_msg=name)
    middle = ranks.started(low, ranks.leading_inputs, home).network.layers[1]
    np.testing.assert_allclose(middle.A @ middle.A.T, np.eye(2), atol=1e-5)
    jacobian = ranks._jacobian(home, 1).reshape(-1, 16)
    seen = np.linalg.norm(jacobian @ middle.A.T) ** 2
    values = np.linalg.svd(np.asarray(jacobian), compute_uv=False)
    assert seen == pytest.approx((values[:2] ** 2).sum(), rel=1e-3)


def test_means_are_compared_in_monte_carlo_errors_of_both():
    one = {"mean": [1.0, 2.0], "mcse": [0.3, 0.4], "sd": [1.0, 1.0]}
    other = {"mean": [1.5, 2.0], "mcse": [0.4, 0.3], "sd": [2.0, 1.0]}
    rms, largest, in_sd = unknowns_table.off_by(one, other)
    assert (rms, largest, in_sd) == pytest.approx((np.sqrt(0.5), 1.0, 0.25))
