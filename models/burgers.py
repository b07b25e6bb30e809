"""Inviscid Burgers equation with an unknown initial value u0(x), a function.

    u_t + 0.2 u u_x = 0   for x and t in [0, 1],   u(0, t) = u(1, t) = 0,   u(x, 0) = u0(x),

from values at t = 1 only. Three truths: "smooth" 0.5 sin(pi x) + 0.25 sin(2 pi x); "shock"
sin(2 pi x), whose shock forms at x = 1/2 at t = 0.8; "rarefaction" -sin(2 pi x), with compression at
the ends. u0 = sin(pi x) + x (1 - x) N(x) with a small network N, 0 at the start; the objective is the
mean squared misfit plus 1e-3 times the mean of u0'^2. The local operator sees u0(x) as an auxiliary
input. For the truths with shocks `Burgers` takes a viscosity.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo
from bilo_ppl.fields import NetworkField, zero_output
from bilo_ppl.ppl.unknowns import squared_penalty, unknown_function, weight_in_nats

SPEED = 0.2
SIGMA = 0.01
REGULARISATION = 1e-3
ROUGHNESS_POINTS = 401  # so close that no kink of the network between them goes unpenalised
SPACE = bilo.interval(0.0, 1.0)


class Burgers(bilo.Problem):
    """With ``nx`` times ``nt`` collocation points.

    A residual at points does not determine the place of a shock. With a small ``viscosity`` nu the
    equation is u_t + 0.2 u u_x = nu u_xx; its layers have the width 2 nu / (0.2 |u|), and u tends to the
    entropy solution as nu tends to 0. The points are then scattered, and crowded at both ends and in the
    middle, where the shocks of the three truths stand.
    """

    nx: int = eqx.field(static=True, default=51)
    nt: int = eqx.field(static=True, default=51)
    viscosity: float = eqx.field(static=True, default=0.0)

    parameters = ("u0",)
    components = 1
    domain = bilo.space_time(SPACE, 1.0)

    @property
    def points(self):
        if not self.viscosity:
            return self.domain.grid(self.nx, self.nt)
        layer = 2 * self.viscosity / SPEED
        n = self.nx * self.nt
        x = bilo.graded(SPACE, n, (0.0, 0.5, 1.0), width=2 * layer, density=12.0)
        return bilo.hammersley(x, np.linspace(0.0, 1.0, n))

    def residual(self, u, x, theta):
        inviscid = bilo.partial(u, 1)(x) + SPEED * u(x) * bilo.partial(u, 0)(x)
        return inviscid - self.viscosity * bilo.partial(u, 0, 0)(x) if self.viscosity else inviscid

    def lift(self, x, raw, theta):
        return theta["u0"](x) + x[0] * (1 - x[0]) * x[1] * raw

    def boundary(self, theta):
        ends = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        return ends, np.zeros(4)


def flux(u):
    """The flux whose derivative is the speed."""
    return SPEED * u**2 / 2


def _with_ends(x, raw):
    return jnp.sin(jnp.pi * x[0]) + x[0] * (1 - x[0]) * raw


truths = {
    "smooth": lambda x: 0.5 * jnp.sin(jnp.pi * x[0]) + 0.25 * jnp.sin(2 * jnp.pi * x[0]),
    "shock": lambda x: jnp.sin(2 * jnp.pi * x[0]),
    "rarefaction": lambda x: -jnp.sin(2 * jnp.pi * x[0]),
}

problem = Burgers()
unknown = NetworkField(SPACE, width=64, depth=2, lift=_with_ends, key=jax.random.key(0))
# Without output the network leaves the first guess, sin(pi x).
first_guess = zero_output(unknown)
start = {"u0": first_guess}


def model(operator, x, y=None, sigma=SIGMA, regularisation=REGULARISATION):
    """Noisy values y (n,) of u at the points (x, t), of shape (n, 2)."""
    u0 = unknown_function("u0", start["u0"])
    u = bilo.solution("u", operator, {"u0": u0})
    weight = weight_in_nats(regularisation, sigma, len(x))
    squared_penalty("roughness", weight, bilo.grad(u0), SPACE.grid(ROUGHNESS_POINTS))
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed, noise=SIGMA, truth="smooth", count=51):
    """Noisy values at ``count`` equidistant points at t = 1, ends included."""
    x = np.stack([np.linspace(0, 1, count), np.ones(count)], axis=1)
    y = np.asarray(jax.vmap(_true_solution(truth))(x))
    y = y + noise * np.random.default_rng(seed).normal(size=len(x))
    return {"x": x, "y": y, "sigma": noise or SIGMA}


truth = {"u0": truths["smooth"]}


def reference(nodes=401, viscosity=0.0):
    """Godunov's method, of first order, for |u0| up to 2.

    With a viscosity nu, the method of lines; 0.2 |u| / nodes must be below 2 nu.
    """
    if viscosity:
        return bilo.MethodOfLines(Burgers(viscosity=viscosity), nodes, nodes // 2 + 1, theta=truth)
    return bilo.Godunov(problem, flux, nodes, theta=truth, max_speed=2 * SPEED)


@functools.cache
def _true_solution(which):
    return reference(nodes=1601).solve({"u0": truths[which]}, ())[0]
