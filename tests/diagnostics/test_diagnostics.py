"""Diagnostics with a closed-form solution operator: u = sin(pi x) / D."""

import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

from bilo_ppl import diagnostics
from bilo_ppl.diagnostics import results_file
from bilo_ppl.diagnostics.results import chain_diagnostics
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.pde.domain import interval
from bilo_ppl.pde.problem import Problem
from bilo_ppl.ppl.effect import solution

TOL = 0.1
SOLVES = {"count": 0}


class Poisson(Problem):
    parameters = ("D",)
    components = 1
    domain = interval(0.0, 1.0)
    points = domain.grid(5)


class ClosedForm(AbstractSolutionOperator):
    """Exact; reports made-up inner solves so that every number is known: loss (D - 1)^2 / 10."""

    problem: Problem

    def init_state(self):
        return ()

    def solve(self, theta, state):
        SOLVES["count"] += 1
        D = jnp.asarray(theta["D"])
        loss = (D - 1) ** 2 / 10
        info = SolveInfo.of(jnp.floor(10 * jnp.abs(D - 1)).astype(int), loss, loss <= TOL)
        return lambda x: jnp.sin(jnp.pi * x[0]) / D, (), info


OPERATOR = ClosedForm(Poisson())
X = np.linspace(0.1, 0.9, 9)[:, None]
Y = np.sin(np.pi * X[:, 0])


def model(operator, x, y=None, sigma=0.2):
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
    u = solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def vector_model(y):
    a = numpyro.sample("a", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    numpyro.deterministic("total", a.sum())
    numpyro.sample("y", dist.Normal(a, 1.0).to_event(1), obs=y)


FIELDS = ("energy", "num_steps", "accept_prob", "potential_energy", "adapt_state.step_size")


@pytest.fixture(scope="module")
def run():
    mcmc = MCMC(
        NUTS(model),
        num_warmup=100,
        num_samples=100,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), OPERATOR, X, Y, extra_fields=FIELDS)
    return mcmc


@pytest.fixture
def solves():
    """Counts calls of the operator, traced or not."""
    SOLVES["count"] = 0
    return SOLVES


def draws():
    return {"D": jnp.array([[0.5, 1.0, 1.25], [2.0, 2.5, 1.1]])}


def groups(idata):
    return {
        name
        for name in ("posterior", "sample_stats", "observed_data", "log_likelihood")
        if name in idata
    }


def equal(first, second, names):
    for name in names:
        assert set(first[name].data_vars) == set(second[name].data_vars)
        for variable in first[name].data_vars:
            one, other = first[name][variable], second[name][variable]
            assert one.dims == other.dims
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one.values, other.values)


# Inner solves at given draws


def test_inner_statistics_are_those_of_each_draw(solves):
    info = diagnostics.inner_statistics(model, draws(), OPERATOR, X, Y)["u"]
    D = np.asarray(draws()["D"])
    np.testing.assert_array_equal(info.steps, np.floor(10 * np.abs(D - 1)))
    np.testing.assert_allclose(info.loss, (D - 1) ** 2 / 10, rtol=1e-12)
    np.testing.assert_array_equal(info.converged, [[True, True, True], [True, False, True]])
    assert info.converged.dtype == bool
    assert solves["count"] <= 2, "one trace, whatever the number of draws"


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_inner_statistics_do_not_depend_on_the_batches(batch_size):
    flat = {"D": jnp.linspace(0.5, 2.5, 7)}
    kwargs = {"x": X, "y": Y, "batch_ndims": 1, "batch_size": batch_size}
    info = diagnostics.inner_statistics(model, flat, OPERATOR, **kwargs)["u"]
    assert info.loss.shape == (7,)
    np.testing.assert_allclose(info.loss, (np.asarray(flat["D"]) - 1) ** 2 / 10, rtol=1e-12)


