"""mRNA in a cell with an unknown production rate lambda and degradation rate mu.

    u'' - mu u + lambda delta(x - z) = 0   on [0, 1],   u(0) = u(1) = 0,   z = 1/2:

the steady intensity of particles that are made at the gene site z, diffuse, decay and leave at the
ends. Lengths are in units of the cell's length L, times in units of L^2 / D, the time of diffusion over
it. The data are particle positions in M = 100 snapshots, a Poisson point process of intensity M u:

    log likelihood = sum_i log u(q_i) - M int u dx.

u has a kink at z. The network sees phi = |x - z| beside x (a cusp-capturing network, Tseng et al.,
*J. Comput. Phys.*, 2023), so that u(x) = U(x, phi) with a smooth U; the residual is imposed away
from z and the jump u'(z+) - u'(z-) = -lambda at z. Residual and jump are in units of 100: a loss of 1e-3
is 10 in the units of the equation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo

Z = 0.5
SNAPSHOTS = 100
SCALE = 100.0
OFFSET = 2.0**-20  # one-sided derivatives are taken this far from z; exact in single precision


class GeneExpression(bilo.Problem):
    parameters = ("lam", "mu")
    components = 1
    domain = bilo.interval(0.0, 1.0)
    points = bilo.masked(domain.grid(51), lambda x: x[0] != Z)

    def inputs(self, x, theta):
        phi = jnp.abs(x - Z)
        return jnp.concatenate([self.domain.normalise(x), 4 * phi - 1])

    def residual(self, u, x, theta):
        return (bilo.laplacian(u)(x) - theta["mu"] * u(x)) / SCALE

    def conditions(self, u, theta):
        after, before = (bilo.partial(u, 0)(jnp.array([Z + s])) for s in (OFFSET, -OFFSET))
        # Half the jump is dU/dphi at z.
        return {"jump": jnp.reshape((after - before + theta["lam"]) / (2 * SCALE), (1,))}

    def lift(self, x, raw, theta):
        return 50 * raw**2 * x[0] * (1 - x[0])

    def boundary(self, theta):
        return np.array([[0.0], [1.0]]), np.zeros(2)


problem = GeneExpression()
start = {"lam": 250.0, "mu": 5.0}


def closed_form(x, theta):
    """The solution at points (n, 1): (n,)."""
    root = jnp.sqrt(theta["mu"])
    low, high = jnp.minimum(x[:, 0], Z), jnp.maximum(x[:, 0], Z)
    return (
        theta["lam"] * jnp.sinh(root * low) * jnp.sinh(root * (1 - high)) / (root * jnp.sinh(root))
    )


def total(theta):
    """The integral of the solution: the mean number of particles in a snapshot."""
    root = jnp.sqrt(theta["mu"])
    edge = jnp.cosh(root * (1 - 2 * Z) / 2) / jnp.cosh(root / 2)
    return theta["lam"] / theta["mu"] * (1 - edge)


def exact(x):
    """The solution at the truth."""
    return closed_form(jnp.reshape(x, (1, 1)), truth)[0]


def simpson(count=32):
    """Points (n, 1) and weights (n,) of Simpson's rule with ``count`` cells on either side of z."""
    pattern = np.ones(count + 1)
    pattern[1:-1:2], pattern[2:-1:2] = 4, 2
    sides = [np.linspace(a, b, count + 1) for a, b in ((0.0, Z), (Z, 1.0))]
    weights = [pattern * (x[1] - x[0]) / 3 for x in sides]
    return np.concatenate(sides)[:, None], np.concatenate(weights)


def model(operator, x, y=None, sigma=1.0):
    """Particle positions x (n, 1) in all snapshots; y (n,) tells the snapshots apart.

    The snapshots have the same intensity, so that neither y nor ``sigma`` enters the likelihood.
    Without y, the model is the prior of the parameters and of u.
    """
    lam = numpyro.sample("lam", dist.Gamma(1.0, 0.004))
    mu = numpyro.sample("mu", dist.Uniform(0.0, 30.0))
    u = bilo.solution("u", operator, {"lam": lam, "mu": mu})
    if y is not None:
        nodes, weights = simpson()
        integral = weights @ jax.vmap(u)(jnp.asarray(nodes, jnp.result_type(float)))
        numpyro.factor("particles", jnp.sum(jnp.log(jax.vmap(u)(x))) - SNAPSHOTS * integral)


def synthetic_data(seed):
    """Particle positions of the truth, by the inverse of their distribution function."""
    rng = np.random.default_rng(seed)
    n = rng.poisson(SNAPSHOTS * float(total(truth)))
    root = truth["mu"] ** 0.5
    edge = np.arccosh(1 + rng.uniform(size=n) * (np.cosh(root / 2) - 1)) / root
    x = np.where(rng.uniform(size=n) < 0.5, edge, 1 - edge)  # symmetric, as z = 1/2
    return {"x": x[:, None], "y": rng.integers(SNAPSHOTS, size=n).astype(float), "sigma": 1.0}


truth = {"lam": 500.0, "mu": 10.0}
units = {
    "x": "cell lengths",
    "u": "particles per cell length",
    "lam": "particles per diffusion time",
    "mu": "1 per diffusion time",
}


def reference(nodes=401):
    """Finite differences with the jump of u' at z: a relative error near 1e-5."""
    return bilo.FiniteDifferences(
        problem, nodes, theta=truth, jumps={Z: lambda theta: -theta["lam"]}
    )


reference_grid = {"lam": np.linspace(150.0, 850.0, 57), "mu": np.linspace(0.1, 24.1, 81)}
