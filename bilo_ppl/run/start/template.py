"""Cooling of a rod along which heat is lost: T'' = h (T - 20) on [0, 1], T(0) = 100, T(1) = 60.

The first line of this text is the title of the report. Change what follows, part by part, and run

    bilo-ppl run template.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

AMBIENT, LEFT, RIGHT = 20.0, 100.0, 60.0


class Rod(bilo.Problem):
    """The equation, stated at a point."""

    parameters = ("h",)  # names of what is unknown in the equation
    components = 1  # of the solution; more than one for a system
    domain = bilo.interval(0.0, 1.0)  # or bilo.space_time(...), bilo.time_interval(...), bilo.Box

    def residual(self, u, x, theta):
        """Zero where u solves the equation; u is a function of a point x of shape (d,)."""
        return bilo.laplacian(u)(x) - theta["h"] * (u(x) - AMBIENT)

    def lift(self, x, raw, theta):
        """What makes of any value `raw` of the network a function with the right boundary values."""
        ends = LEFT + (RIGHT - LEFT) * x[0]
        return ends + (RIGHT - LEFT) * x[0] * (1 - x[0]) * raw

    # A flux condition, which `lift` cannot hold, is a row of conditions(self, u, theta):
    # return {"end": bilo.partial(u, 0)(jnp.array([1.0]))[None]} for u'(1) = 0.


problem = Rod()
start = {"h": 5.0}  # a first guess of the parameters; it need not be good


def model(operator, x, y=None, sigma=1.0):
    """The NumPyro model: priors, the solution, and how data y (n,) come about at points x (n, 1)."""
    h = numpyro.sample("h", dist.LogNormal(1.5, 1.0))
    u = bilo.solution("u", operator, {"h": h})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


truth = {"h": 8.0}  # may be left out: what the synthetic data are made with, to compare


# May be left out: for tables and figures.
units = {"h": "1/m^2", "x": "m", "u": "deg C", "y": "deg C"}


def exact(x):
    """May be left out: the solution at the truth."""
    root = np.sqrt(truth["h"])
    left, right = LEFT - AMBIENT, RIGHT - AMBIENT
    both = left * jnp.sinh(root * (1 - x[0])) + right * jnp.sinh(root * x[0])
    return AMBIENT + both / np.sinh(root)


def synthetic_data(seed):
    """Data to try it with, where no --data FILE.csv is given; may be left out where one always is."""
    x = problem.domain.interior_grid(15)
    noise = np.random.default_rng(seed).normal(size=len(x))
    return {"x": x, "y": np.asarray(jax.vmap(exact)(x)) + noise, "sigma": 1.0}


def reference():
    """May be left out: a numerical solver, for comparison (--operator numerical samples with it)."""
    return bilo.FiniteDifferences(problem, nodes=201, theta=start)


reference_grid = {
    "h": np.linspace(4.0, 13.0, 451)
}  # may be left out: where to compare the posterior