def test_solution_draws_are_the_closed_form_and_nan_where_unconverged():
    points = np.linspace(0, 1, 11)[:, None]
    u = diagnostics.solution_draws(model, draws(), points, OPERATOR, X, Y)
    D = np.asarray(draws()["D"]).ravel()
    exact = np.sin(np.pi * points[:, 0]) / D[:, None]
    assert u.shape == (6, 11)
    assert np.isnan(u[4]).all()
    np.testing.assert_allclose(np.delete(u, 4, 0), np.delete(exact, 4, 0), atol=1e-12)
    accepted = diagnostics.solution_draws(
        model, draws(), points, OPERATOR, X, accept_unconverged=True, max_draws=2
    )
    np.testing.assert_allclose(accepted, exact[[0, 5]], atol=1e-12)


def test_draws_that_lack_a_site_are_refused():
    with pytest.raises(ValueError, match=r"no values for the sites \['D'\]"):
        diagnostics.inner_statistics(model, {"E": jnp.ones((1, 2))}, OPERATOR, X, Y)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({}, "non-empty"),
        ({"D": jnp.ones(3)}, "2 leading axes"),
        ({"D": jnp.ones((2, 0))}, "2 leading axes"),
        ({"D": jnp.ones((2, 3)), "E": jnp.ones((2, 4))}, "agree"),
    ],
)
def test_samples_of_wrong_shape_are_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        diagnostics.inner_statistics(model, samples, OPERATOR, X, Y)


def test_points_and_sites_are_checked():
    with pytest.raises(ValueError, match=r"they must be \(n, 1\)"):
        diagnostics.solution_draws(model, draws(), np.linspace(0, 1, 3), OPERATOR, X)
    with pytest.raises(ValueError, match="outside the domain"):
        diagnostics.solution_draws(model, draws(), np.array([[0.5], [1.5]]), OPERATOR, X)
    with pytest.raises(ValueError, match=r"solutions are \['u'\]"):
        diagnostics.solution_draws(model, draws(), X, OPERATOR, X, site="v")
    with pytest.raises(ValueError, match="no solution"):
        diagnostics.inner_statistics(vector_model, {"a": jnp.ones((1, 2, 2))}, np.ones(2))


# ArviZ


def test_to_arviz_has_the_run_and_solves_nothing(run, solves):
    idata = diagnostics.to_arviz(run)
    assert solves["count"] == 0
    assert groups(idata) == {"posterior", "sample_stats", "observed_data"}
    samples = run.get_samples(group_by_chain=True)
    assert idata["posterior"]["D"].dims == ("chain", "draw")
    np.testing.assert_array_equal(idata["posterior"]["D"].values, samples["D"])
    np.testing.assert_array_equal(idata["observed_data"]["y"].values, Y)
    stats, fields = idata["sample_stats"], run.get_extra_fields(group_by_chain=True)
    names = {"diverging", "energy", "n_steps", "acceptance_rate", "lp", "step_size", "tree_depth"}
    assert set(stats.data_vars) == names
    np.testing.assert_array_equal(stats["n_steps"].values, fields["num_steps"])
    for steps, depth in ((1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4)):
        there = stats["n_steps"].values == steps
        assert (stats["tree_depth"].values[there] == depth).all()
    np.testing.assert_array_equal(stats["lp"].values, -fields["potential_energy"])
    assert stats["diverging"].dtype == bool


def test_observed_data_and_arguments_can_be_given(run, solves):
    given = diagnostics.to_arviz(run, observed={"y": Y + 1})
    np.testing.assert_array_equal(given["observed_data"]["y"].values, Y + 1)
    other = diagnostics.to_arviz(run, model_args=(OPERATOR, X), model_kwargs={"y": Y + 2})
    np.testing.assert_array_equal(other["observed_data"]["y"].values, Y + 2)
    assert "observed_data" not in groups(diagnostics.to_arviz(run, observed={}))
    assert solves["count"] == 0


def test_log_likelihood_only_if_asked_for(run, solves):
    idata = diagnostics.to_arviz(run, log_likelihood=True)
    assert solves["count"] > 0
    D = idata["posterior"]["D"].values[..., None]
    z = (Y - np.sin(np.pi * X[:, 0]) / D) / 0.2
    exact = -0.5 * z**2 - np.log(0.2 * np.sqrt(2 * np.pi))
    values, unconverged = idata["log_likelihood"]["y"].values, (D[..., 0] - 1) ** 2 / 10 > TOL
    np.testing.assert_allclose(values[~unconverged], exact[~unconverged], rtol=1e-9)


