"""Faults below the sampler: residuals that are NaN, singular Jacobians, thetas far away.

Each must end in a rejected proposal that is counted and explained, and leave the chain right: where
solves fail beyond a bound, its law is the posterior cut off there.
"""

import json
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import MCMC, NUTS, init_to_value

import bilo_ppl as bilo
from bilo_ppl import diagnostics
from bilo_ppl.cli import main
from bilo_ppl.diagnostics.faults import count_faults
from models import poisson

BOUND = 0.98
"""Beyond this D the problems below fail; the posterior, 0.97 +- 0.08, has about half its mass there."""

DATA = poisson.synthetic_data(0)


class NaNBeyond(poisson.Poisson):
    points = bilo.interval(0.0, 1.0).grid(21)

    def residual(self, u, x, theta):
        r = super().residual(u, x, theta)
        return jnp.where(theta["D"] > BOUND, jnp.nan, r)


class BlindBeyond(NaNBeyond):
    """Beyond the bound the residual is 1 whatever u is: a Jacobian of zeros, no solution."""

    def residual(self, u, x, theta):
        return jnp.where(theta["D"] > BOUND, 1.0, poisson.Poisson.residual(self, u, x, theta))


class EmptyBeyond(NaNBeyond):
    """Beyond the bound the residual is 0 whatever u is: any weights solve it, the Jacobian is zero."""

    def residual(self, u, x, theta):
        return jnp.where(theta["D"] > BOUND, 0.0, poisson.Poisson.residual(self, u, x, theta))


class Duplicated(NaNBeyond):
    """Every collocation point twice: half the rows of the Jacobian are redundant."""

    points = np.repeat(bilo.interval(0.0, 1.0).grid(21), 2, axis=0)

    def residual(self, u, x, theta):
        return poisson.Poisson.residual(self, u, x, theta)


def operator_of(small_operator, problem, max_steps=12):
    """The pretrained small network on another problem, fine-tuned to 1e-6."""
    local = bilo.LocalOperator(
        problem, {"D": 1.0}, key=jax.random.key(0), width=16, dtype=np.float64
    )
    parts = small_operator.network, small_operator.embedding
    local = eqx.tree_at(lambda o: (o.network, o.embedding), local, parts)
    solver = bilo.LevenbergMarquardt(tolerance=1e-6, max_steps=max_steps)
    return bilo.FineTuned(local, solver, bilo.ImplicitDifferentiation())


def solves(operator, D):
    """u(1/2), its derivative in D, the weights and the report of the solve at every D."""

    def one(D):
        def value(D):
            u, weights, info = operator.solve({"D": D}, operator.init_state())
            return u(jnp.array([0.5])), (weights, info)

        (u, (weights, info)), slope = jax.value_and_grad(value, has_aux=True)(D)
        return u, slope, weights, info

    return jax.jit(lambda D: jax.lax.map(one, D))(jnp.asarray(D))


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


# The solve


@pytest.mark.parametrize("problem", [NaNBeyond, BlindBeyond], ids=["nan", "blind"])
def test_a_solve_that_cannot_succeed_ends_unconverged_with_the_weights_it_had(
    small_operator, problem
):
    operator = operator_of(small_operator, problem())
    u, slope, weights, info = solves(operator, [0.9, 1.2])
    np.testing.assert_array_equal(info.converged, [True, False])
    assert info.steps[1] <= 1
    assert finite(weights)
    assert finite(u)
    before = operator.init_state()
    after = jax.tree.map(lambda leaf: leaf[1], weights)
    assert eqx.tree_equal(before, after)
    assert u[0] == pytest.approx(1 / 0.9, abs=1e-3)
    assert slope[0] == pytest.approx(-1 / 0.9**2, rel=1e-2)


def test_singular_jacobians_leave_finite_gradients(small_operator):
    """Redundant rows change nothing; with a Jacobian of zeros the least-norm derivative is zero."""
    twice = solves(operator_of(small_operator, Duplicated()), [0.8, 1.1])
    once = solves(operator_of(small_operator, EmptyBeyond()), [0.8, 1.2])
    assert finite((twice, once))
    assert np.all(twice[3].converged)
    np.testing.assert_allclose(twice[1], -1 / np.array([0.8, 1.1]) ** 2, rtol=1e-2)
    assert twice[0][0] == pytest.approx(float(once[0][0]), abs=1e-4)
    assert twice[1][0] == pytest.approx(float(once[1][0]), rel=1e-3)
    assert once[3].converged[1]
    assert once[3].steps[1] == 0


def test_a_theta_far_away_ends_unconverged_within_its_steps(small_operator):
    operator = operator_of(small_operator, Duplicated(), max_steps=3)
    u, _, weights, info = solves(operator, [1e-3, 1e6])
    assert not np.any(info.converged)
    assert np.all(np.asarray(info.steps) <= 3)
    assert finite(weights)
    assert finite(u)


# The chain


def cut_off():
    """Mean and standard deviation of the posterior below the bound, by quadrature."""
    D = np.linspace(0.3, BOUND, 20001)
    mismatch = DATA["y"][:, None] - np.sin(np.pi * DATA["x"]) / D
    log = np.log(D) - D - 0.5 * np.sum(mismatch**2, axis=0) / poisson.SIGMA**2
    weight = np.exp(log - log.max())
    mean = np.sum(weight * D) / np.sum(weight)
    return mean, np.sqrt(np.sum(weight * (D - mean) ** 2) / np.sum(weight))


