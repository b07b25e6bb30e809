"""Certificates with closed-form operators, whose energy errors are known, and with a small network."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl import diagnostics
from bilo_ppl.inner.lower_level import LowerLevel
from bilo_ppl.inner.solvers import solve
from bilo_ppl.validation.certifying import _tightened
from models import gene_expression, poisson

X = np.array([[0.5]])
MEAN, SD = 1.0, 0.2
"""The prior; the data leave it as it is where the operator is exact."""


def shifted(shift=0.0, unsolved_above=np.inf):
    """u = shift * D: with the factor exp(-u) in the model, the density is tilted by the shift."""
    return bilo.ClosedForm(
        poisson.problem,
        lambda x, theta: shift * theta["D"],
        valid=lambda theta: theta["D"] <= unsolved_above,
    )


def tilted(operator):
    """p(D) proportional to N(D; MEAN, SD^2) exp(-shift D) = N(MEAN - shift SD^2, SD^2)."""
    D = numpyro.sample("D", dist.Normal(MEAN, SD))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.factor("tilt", -u(X[0]))


@pytest.fixture(scope="module")
def samples():
    draws = np.random.default_rng(0).normal(MEAN, SD, size=(4, 1000))
    return {"D": draws, "twice": 2 * draws}


EXACT = shifted()


def check(samples, operator, **options):
    return bilo.certify(tilted, samples, shifted(), reference=operator, **options)


def test_the_statistics_are_the_closed_form(samples):
    shift = 2.0
    found = check(samples, shifted(shift), subset=4000)
    assert found.draws == 4000
    assert found.energy_error_sd == pytest.approx(shift * SD, rel=0.05)
    assert found.kl_divergence == pytest.approx((shift * SD) ** 2 / 2, rel=0.1)
    assert found.effective_fraction == pytest.approx(np.exp(-((shift * SD) ** 2)), abs=0.03)
    sampled, corrected = found.means["D"]
    assert sampled == pytest.approx(samples["D"].mean())
    assert corrected == pytest.approx(MEAN - shift * SD**2, abs=0.01)
    assert found.sds["D"][1] == pytest.approx(SD, rel=0.05)
    assert found.means["twice"][1] == pytest.approx(2 * corrected)
    assert found.largest_shift == pytest.approx(shift * SD, rel=0.1)
    assert not found.trustworthy
    assert found.verdict.startswith("ALARM: the numerical operator would move the posterior mean")


def test_a_small_error_is_good_and_a_constant_one_does_not_matter(samples):
    small = check(samples, shifted(0.05))
    assert small.trustworthy
    assert small.verdict.startswith("GOOD: the numerical operator would move no posterior mean by")
    energies = -dist.Normal(MEAN, SD).log_prob(samples["D"]) + 17.0
    constant = check(samples, EXACT, energies=energies)
    assert constant.trustworthy
    assert constant.energy_error_sd < 1e-12
    assert "none" in str(constant)


@pytest.mark.parametrize(("draws", "good"), [(1, False), (5, False), (19, False), (20, True)])
def test_few_draws_show_nothing(samples, draws, good):
    found = check(samples, shifted(0.0), subset=draws)
    assert found.draws == draws
    assert found.trustworthy == good
    assert found.verdict.startswith("GOOD" if good else f"UNDECIDED: {draws} draws are too few")
    if good:
        # Those without a weight do not count.
        fewer = dataclasses.replace(found, left_out=1)
        assert fewer.verdict.startswith("UNDECIDED: 19 draws are too few")


@pytest.mark.parametrize(("scale", "good"), [(1e-4, True), (0.02, False)])
def test_a_heavy_tail_is_an_alarm_unless_the_errors_are_negligible(samples, scale, good):
    energies = -dist.Normal(MEAN, SD).log_prob(samples["D"])
    energies = np.asarray(energies) + np.log1p(
        scale * np.random.default_rng(4).pareto(1.0, size=energies.shape)
    )
    found = check(samples, EXACT, energies=energies, subset=1000)
    assert found.pareto_k > 0.7
    assert found.trustworthy == good
    assert ("a few weights dominate" in found.verdict) != good
    assert ("a tail of negligible errors" in str(found)) == good


def test_energies_of_the_sampler_are_what_is_certified(samples):
    """The draws of a stateful chain have the energies of its path, not those of pure solves."""
    energies = -dist.Normal(MEAN, SD).log_prob(samples["D"]) + 3.0 * samples["D"]
    found = check(samples, EXACT, energies=energies, subset=1000)
    assert found.energy_error_sd == pytest.approx(3 * SD, rel=0.1)
    assert not found.trustworthy
    with pytest.raises(ValueError, match=r"energies have shape \(4000,\), the draws \(4, 1000\)"):
        check(samples, EXACT, energies=energies.ravel())


def test_transformed_sites_have_the_jacobian_on_both_sides():
    def positive(operator):
        D = numpyro.sample("D", dist.LogNormal(0.0, 0.5))
        bilo.solution("u", operator, {"D": D})

    z = 0.5 * np.random.default_rng(1).normal(size=(2, 200))
    energies = 0.5 * (z / 0.5) ** 2
    found = bilo.certify(positive, {"D": np.exp(z)}, EXACT, reference=EXACT, energies=energies)
    assert found.energy_error_sd < 1e-10


def test_draws_that_the_reference_does_not_solve_are_left_out_and_said(samples):
    edge = np.quantile(samples["D"], 0.95)
    few = check(samples, shifted(0.0, edge), subset=1000)
    assert few.unsolved == few.left_out
    assert 30 < few.left_out < 70
    assert few.trustworthy
    assert f"did not reach its tolerance at {few.unsolved} of 1000 draws" in few.verdict
    many = check(samples, shifted(0.0, MEAN), subset=1000)
    assert not many.conclusive
    assert not many.trustworthy
    assert many.verdict.startswith("UNDECIDED:")
    assert "not those of a nearly exact solution" in many.verdict
    with pytest.raises(ValueError, match="no draw has a finite energy both"):
        check(samples, shifted(0.0, -100.0))


def test_bad_input_is_refused(samples):
    def unsolved():
        numpyro.sample("D", dist.Normal())

    with pytest.raises(ValueError, match=r"no solution\(\.\.\.\) site"):
        bilo.certify(unsolved, samples)
    with pytest.raises(ValueError, match="a ClosedForm cannot solve more tightly"):
        bilo.certify(tilted, samples, EXACT)
    with pytest.raises(ValueError, match=r"no values for the sites \['D'\]"):
        bilo.certify(tilted, {"twice": samples["twice"]}, EXACT, reference=EXACT)


# Both ways with a network, and where they are kept


def fine_tuned(small_operator, tolerance):
    local = small_operator.with_lora(0, key=jax.random.key(1))
    solver = bilo.LevenbergMarquardt(tolerance=tolerance, max_steps=30)
    return bilo.FineTuned(local, solver, bilo.PartialDerivative())


@pytest.fixture(scope="module")
def pair(small_problem, small_operator):
    """Certificates of a run at the loose tolerance 0.1 and of one at 1e-5, both ways."""
    data = poisson.synthetic_data(0)
    draws = 0.9 + 0.1 * np.random.default_rng(2).normal(size=(2, 50))
    args = (data["x"], data["y"], 0.1)
    exact = bilo.FiniteDifferences(
        small_problem, nodes=101, theta={"D": 1.0}, guess=lambda x: jnp.sin(jnp.pi * x[0])
    )

    def both(tolerance, ways):
        operator = fine_tuned(small_operator, tolerance)
        return {
            name: bilo.certify(
                poisson.model,
                {"D": draws},
                operator,
                *args,
                reference=exact if name == "numerical" else None,
                subset=60,
            )
            for name in ways
        }

    return both(1e-1, ("tighter", "numerical")), both(1e-5, ("tighter",))


def test_the_alarm_is_raised_by_a_loose_run_and_by_no_other(pair):
    loose, good = pair
    for certificate in loose.values():
        assert certificate.distorted, str(certificate)
        assert "ALARM" in str(certificate)
    assert good["tighter"].trustworthy, str(good["tighter"])
    assert good["tighter"].unsolved == 0
    short = dataclasses.replace(good["tighter"], unsolved=30)
    assert short.verdict.startswith("UNDECIDED: It did not reach its tolerance at 30 of 60 draws")
    assert dataclasses.replace(short, unsolved=29).trustworthy


def test_the_ways_agree_and_say_what_was_compared(pair):
    loose, good = pair
    assert loose["tighter"].verdict.startswith("ALARM: solving to a loss of")
    assert loose["tighter"].achieved_loss <= 1e-3
    assert good["tighter"].verdict.startswith("GOOD: solving to a loss of")
    assert good["tighter"].achieved_loss <= 1e-7
    tighter, numerical = (loose[way].means["D"] for way in ("tighter", "numerical"))
    assert tighter[0] == numerical[0]
    assert abs(tighter[1] - numerical[1]) < 0.3 * abs(tighter[0] - numerical[1])


def test_draws_whose_loss_is_small_already_are_compared_with_better_ones(
    small_problem, small_operator
):
    """A loose tolerance that nobody needed says nothing of how right the solutions are."""
    x = small_problem.domain.interior_grid(9)
    theta = {"D": jnp.array(1.0)}
    level = LowerLevel(small_operator, bilo.PartialDerivative())
    fit = solve(bilo.LevenbergMarquardt(1e-4, 50), level.at(theta), small_operator.weights)
    tolerance = 200 * float(fit.loss)
    operator = fine_tuned(small_operator.with_weights(fit.value), tolerance)
    draws = {"D": 1 + 1e-3 * np.random.default_rng(0).normal(size=(1, 40))}
    noise = 1e-4
    exact = bilo.ClosedForm(small_problem, lambda x, theta: jnp.sin(jnp.pi * x[0]) / theta["D"])
    data = (x, np.sin(np.pi * x[:, 0]) / 1.002, noise)
    found, reference = (
        bilo.certify(poisson.model, draws, operator, *data, reference=better)
        for better in (None, exact)
    )
    assert found.achieved_loss < 0.01 * float(fit.loss)
    assert reference.energy_error_sd > 0.1
    assert found.energy_error_sd == pytest.approx(reference.energy_error_sd, rel=0.1)


def test_a_tightened_operator_is_in_double_precision(small_operator):
    single = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32), (small_operator.network, small_operator.embedding)
    )
    import equinox as eqx

    local = eqx.tree_at(lambda o: (o.network, o.embedding), small_operator, single)
    fine = bilo.FineTuned(local, bilo.LevenbergMarquardt(1e-6, 5), bilo.PartialDerivative())
    tight = _tightened("u", fine, 100.0, 60)
    assert tight.operator.dtype == jnp.float64
    assert tight.solver.tolerance == pytest.approx(1e-8)
    assert fine.operator.dtype == jnp.float32


class Decay(bilo.Problem):
    """u'' = r u, u(0) = 1, u(1) = 0, at ``count`` collocation points."""

    parameters, components = ("r",), 1
    domain = bilo.interval(0.0, 1.0)
    points: np.ndarray

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) - theta["r"] * u(x)

    def lift(self, x, raw, theta):
        return 1 - x[0] + x[0] * (1 - x[0]) * raw


@pytest.mark.parametrize(("count", "good"), [(2, False), (51, True)])
def test_too_few_collocation_points_are_an_alarm(count, good):
    def model(operator, x, y):
        r = numpyro.sample("r", dist.LogNormal(1.5, 1.0))
        u = bilo.solution("u", operator, {"r": r})
        numpyro.sample("y", dist.Normal(jax.vmap(u)(x), 0.02), obs=y)

    problem = Decay(Decay.domain.grid(count))
    # `pretrain` would add points.
    theta = {"r": jnp.array(9.0)}
    local = bilo.LocalOperator(problem, theta, key=jax.random.key(0), width=16, dtype=np.float64)
    level = LowerLevel(local, bilo.PartialDerivative())
    solver = bilo.LevenbergMarquardt(tolerance=1e-6, max_steps=200)
    local = local.with_weights(solve(solver, level.at(theta), local.weights).value)
    operator = bilo.FineTuned(local, bilo.LevenbergMarquardt(1e-6, 30), bilo.PartialDerivative())
    x = problem.domain.interior_grid(12)
    y = np.sinh(3 * (1 - x[:, 0])) / np.sinh(3)
    draws = {"r": 9 + np.random.default_rng(1).normal(size=(1, 20))}
    found = bilo.certify(model, draws, operator, x, y)
    assert found.trustworthy == good, str(found)
    assert found.distorted != good


def test_a_tightened_operator_is_fitted_where_no_fit_has_been(small_operator):
    tight = _tightened("u", fine_tuned(small_operator, 1e-6), 100.0, 60)
    own = small_operator.problem.points
    assert len(tight.operator.points) >= 5 * len(own)
    np.testing.assert_array_equal(tight.operator.points[: len(own)], own)
    assert small_operator.points.shape == own.shape


def test_a_check_avoids_points_where_a_problem_has_no_residual():
    problem = gene_expression.problem
    points = jnp.asarray(bilo.refined(problem.points, problem.domain))
    theta = gene_expression.truth
    residual = jax.vmap(
        lambda x: problem.residual(
            lambda x: gene_expression.closed_form(x[None], theta)[0], x, theta
        )
    )(points)
    assert np.abs(points[:, 0] - gene_expression.Z).min() > gene_expression.OFFSET
    np.testing.assert_allclose(residual, 0.0, atol=1e-8)


def test_a_group_of_the_arviz_object_holds_both(pair, tmp_path):
    good = {**pair[0], **pair[1]}
    az = pytest.importorskip("arviz")
    draws = {"posterior": {"D": np.zeros((2, 50))}}
    legacy = int(az.__version__.split(".")[0]) < 1
    idata = az.from_dict(**draws) if legacy else az.from_dict(draws)
    diagnostics.add_certificates(idata, {})
    assert "certificate" not in idata
    for _ in range(2):
        diagnostics.add_certificates(idata, good)
    back = diagnostics.load(diagnostics.save(idata, tmp_path / "run.nc"))
    group = back["certificate"]
    for name, one in good.items():
        row = group.sel(solution=name)
        assert float(row["kl_divergence"]) == one.kl_divergence
        assert int(row["unsolved"]) == one.unsolved
        assert bool(row["good"]) == one.trustworthy
        assert str(row["verdict"].values) == one.verdict
        assert float(row["corrected_mean"].sel(parameter="D")) == one.means["D"][1]
        assert float(row["sd"].sel(parameter="D")) == one.sds["D"][0]
    assert json.loads(json.dumps(good["tighter"].as_dict()))["good"] is True