def test_inner_statistics_become_sample_statistics(run):
    samples = run.get_samples(group_by_chain=True)
    inner = diagnostics.inner_statistics(model, samples, OPERATOR, X, Y)
    stats = diagnostics.to_arviz(run, inner=inner)["sample_stats"]
    np.testing.assert_array_equal(stats["inner_steps"].values, inner["u"].steps)
    np.testing.assert_array_equal(stats["inner_converged"].values, inner["u"].converged)
    two = diagnostics.to_arviz(run, inner={"u": inner["u"], "v": inner["u"]})["sample_stats"]
    np.testing.assert_array_equal(two["inner_steps"].values, 2 * inner["u"].steps)
    np.testing.assert_array_equal(two["inner_loss"].values, inner["u"].loss)
    wrong = {"u": jax.tree.map(np.ravel, inner["u"])}
    with pytest.raises(ValueError, match=r"has shape \(200,\)"):
        diagnostics.to_arviz(run, inner=wrong)


class Finished:
    """A finished run, as far as to_arviz looks at it."""

    def __init__(self, model, args, samples, fields):
        self.sampler, self._args, self._kwargs = SimpleNamespace(model=model), args, {}
        self.samples, self.fields = samples, fields

    def get_samples(self, group_by_chain):
        assert group_by_chain
        return self.samples

    def get_extra_fields(self, group_by_chain):
        assert group_by_chain
        return self.fields


def recorded(loss=0.01, diverging=0):
    """A run of a kernel that records inner solves and a solver state, as BiLOHMC does."""
    shape = (4, 500)
    losses = np.full(shape, loss)
    fields = {
        "diverging": np.arange(2000).reshape(shape) < diverging,
        "num_steps": np.full(shape, 4),
        "inner_steps": np.tile([0, 2], (4, 250)),
        "inner_loss": losses,
        "inner_converged": losses <= TOL,
        "solver_state": {"u": jnp.zeros((*shape, 3))},
    }
    samples = {"D": 1 + np.random.default_rng(0).normal(size=shape)}
    return Finished(model, (OPERATOR, X, Y), samples, fields)


def test_recorded_and_pure_inner_statistics_stand_side_by_side(solves):
    shape = (4, 500)
    pure = {"u": SolveInfo.of(np.ones(shape, int), np.zeros(shape), np.ones(shape, bool))}
    stats = diagnostics.to_arviz(recorded(), inner=pure)["sample_stats"]
    assert "solver_state" not in stats.data_vars
    assert stats["inner_steps"].values.sum() == 2000
    assert (stats["pure_inner_steps"].values == 1).all()
    assert solves["count"] == 0


def test_more_chains_than_draws_and_vectors():
    a = np.random.default_rng(1).normal(size=(4, 3, 2))
    samples = {"a": a, "total": a.sum(-1)}
    finished = Finished(vector_model, (np.array([1.0, -1.0]),), samples, {})
    dims = {"a": ["component"]}
    idata = diagnostics.to_arviz(finished, dims=dims, coords={"component": ["p", "q"]})
    assert groups(idata) == {"posterior", "observed_data"}
    assert idata["posterior"]["a"].dims == ("chain", "draw", "component")
    np.testing.assert_array_equal(idata["posterior"]["total"].values, a.sum(-1))
    table = diagnostics.summary(idata)
    assert list(table.index) == ["a[0]", "a[1]", "total"]
    assert table["r_hat"].isna().all(), "three draws are too few"
    assert "WARNING: R-hat cannot be computed for a[0]" in diagnostics.inner_report(idata)


def test_draws_without_names_are_refused():
    with pytest.raises(ValueError, match="no draws by site name"):
        diagnostics.to_arviz(Finished(None, (), np.zeros((2, 5)), {}))


