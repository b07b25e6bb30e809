"""Fisher-KPP equation with unknown diffusion D and growth rate rho.

    u_t = 0.01 D u_xx + rho u (1 - u)   for x and t in [0, 1],
    u(x, 0) = sin(pi x)^2 / 2,   u(0, t) = u(1, t) = 0,

a model of growing and spreading populations (Fisher, 1937; Kolmogorov, Petrovsky, Piskunov, 1937).
Truth (2, 2), start (1, 1), log D and log rho ~ N(0, 0.5^2). The initial value and the boundary values
are not compatible at the corners (0, 0) and (1, 0): u_xx is pi^2 there and u_t is 0. The residual there
is 0.01 pi^2 D whatever the network does, so that these two points are left out.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

DIFFUSION = 0.01
SIGMA = 0.01


class FisherKPP(bilo.Problem):
    """With ``nx`` times ``nt`` collocation points, less two corners."""

    nx: int = eqx.field(static=True, default=51)
    nt: int = eqx.field(static=True, default=51)

    parameters = ("D", "rho")
    components = 1
    domain = bilo.space_time(bilo.interval(0.0, 1.0), 1.0)

    @property
    def points(self):
        grid = self.domain.grid(self.nx, self.nt)
        x, t = grid.T
        return bilo.masked(grid, (t > 0) | ((x > 0) & (x < 1)))

    def residual(self, u, x, theta):
        spread = DIFFUSION * theta["D"] * bilo.partial(u, 0, 0)(x)
        return bilo.partial(u, 1)(x) - spread - theta["rho"] * u(x) * (1 - u(x))

    def lift(self, x, raw, theta):
        return jnp.sin(jnp.pi * x[0]) ** 2 / 2 + x[0] * (1 - x[0]) * x[1] * raw

    def boundary(self, theta):
        initial = np.stack([np.linspace(0, 1, 11), np.zeros(11)], axis=1)
        ends = np.array([[0.0, 0.5], [0.0, 1.0], [1.0, 0.5], [1.0, 1.0]])
        values = [np.sin(np.pi * initial[:, 0]) ** 2 / 2, np.zeros(len(ends))]
        return np.concatenate([initial, ends]), np.concatenate(values)


problem = FisherKPP()
start = {"D": 1.0, "rho": 1.0}


def model(operator, x, y=None, sigma=SIGMA):
    """Noisy values y (n,) of u at the points (x, t), of shape (n, 2)."""
    D = numpyro.sample("D", dist.LogNormal(0.0, 0.5))
    rho = numpyro.sample("rho", dist.LogNormal(0.0, 0.5))
    u = bilo.solution("u", operator, {"D": D, "rho": rho})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed, noise=SIGMA, times=11):
    """Values at 11 equidistant points and ``times`` equidistant times; 1: at the end only."""
    t = np.linspace(0, 1, times) if times > 1 else np.ones(1)
    x = np.stack([c.ravel() for c in np.meshgrid(np.linspace(0, 1, 11), t, indexing="ij")], axis=1)
    y = np.asarray(jax.vmap(_true_solution())(x))
    y = y + noise * np.random.default_rng(seed).normal(size=len(x))
    return {"x": x, "y": y, "sigma": noise or SIGMA}


truth = {"D": 2.0, "rho": 2.0}


def reference(nodes=101):
    """The method of lines with as many times as nodes: with 101, u is right to 4e-5."""
    return bilo.MethodOfLines(problem, nodes, nodes, theta=truth)


@functools.cache
def _true_solution():
    return reference(nodes=401).solve(truth, ())[0]


reference_grid = {"D": np.linspace(1.2, 2.9, 57), "rho": np.linspace(1.86, 2.14, 47)}
