"""The band of a run, with that of y where the data are noisy values of u; vectors with their priors."""

from types import SimpleNamespace
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl.pde.data import Observations
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.sample import figures
from models import poisson

X = poisson.problem.domain.grid(11)
Y = np.sin(np.pi * X[:, 0])
SAMPLES = {"D": np.full((2, 30), 1.0), "s": np.linspace(0.1, 0.4, 60).reshape(2, 30)}
EXACT = bilo.ClosedForm(poisson.problem, lambda x, theta: jnp.sin(jnp.pi * x[0]) / theta["D"])


def band(likelihood, *, y=Y, by_values=True, has_noise_sd=True):
    """The axes of the figure of the solution for a likelihood of u at the data, s and y."""

    def model(x, y, sigma):
        s = numpyro.sample("s", dist.HalfNormal(1.0))
        D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
        likelihood(jax.vmap(bilo.solution("u", EXACT, {"D": D})), x, s, y)

    file = SimpleNamespace(problem=poisson.problem, exact=poisson.exact, units={})
    plan = Mock(
        spec=Plan,
        file=file,
        observations=Observations(X, y, 0.2),
        settings=SimpleNamespace(data=None, accept_unconverged=False),
        solutions=("u",),
        by_values=by_values,
        has_noise_sd=has_noise_sd,
    )
    ((name, ax),) = figures._bands(plan, model, SAMPLES)
    assert name == "solution"
    return ax


def told(ax):
    return ax.get_legend_handles_labels()[1]


def normal(u, x, s, y):
    numpyro.sample("y", dist.Normal(u(x), 0.2), obs=y)


def width(band):
    vertices = band.get_paths()[0].vertices
    at = vertices[np.isclose(vertices[:, 0], 0.5), 1]
    return np.ptp(at)


def test_the_band_of_y_has_the_noise_of_the_likelihood():
    ax = band(normal)
    assert told(ax)[:2] == ["y: 5 to 95 %", "u: 5 to 95 %"]
    assert width(ax.collections[0]) == pytest.approx(2 * 1.644854 * 0.2, rel=1e-4)
    assert width(ax.collections[1]) == pytest.approx(0, abs=1e-6)


def test_noise_that_is_sampled_is_that_of_the_draws():
    def sampled(u, x, s, y):
        numpyro.sample("y", dist.Normal(u(x), s), obs=y)

    ax = band(sampled)
    high = dist.Normal(0.0, SAMPLES["s"].ravel()).cdf(width(ax.collections[0]) / 2)
    assert float(high.mean()) == pytest.approx(0.95, abs=1e-5)


def test_data_that_are_missing_do_not_count():
    y = np.where(np.arange(11) == 4, np.nan, Y)
    sigma = jnp.where(jnp.isnan(y), 1.0, 0.2)

    def gappy(u, x, s, y):
        bilo.observed("y", dist.Normal(u(x), sigma), y)

    assert width(band(gappy, y=y).collections[0]) == pytest.approx(2 * 1.644854 * 0.2, rel=1e-4)


def slopes(u, x, s, y):
    _, slope = jax.jvp(u, (x,), (jnp.ones_like(x),))
    numpyro.sample("y", dist.Normal(slope, 0.2), obs=y)


OTHERS = {
    "twice u": lambda u, x, s, y: numpyro.sample("y", dist.Normal(2 * u(x), 0.2), obs=y),
    "log u": lambda u, x, s, y: numpyro.sample("y", dist.Normal(jnp.log(u(x)), 0.2), obs=y),
    "slopes": slopes,
    "other data": lambda u, x, s, y: numpyro.sample("y", dist.Normal(u(x), 0.2), obs=y + 1),
    "noise of u": lambda u, x, s, y: numpyro.sample("y", dist.Normal(u(x), 0.1 * u(x)), obs=y),
    "noise of x": lambda u, x, s, y: numpyro.sample("y", dist.Normal(u(x), 1 + x[:, 0]), obs=y),
    "Student": lambda u, x, s, y: numpyro.sample("y", dist.StudentT(3.0, u(x), 0.2), obs=y),
    "Bernoulli": lambda u, x, s, y: numpyro.sample(
        "y", dist.Bernoulli(logits=u(x)), obs=(y > 0.5) * 1.0
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_where_data_are_something_else_there_is_no_band_of_y(name):
    ax = band(OTHERS[name])
    assert told(ax)[0] == "u: 5 to 95 %"
    assert not any(label.startswith("y") for label in told(ax))


def test_values_without_a_noise_sd_have_no_bars():
    def gamma(u, x, s, y):
        numpyro.sample("y", dist.Gamma(4.0, 4.0 / (u(x) + 1)), obs=y + 1)

    ax = band(gamma, has_noise_sd=False)
    assert "data" in told(ax)
    (points,) = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points.get_ydata(), Y)
    # With a noise there are as many bars, in a collection of lines.
    bars = [
        len(found.get_segments())
        for found in band(normal).collections
        if hasattr(found, "get_segments")
    ]
    assert bars == [11]
    assert not any(hasattr(found, "get_segments") for found in ax.collections)


def test_points_that_are_the_data_have_no_band_of_y_and_are_in_the_legend():
    def process(u, x, s, y):
        numpyro.factor("points", jnp.log(u(x) + 1).sum())

    ax = band(process, by_values=False)
    assert set(told(ax)) == {"u: 5 to 95 %", "median", "truth", "data"}
    assert "data" in [text.get_text() for text in ax.get_legend().texts]


def test_vectors_have_their_prior_beside_them():
    """Few entries have a figure each, with the density; many share one, with the intervals of draws."""

    def model(x, y, sigma):
        numpyro.sample("few", dist.Normal(0.0, 1.0).expand([2]))
        numpyro.sample("many", dist.Normal(0.0, 1.0).expand([20]).to_event(1))

    random = np.random.default_rng(0)
    samples = {name: random.normal(size=(2, 50, n)) for name, n in (("few", 2), ("many", 20))}
    prior = {name: random.normal(size=(1, 90, n)) for name, n in (("few", 2), ("many", 20))}
    file = SimpleNamespace(truth=None, units={})
    plan = Mock(spec=Plan, file=file, settings=SimpleNamespace(data=None))
    plan.observations = Observations(X, Y, 0.2)
    drawn = dict(figures._posteriors(plan, model, samples, None))
    assert list(drawn) == ["posterior_few[0]", "posterior_few[1]"]
    assert all("prior" in told(ax) for ax in drawn.values())
    groups = {"prior": SimpleNamespace(data_vars=as_variables(prior))}
    ((name, ax),) = figures._vectors(plan, groups, samples)
    assert name == "posterior_many"
    assert "prior, 5 to 95 %" in told(ax)
    # A run that was interrupted has no draws of the prior.
    ((_, ax),) = figures._vectors(plan, {}, samples)
    assert "prior, 5 to 95 %" not in told(ax)


def as_variables(arrays):
    return {name: SimpleNamespace(values=values) for name, values in arrays.items()}
