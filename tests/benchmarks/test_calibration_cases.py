"""The particles of the calibration: weights at nodes have the likelihood of the particles."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer.util import log_density

from benchmarks import calibration_cases as cases
from models import gene_expression

CASE = cases.CASES["gene_expression"]


def test_weights_at_nodes_have_the_likelihood_of_the_particles():
    x = gene_expression.synthetic_data(3)["x"][::20]
    y = cases.interpolation(jnp.asarray(x[:, 0])).sum(axis=0)
    away = []
    for lam, mu in ((500.0, 10.0), (40.0, 0.2), (1500.0, 28.0)):
        values = {"lam": lam, "mu": mu}
        args = CASE.exact(), x, np.zeros(len(x))
        ours = CASE.exact(), CASE.points, y
        one, other = (
            log_density(model, a, {}, values)[0]
            for model, a in ((gene_expression.model, args), (CASE.model, ours))
        )
        away.append(float(one - other))
    constant = np.log(x * (1 - x)).sum()
    np.testing.assert_allclose(away, constant, rtol=1e-6)


def test_particles_are_as_many_and_where_the_intensity_says():
    theta = {"lam": 300.0, "mu": 12.0}

    def draw(key):
        seeded = numpyro.handlers.seed(numpyro.handlers.substitute(CASE.generator, theta), key)
        return numpyro.handlers.trace(seeded).get_trace(None, None)["y"]["value"]

    y = np.asarray(jax.lax.map(draw, jax.random.split(jax.random.key(0), 20)))
    mean = gene_expression.SNAPSHOTS * float(gene_expression.total(theta))
    # Lagrange's weights of a particle add up to one.
    assert y.sum(axis=1).mean() == pytest.approx(mean, rel=0.02)
    fine = np.linspace(0, 1, 20001)[1:-1, None]
    intensity = np.asarray(gene_expression.closed_form(fine, theta))
    expected = np.average((fine[:, 0] - 0.5) ** 2, weights=intensity)
    second = y @ (CASE.points[:, 0] - 0.5) ** 2 / y.sum(axis=1)
    assert second.mean() == pytest.approx(expected, rel=0.02)
