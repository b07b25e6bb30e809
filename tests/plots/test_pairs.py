"""Unknowns against each other, the prior beside the posterior, and data beside their replicas."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import bilo_ppl as bilo
from bilo_ppl.plots import plot_pairs, plot_posterior, plot_replicas
from bilo_ppl.ppl.prior_density import prior_density
from models import poisson

RANDOM = np.random.default_rng(0)


def panels_of(axes):
    return [ax for ax in axes.flat if ax.axison]


def test_every_two_have_a_panel_with_their_points_and_their_correlation():
    a = RANDOM.normal(size=(2, 500))
    draws = {
        "a": a,
        "b": 3 * a + 0.1 * RANDOM.normal(size=a.shape),
        "c": RANDOM.normal(size=a.shape),
    }
    drawn = plot_pairs(draws, {"a": 0.5, "b": 1.5})
    assert len(panels_of(drawn)) == 6
    panels = {(ax.get_xlabel(), ax.get_ylabel()): ax for ax in panels_of(drawn)}
    below = panels["a", "c"]
    (points,) = below.collections
    np.testing.assert_array_equal(
        points.get_offsets(), np.column_stack([a.ravel(), draws["c"].ravel()])
    )
    shown = [float(text.get_text()) for ax in panels_of(drawn) for text in ax.texts]
    assert max(shown) == pytest.approx(np.corrcoef(a.ravel(), draws["b"].ravel())[0, 1], abs=0.01)
    assert len(shown) == 3
    lines = [line for ax in panels_of(drawn) for line in ax.lines]
    # The truth of a in its column, that of b in its row and column; none of c.
    assert sum(line.get_linestyle() == "--" for line in lines) == 3 + 1 + 2
    # On the diagonal, and there alone, the 90 % interval.
    for ax, values in zip(drawn.diagonal(), draws.values(), strict=True):
        ends = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
        np.testing.assert_allclose(ends, np.quantile(values, [0.05, 0.95]))
    assert sum(line.get_linestyle() == ":" for line in lines) == 2 * 3
    told = [text.get_text() for text in drawn[0, -1].get_legend().texts]
    assert told == ["truth", "draws", "5 to 95 %"]


def test_many_are_cut_and_one_is_refused():
    draws = {"a": RANDOM.normal(size=(1, 50, 9))}
    drawn = plot_pairs(draws)
    assert len(panels_of(drawn)) == 21
    assert drawn[0, 0].figure.get_suptitle() == "the first 6 of 9 unknowns"
    with pytest.raises(ValueError, match="two or more scalars"):
        plot_pairs({"a": draws["a"][..., 0]})


def hierarchy(operator, x, y=None, sigma=0.1):
    tau = numpyro.sample("tau", dist.HalfNormal(2.0))
    D = numpyro.sample("D", dist.LogNormal(0.0, tau))
    numpyro.sample("v", dist.Normal(jnp.arange(3.0), 1.0).expand([2, 3]).to_event(2))
    numpyro.sample("g", dist.MultivariateNormal(jnp.zeros(2), jnp.array([[4.0, 1.0], [1.0, 1.0]])))
    numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("each", 2):
        numpyro.sample("h", dist.Normal(0.0, tau))
        numpyro.sample("e", dist.Exponential(2.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def test_the_density_of_a_prior_is_that_of_its_distribution():
    data = poisson.synthetic_data(0)
    args = (poisson.reference(), data["x"], data["y"], data["sigma"])
    x = np.linspace(-1.0, 4.0, 30)
    found = prior_density(hierarchy, args, {}, "tau", x)
    np.testing.assert_allclose(found, stats.halfnorm(scale=2.0).pdf(x), rtol=1e-6)
    for name, wanted in (
        ("v[1,2]", stats.norm(loc=2.0)),
        ("v[0,0]", stats.norm()),
        ("g[0]", stats.norm(scale=2.0)),
        ("e[1]", stats.expon(scale=0.5)),
    ):
        density = prior_density(hierarchy, args, {}, name, x)
        np.testing.assert_allclose(density, wanted.pdf(x), rtol=1e-6)
    # Those of D and h depend on tau, v is an array, p has no densities of single entries here.
    for name in ("D", "h[0]", "v", "v[2]", "v[1,3]", "p[0]", "tau[0]", "w", "w[0]"):
        assert prior_density(hierarchy, args, {}, name, x) is None


def test_prior_and_interval_stand_beside_the_draws():
    draws = RANDOM.normal(size=(2, 400))
    ax = plot_posterior(draws, "a", prior=lambda x: stats.norm.pdf(x, 0, 3))
    labels = {line.get_label(): line for line in ax.lines}
    x, density = labels["prior"].get_data()
    np.testing.assert_allclose(density, stats.norm.pdf(x, 0, 3))
    low, high = np.quantile(draws, [0.05, 0.95])
    assert f"5 to 95 %: {low:.4g} to {high:.4g}" in labels
    drawn = sorted(line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":")
    assert drawn == [low, high]
    ax = plot_posterior(draws, "a", prior=lambda x: None)
    assert "prior" not in {line.get_label() for line in ax.lines}


def test_data_outside_of_what_is_predicted_are_counted_and_marked():
    replicas = RANDOM.normal(size=(2, 4000, 100, 2))
    data = RANDOM.normal(size=(100, 2))
    data[3, 1] = np.nan
    low, high = np.quantile(replicas, [0.05, 0.95], axis=(0, 1))
    outside = int(((data < low) | (data > high)).sum())
    ax = plot_replicas(data, replicas)
    assert ax.get_title(loc="left").startswith(f"{outside} of 199 data")
    assert 5 < outside < 40
    shown = sum(len(found.get_offsets()) for found in ax.collections[2:])
    assert shown == 60
    with pytest.raises(ValueError, match=r"must be \(chains, draws, \*data.shape\)"):
        plot_replicas(data, replicas[..., 0])
