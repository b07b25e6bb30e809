"""Whether divergences call for another operator."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl.operators.random_features import random_features
from bilo_ppl.run.sample.beyond import told_of_divergences
from bilo_ppl.run.sample.contradictions import contradictions, without_remedy
from bilo_ppl.run.sample.results import Results


class Root(bilo.Problem):
    """u^2 = c: for no negative c."""

    parameters, components, domain = ("c",), 1, bilo.interval(0.0, 1.0)
    points = domain.grid(101)

    def residual(self, u, x, theta):
        return u(x) ** 2 - theta["c"]

    def lift(self, x, raw, theta):
        return 1 + raw


class Growth(Root):
    """u' = r u (1 - u) from 0.01: steps from r = 1 do not come to r = 12, where there is a solution."""

    domain = bilo.time_interval(0.0, 1.0)

    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) - theta["c"] * u(x) * (1 - u(x))

    def lift(self, x, raw, theta):
        return 0.01 + x[0] * raw


class Wave(Root):
    """u = sin(20 c x), for every c."""

    def residual(self, u, x, theta):
        return u(x) - jnp.sin(20 * theta["c"] * x[0])


def results_at(problem, draws, count):
    """Draws of c, all of which diverged, by ``count`` features."""
    features = random_features(problem, {"c": 1.0}, count=count, scale=4.0, key=jax.random.key(0))

    def bound(operator):
        def model():
            c = numpyro.sample("c", dist.Normal(0.0, 1.0))
            bilo.solution("u", operator, {"c": c})

        return model

    operator = bilo.OutputLayer(features, {"c": 1.0}, tolerance=1e-8)
    results = object.__new__(Results)
    vars(results).update(
        operator=operator,
        plan=SimpleNamespace(settings=SimpleNamespace(seed=0, adapts=True)),
        model=bound(operator),
        draws=SimpleNamespace(statistics={"diverging": np.ones((1, 50), bool)}),
        samples={"c": np.asarray(draws)[None]},
        args=(),
        kwargs={},
        stages=None,
        certificates={},
        closely=None,
    )
    return results


@pytest.mark.parametrize(
    ("problem", "draws", "none_needed"),
    [
        # About half of the thetas near the draws have no solution.
        (Root(), np.geomspace(0.001, 0.3, 50), True),
        # All have one, and more features know it.
        (Wave(), np.linspace(0.8, 1.4, 50), False),
        # They have one, and the steps of either operator do not come there.
        (Growth(), np.linspace(14.0, 20.0, 50), False),
        # The operator solves at all of them: its features are not what is missing.
        (Root(), np.linspace(1.0, 1.1, 50), False),
    ],
)
def test_no_other_operator_is_trained_where_nothing_solves(problem, draws, none_needed):
    results = results_at(problem, draws, 24)
    told = told_of_divergences(results)
    assert (told is not None) == none_needed
    found = contradictions(results)
    assert found == ["100% of the transitions diverged."]
    assert without_remedy(results, found) == told
    # What else contradicts the operator asks for another one.
    assert without_remedy(results, ["A tighter solve disagrees.", *found]) is None
    assert without_remedy(results, []) is None


def test_of_a_network_nothing_is_said():
    results = object.__new__(Results)
    results.operator = object.__new__(bilo.FineTuned)
    assert told_of_divergences(results) is None
