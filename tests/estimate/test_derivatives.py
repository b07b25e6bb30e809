"""The Jacobian of the least-squares rows: forward or backward, the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bilo_ppl as bilo
from bilo_ppl.estimate import derivatives
from bilo_ppl.estimate.derivatives import differentiated
from bilo_ppl.estimate.first_guess import find_start
from bilo_ppl.estimate.objective import Objective
from bilo_ppl.ppl.experiments import initial_states
from models import poisson

X = poisson.problem.domain.grid(9)


@jax.custom_vjp
def backward_only(x):
    return x


backward_only.defvjp(lambda x: (x, None), lambda _, g: (g,))


def model(operator, through=lambda v: v):
    D = numpyro.sample("D", dist.LogNormal(0.0, 1.0))
    a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    u = through(jax.vmap(bilo.solution("u", operator, {"D": D}))(X))
    mean = u * (1 + a[0]) + a[1] ** 2
    numpyro.sample("y", dist.Normal(mean, 0.1), obs=jnp.ones(len(X)))


def at(through=lambda v: v):
    """An objective, a position and the states of its operators."""
    operator = bilo.ClosedForm(
        poisson.problem, lambda x, theta: jnp.sin(jnp.pi * x[0]) / theta["D"]
    )
    args = (operator, through)
    start = find_start(model, jax.random.key(0), args, {}, {"D": 0.7, "a": jnp.array([0.2, -0.4])})
    objective = Objective(model, args, {}, start.operators, False)
    return objective, start.z, initial_states(start.operators, start.batches)


def by_differences(objective, z, states, name, index=()):
    h = 1e-6
    low, high = (
        objective.with_rows(z | {name: z[name].at[index].add(s * h)}, states)[0][1] for s in (-1, 1)
    )
    return (high - low) / (2 * h)


@pytest.mark.parametrize("through", [lambda v: v, backward_only])
def test_the_jacobian_is_that_of_the_rows(through):
    objective, z, states = at(through)
    energy, gradient, jacobian, _ = differentiated(objective, z, states, rows=True)
    wanted = [by_differences(objective, z, states, "D")]
    wanted += [by_differences(objective, z, states, "a", i) for i in (0, 1)]
    np.testing.assert_allclose(jacobian, np.stack(wanted, axis=1), atol=1e-7)
    alone, slope, nothing, _ = differentiated(objective, z, states, rows=False)
    assert nothing is None
    np.testing.assert_allclose(energy, alone, rtol=1e-12)
    for name in z:
        np.testing.assert_allclose(gradient[name], slope[name], rtol=1e-10)


def test_few_unknowns_go_forward_unless_there_is_only_a_way_back(monkeypatch):
    passes = []

    def noting(name, function):
        return lambda *args, **options: passes.append(name) or function(*args, **options)

    monkeypatch.setattr(jax, "linearize", noting("forward", jax.linearize))
    monkeypatch.setattr(jax, "vjp", noting("backward", jax.vjp))
    differentiated(*at(), rows=True)
    assert set(passes) == {"forward"}
    passes.clear()
    differentiated(*at(backward_only), rows=True)
    assert passes[-1] == "backward"
    assert not derivatives._goes_forward(jax.make_jaxpr(backward_only)(1.0))
    assert derivatives._goes_forward(jax.make_jaxpr(jnp.sin)(1.0))
