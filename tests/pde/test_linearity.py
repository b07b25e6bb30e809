"""Whether an equation is seen to be linear in u."""

import jax.numpy as jnp
import pytest

import bilo_ppl as bilo
from bilo_ppl.pde.linearity import is_linear_in_u
from models import boundary_toy, fisher_kpp, heat_initial, nonlinear_poisson, poisson


class Rod(bilo.Problem):
    """D u'' = 1, with a condition at the end that is linear in u for p = 1."""

    parameters, components, domain = ("D",), 1, bilo.interval(0.0, 1.0)
    power: int = 1

    @property
    def points(self):
        return self.domain.grid(9)

    def residual(self, u, x, theta):
        return theta["D"] * bilo.laplacian(u)(x) - 1.0

    def conditions(self, u, theta):
        end = jnp.array([1.0])
        return {"end": jnp.reshape(bilo.partial(u, 0)(end) + u(end) ** self.power, (1,))}

    def lift(self, x, raw, theta):
        return x[0] * raw


class Positive(Rod):
    """The same equation for the logarithm of u."""

    def lift(self, x, raw, theta):
        return jnp.exp(raw)


@pytest.mark.parametrize(
    ("problem", "theta", "linear"),
    [
        (poisson.problem, {"D": 2.0}, True),
        (boundary_toy.problem, boundary_toy.start, True),
        (heat_initial.problem, {"f": lambda x: jnp.sin(jnp.pi * x[0])}, True),
        (nonlinear_poisson.problem, nonlinear_poisson.start, False),
        (fisher_kpp.problem, fisher_kpp.start, False),
        (Rod(1), {"D": 2.0}, True),
        (Rod(2), {"D": 2.0}, False),
        (Positive(1), {"D": 2.0}, False),
    ],
)
def test_rows_and_lift_tell(problem, theta, linear):
    assert is_linear_in_u(problem, theta) == linear
