"""Darcy flow in the unit square with an unknown permeability A(x, y), by 64 coefficients.

    -div(A grad u) = 10   on [0, 1]^2,   u = 0 on the boundary,
    A = 3 + 9 sigmoid(20 phi),   phi = sum_ij a_ij sqrt(lambda_ij) 2 cos(i pi x) cos(j pi y),

i, j = 1 ... 8, with lambda_ij = (pi^2 (i^2 + j^2) + 9)^-2 and independent a_ij ~ N(0, 1): a mixture of
two kinds of rock, with the permeabilities 3 and 12. ``Darcy(smooth)``, the problem of `darcy_smooth`, has
the log-Gaussian field A = exp(phi). Data are 31 x 31 noisy values of u. In `darcy_estimate` the unknown
is a function.

The equation is linear in u: it is enough to fine-tune the output layer (`bilo_ppl.OutputLayer`).
"""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

SOURCE = 10.0
SIGMA = 0.01
MODES = 8
TAU = 3.0
ALPHA = 2.0


def two_rocks(phi):
    """Permeabilities between 3 and 12."""
    return 3 + 9 * jax.nn.sigmoid(20 * phi)


def smooth(phi):
    """The log-Gaussian field."""
    return jnp.exp(phi)


class Darcy(bilo.Problem):
    """With A = ``kind(phi)`` and the collocation points of an n x n grid, less its corners.

    At a corner, u and both second derivatives vanish by the boundary values: the residual there is the
    source, whatever the network does.
    """

    kind: Callable = eqx.field(static=True, default=two_rocks)
    n: int = eqx.field(static=True, default=31)

    parameters = ("a",)
    components = 1
    domain = bilo.Box((0.0, 0.0), (1.0, 1.0))
    positive = ("A",)

    @property
    def points(self):
        return bilo.without_corners(self.domain, self.domain.grid(self.n, self.n))

    def permeability(self, theta):
        """A, a function of a point ``(2,)``."""
        return lambda x: self.kind(expansion(theta["a"], x))

    def fields(self, theta):
        return {"A": self.permeability(theta)}

    def residual(self, u, x, theta):
        A = self.permeability(theta)
        return bilo.divergence(lambda y: A(y) * bilo.grad(u)(y))(x) + SOURCE

    def lift(self, x, raw, theta):
        return bilo.bubble(self.domain, x) * raw

    def boundary(self, theta):
        edges = bilo.edge_points(self.domain)
        return edges, np.zeros(len(edges))


def expansion(a, x):
    """phi at a point ``(2,)`` for coefficients ``(64,)``, those of i = 1 first."""
    a = jnp.asarray(a).reshape(MODES, MODES)
    i = np.arange(1, MODES + 1)
    sd = (np.pi**2 * (i[:, None] ** 2 + i[None, :] ** 2) + TAU**2) ** (-ALPHA / 2)
    one, two = (jnp.cos(jnp.asarray(i * np.pi, a.dtype) * x[axis]) for axis in range(2))
    return one @ (jnp.asarray(2 * sd, a.dtype) * a) @ two


problem = Darcy()
start = {"a": np.zeros(MODES**2)}


def model(operator, x, y=None, sigma=SIGMA):
    """Noisy values y (n,) of u at the points x (n, 2); also of `Darcy(smooth)`."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([MODES**2]).to_event(1))
    u = bilo.solution("u", operator, {"a": a})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed, noise=SIGMA, problem=problem):
    """Noisy values at the 31 x 31 inner points of a uniform grid."""
    x = problem.domain.interior_grid(33, 33)
    y = np.asarray(jax.vmap(_true_solution(problem))(x))
    y = y + noise * np.random.default_rng(seed).normal(size=len(x))
    return {"x": x, "y": y, "sigma": noise or SIGMA}


# A draw from the prior.
truth = {"a": np.random.default_rng(64).normal(size=MODES**2)}


def reference(cells=64, problem=problem):
    """Finite volumes, to be compared with those on the 256 x 256 cells that the data are from."""
    return bilo.FiniteVolumes(
        problem,
        (cells, cells),
        theta=start,
        coefficient=problem.permeability,
        source=lambda theta: SOURCE,
    )


@functools.cache
def _true_solution(problem):
    return reference(256, problem).solve(truth, ())[0]