KERNELS = {
    "nuts": lambda model, **options: NUTS(model, **options),
    "bilo-nuts": lambda model, **options: bilo.BiLONUTS(model, **options),
    "bilo-hmc": lambda model, **options: bilo.BiLOHMC(model, trajectory_length=1.5, **options),
}
CASES = [
    ("bilo-hmc", BlindBeyond, False),
    ("nuts", NaNBeyond, True),
    ("nuts", BlindBeyond, True),
    ("bilo-nuts", NaNBeyond, True),
]


@pytest.mark.parametrize(
    ("name", "problem"),
    [pytest.param(*case, marks=pytest.mark.slow if slow else ()) for *case, slow in CASES],
)
def test_the_chain_goes_on_and_has_the_law_below_the_bound(small_operator, name, problem):
    operator = operator_of(small_operator, problem())
    kernel = KERNELS[name](
        lambda x, y: poisson.model(operator, x, y),
        init_strategy=init_to_value(values={"D": 0.9}),
        inverse_mass_matrix=jnp.array([0.006]),
        # Rejections at the bound would make adaptation shrink the steps to nothing.
        adapt_mass_matrix=False,
        adapt_step_size=False,
        step_size=0.4,
    )
    mcmc = MCMC(kernel, num_warmup=20, num_samples=500, progress_bar=False)
    mcmc.run(jax.random.key(1), DATA["x"], DATA["y"], extra_fields=("potential_energy",))
    fields = mcmc.get_extra_fields(group_by_chain=True)
    D = np.asarray(mcmc.get_samples(group_by_chain=True)["D"])
    assert D.max() <= BOUND
    assert np.isfinite(fields["potential_energy"]).all()
    mean, sd = cut_off()
    ess = float(diagnostics.summary(diagnostics.to_arviz(mcmc)).loc["D", "ess_bulk"])
    assert ess > 50
    assert abs(D.mean() - mean) < 4 * sd / ess**0.5
    assert D.std() == pytest.approx(sd, rel=0.2)

    idata = diagnostics.to_arviz(mcmc)
    faults = diagnostics.run_faults(idata)
    assert faults.transitions == 500
    assert faults.diverging == np.sum(fields["diverging"]) > 20
    text = diagnostics.inner_report(idata, tolerance=1e-6, max_steps=12)
    assert f"Divergences: {faults.diverging} of 500 transitions" in text
    if name == "nuts":
        assert "did not reach the tolerance 1e-06 within 12 steps at the proposed theta" in text
    else:
        assert faults.solver_failures == faults.diverging
        assert f"In {faults.diverging} an inner solve did not reach the tolerance" in text


# The report


def stats(diverging, converged=None, solves_of="draw"):
    found = {"diverging": np.asarray(diverging), "inner_solves_of": solves_of}
    return found if converged is None else found | {"inner_converged": np.asarray(converged)}


def test_faults_are_counted():
    shape, diverging = (2, 3), [[1, 0, 1], [0, 1, 0]]
    converged = [[False, False, True], [True, True, True]]
    plain = count_faults(stats(diverging), shape)
    assert plain == (6, 3, None, None)
    drawn = count_faults(stats(diverging, converged), shape)
    assert drawn == (6, 3, None, 2)
    recorded = count_faults(stats(diverging, converged, "transition"), shape)
    assert recorded == (6, 3, 1, 2)
    assert count_faults({}, shape) == (6, None, None, None)


FAILING = """
import jax.numpy as jnp
import bilo_ppl as bilo
from bilo_ppl.run.model_file import load_model

poisson = load_model("poisson")
problem, model, synthetic_data = poisson.problem, poisson.model, poisson.synthetic_data
start = {"D": 0.9}

def reference():
    return bilo.ClosedForm(
        problem,
        lambda x, theta: jnp.sin(jnp.pi * x[0]) / theta["D"],
        valid=lambda theta: theta["D"] <= 1.1,
    )
"""


@pytest.mark.parametrize("sampler", ["nuts", "bilo-hmc"])
def test_the_command_line_reports_rejected_proposals(tmp_path, monkeypatch, capsys, sampler):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("failing.py").write_text(FAILING)
    arguments = ["failing.py", "--operator", "numerical", "--sampler", sampler, "--chains", "2"]
    assert main(["run", *arguments, "--warmup", "50", "--samples", "200", "--out", "here"]) == 0
    content = json.loads((tmp_path / "here" / "run.json").read_text())
    faults, (printed, warned) = content["faults"], capsys.readouterr()
    assert faults["transitions"] == 400
    assert faults["diverging"] > 0
    assert f"Divergences: {faults['diverging']} of 400 transitions" in printed
    assert f"WARNING: {faults['diverging']} of 400 transitions diverged" in warned
    assert "their proposals were rejected" in warned
    assert content["warmup"]["transitions"] == 100
    assert content["warmup"]["diverging"] > 0
    assert f"In warm-up {content['warmup']['diverging']} of 100 transitions diverged" in printed
    if sampler == "nuts":
        assert faults["solver_failures"] is None
        assert "Likely cause: the inner solve did not reach its tolerance" in warned
    else:
        assert faults["solver_failures"] == faults["diverging"]
        assert f"In {faults['diverging']} an inner solve did not reach its tolerance" in warned
    assert "The chain was then at D 0." in warned


def test_a_quiet_run_says_what_is_wrong_with_its_draws_and_nothing_else(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("failing.py").write_text(FAILING)
    arguments = ["failing.py", "--operator", "numerical", "--sampler", "hmc", "--chains", "2"]
    assert main(["run", *arguments, "--warmup", "20", "--samples", "20", "--quiet"]) == 0
    printed, warned = capsys.readouterr()
    assert printed == ""
    assert "WARNING: fewer than 400 effective draws for D" in warned