# Files


def test_netcdf_round_trip(run, tmp_path):
    idata = diagnostics.to_arviz(run)
    path = diagnostics.save(idata, tmp_path / "new" / "run.nc")
    back = diagnostics.load(path)
    equal(idata, back, groups(idata))
    assert back["sample_stats"]["diverging"].dtype == bool
    assert back["sample_stats"].attrs["inner_solves_of"] == "draw"
    assert [file.name for file in path.parent.iterdir()] == ["run.nc"]
    diagnostics.save(back, path)
    equal(idata, diagnostics.load(path), groups(idata))


def test_flags_are_stored_as_integers(run, tmp_path):
    import h5py

    path = diagnostics.save(diagnostics.to_arviz(run), tmp_path / "run.nc")
    with h5py.File(path) as file:
        assert file["sample_stats/diverging"].dtype == np.int8


def test_a_failed_save_leaves_the_old_file(run, tmp_path):
    path = diagnostics.save(diagnostics.to_arviz(run), tmp_path / "run.nc")
    before = path.read_bytes()

    class Failing:
        def to_netcdf(self, name, engine):
            with open(name, "w") as file:
                file.write("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        diagnostics.save(Failing(), path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_may_be_read_when_it_is_used(run, tmp_path, monkeypatch):
    path = diagnostics.save(diagnostics.to_arviz(run), tmp_path / "run.nc")
    draws = run.get_samples(group_by_chain=True)["D"]
    lazy, whole = diagnostics.load(path, lazy=True), diagnostics.load(path)
    for found, in_memory in ((lazy, False), (whole, True)):
        assert found["posterior"]["D"].variable._in_memory == in_memory
        np.testing.assert_array_equal(found["posterior"]["D"].isel(draw=slice(3)), draws[:, :3])
    # What memory cannot hold may be read so, and only so.
    monkeypatch.setattr(results_file, "MOST_BYTES", 100)
    diagnostics.load(path, lazy=True)
    with pytest.raises(ValueError, match="would take"):
        diagnostics.load(path)


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results file"):
        diagnostics.load(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("not netCDF")
    with pytest.raises(ValueError, match="not a netCDF"):
        diagnostics.load(tmp_path / "text.nc")


# Table and report


def test_summary_is_right_for_known_draws(tmp_path):
    idata = diagnostics.to_arviz(recorded())
    values = recorded().samples["D"]
    table = diagnostics.summary(idata)
    columns = ["mean", "sd", "5%", "95%", "mcse_mean", "ess_bulk", "ess_tail", "r_hat"]
    assert list(table.columns) == columns
    row = table.loc["D"]
    assert row["mean"] == pytest.approx(values.mean())
    assert row["sd"] == pytest.approx(values.std(ddof=1))
    assert row["5%"] == pytest.approx(np.quantile(values, 0.05))
    assert row["mcse_mean"] == pytest.approx(values.std() / np.sqrt(2000), rel=0.15)
    assert row["ess_bulk"] == pytest.approx(2000, rel=0.2)
    assert row["r_hat"] == pytest.approx(1, abs=0.01)
    diagnostics.write_summary_csv(idata, tmp_path / "summary.csv")
    lines = (tmp_path / "summary.csv").read_text().splitlines()
    assert lines[0] == "name," + ",".join(columns)
    assert float(lines[1].split(",")[1]) == pytest.approx(values.mean())
    with pytest.raises(ValueError, match="not in the posterior"):
        diagnostics.summary(idata, ["k"])


def test_chain_diagnostics_of_correlated_draws_and_of_edge_cases():
    rng, rho = np.random.default_rng(3), 0.8
    walk = np.zeros((4, 4000))
    for i in range(1, 4000):
        walk[:, i] = rho * walk[:, i - 1] + rng.normal(size=4)
    expected = 16000 * (1 - rho) / (1 + rho)
    found = chain_diagnostics(walk)
    assert found.ess_bulk == pytest.approx(expected, rel=0.2)
    assert found.mcse_mean == pytest.approx(walk.std() / expected**0.5, rel=0.15)
    apart = rng.normal(size=(2, 100)) + np.array([[0.0], [10.0]])
    assert chain_diagnostics(apart).r_hat > 1.5
    in_turn = rng.normal(size=(8, 100)) + np.tile([[0.0], [10.0]], (4, 1))
    assert chain_diagnostics(in_turn).r_hat > 1.5, "one after the other, pairs are of one law"
    drifting = np.linspace(0, 10, 100)[None] + rng.normal(size=(1, 100))
    assert chain_diagnostics(drifting).r_hat > 1.5, "a single chain is judged by its halves"
    assert chain_diagnostics(rng.normal(size=(1, 1000))).r_hat < 1.02
    for useless in (np.ones((4, 100)), np.full((2, 100), np.nan), np.ones((2, 3))):
        assert np.isnan(chain_diagnostics(useless)).all()
    with pytest.raises(ValueError, match="chains, draws"):
        chain_diagnostics(np.ones(5))


def test_the_effective_draws_of_the_tails_are_those_of_the_5_and_95_percent_quantiles():
    """Chains that stay in the tails for long, and mix well at the quartiles."""
    rng = np.random.default_rng(5)
    wild = np.repeat(rng.random((4, 100)) < 0.15, 20, axis=1)
    draws = np.where(wild, 20.0, 1.0) * rng.normal(size=wild.shape)

    def effective(low, high):
        quantiles = np.quantile(draws, [low, high])
        return min(effective_sample_size((draws <= q).astype(float)) for q in quantiles)

    wanted = effective(0.05, 0.95)
    assert wanted < 0.5 * effective(0.25, 0.75)
    assert chain_diagnostics(draws).ess_tail == pytest.approx(wanted, rel=0.1)


def test_report_of_a_sound_run():
    text = diagnostics.inner_report(diagnostics.to_arviz(recorded()), tolerance=TOL)
    assert "4 x 500 draws" in text
    assert "1 step per draw, 0.25 per leapfrog step; 50% of the draws needed none" in text
    assert "Worst loss at a draw 0.01 (tolerance 0.1); transitions with an unconverged" in text
    assert "Divergences: 0 of 2000 transitions." in text
    assert "WARNING" not in text


def test_report_warns():
    text = diagnostics.inner_report(diagnostics.to_arviz(recorded(0.2, 3)), tolerance=TOL)
    assert "WARNING: 2000 draws were kept at a loss above the tolerance" in text
    assert "transitions with an unconverged solve: 2000 of 2000" in text
    assert "Divergences: 3 of 2000 transitions, 3 by failed solves." in text
    assert "WARNING: 3 of 2000 transitions diverged: their proposals were rejected" in text
    assert "In 3 an inner solve did not reach the tolerance 0.1. The chain was then at D" in text


def test_report_of_divergences_by_energy_errors():
    idata = diagnostics.to_arviz(recorded(0.01, 3))
    text = diagnostics.inner_report(idata, tolerance=TOL, max_steps=7)
    assert "In 0 an inner solve did not reach the tolerance 0.1 within 7 steps; 3 met" in text
    assert diagnostics.run_faults(idata) == (2000, 3, 0, 0)


def test_report_of_a_plain_run(run):
    text = diagnostics.inner_report(diagnostics.to_arviz(run))
    assert "Inner solves: not recorded" in text
    assert "WARNING: fewer than 400 effective draws for D" in text
    inner = diagnostics.inner_statistics(
        model, run.get_samples(group_by_chain=True), OPERATOR, X, Y
    )
    text = diagnostics.inner_report(diagnostics.to_arviz(run, inner=inner))
    assert "Inner solves anew at the draws" in text
    assert "per leapfrog step" not in text
    missed = int((~inner["u"].converged).sum())
    assert f"draws with an unconverged solve: {missed} of 200" in text


def test_importing_the_package_imports_neither_arviz_nor_matplotlib():
    code = (
        "import sys, bilo_ppl.diagnostics; "
        "sys.exit(any(name in sys.modules for name in ('arviz', 'matplotlib', 'xarray')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
