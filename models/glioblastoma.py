"""Growth of a glioblastoma in a slice of a brain, from the outlines of the tumour at one time.

    u_t = D div(P grad u) + rho u (1 - u)   in the brain, no flux through its boundary,
    u(x, 0) = 0.1 exp(-0.1 |x|^2), x in millimetres from where the tumour began,

a density u of tumour cells with P = 1 in white and 0.1 in grey matter (Zhang et al., *Medical Image
Analysis*, 2025). The unknowns are rD = D / (0.13 mm^2/day) and rRHO = rho / (0.025/day), and the
thresholds c1 and c2 of u at which the whole tumour and its core end in the image, a plain part of the
NumPyro model. Time is in units of the 240 days until the image; lengths are in centimetres.

The boundary is diffuse (Li et al., *Commun. Math. Sci.* 7, 2009): with a smoothed mask phi of the brain,
phi u_t = D div(P phi grad u) + rho phi u (1 - u). The problem is stated for v = logit u:

    phi v_t = D (div(P phi grad v) + (1 - 2u) P phi |grad v|^2) + rho phi,

since u = 0 solves the equation for u, too, and is what a network finds. v is what a solution operator
gives, the numerical one as well. Far from the tumour u is like a Gaussian that spreads and grows, and
so begins the lift.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo
from bilo_ppl.anatomy import TissueMaps, brain_phantom
from bilo_ppl.pde.image_function import ImageFunction
from bilo_ppl.pde.points import even_part

LENGTH = 10.0  # mm
RADIUS = 40.0  # mm, of the disk in which the equation is solved
TIME = 240.0  # days
DIFFUSION = 0.13 * TIME / LENGTH**2
GROWTH = 0.025 * TIME
HEIGHT = 0.1
WIDTH = 10.0 / LENGTH**2  # u(x, 0) = HEIGHT exp(-|x|^2 / WIDTH)
FAINTEST = 0.02  # of phi: beyond is no more brain
LEAST = 1e-12  # u below it is as good as none
SHARPNESS, CLEARANCE = 10.0, 0.05  # k and s of the Bernoulli likelihood
SQUARES_SHARPNESS = 20.0


class Glioblastoma(bilo.Problem):
    domain: bilo.ImageDomain
    points: Any
    phase: ImageFunction
    """phi."""
    tissue: ImageFunction
    """P."""
    ways: ImageFunction
    """P as a straight way from where the tumour began meets it: the mean of P^(-1/2), to the power -2."""

    parameters = ("rD", "rRHO")
    components = 1

    def residual(self, v, x, theta):
        D, rho, space = DIFFUSION * theta["rD"], GROWTH * theta["rRHO"], self.domain.space
        slope, conductance = bilo.grad(v)(x), self.tissue(x) * self.phase(x)
        drift = bilo.grad(lambda y: self.tissue(y) * self.phase(y))(x)[:2] @ slope[:2]
        steep = jnp.tanh(-v(x) / 2) * jnp.sum(slope[:2] ** 2)  # tanh(-v / 2) = 1 - 2u
        spread = conductance * (bilo.laplacian(v, space)(x) + steep) + drift
        residual = self.phase(x) * (slope[2] - rho) - D * spread
        return _bump(self.spread_out(x, start)) * residual / GROWTH

    def spread_out(self, x, theta):
        """log u of a Gaussian that spreads and grows without bounds, at a point (x, y, t)."""
        D, rho = DIFFUSION * theta["rD"], GROWTH * theta["rRHO"]
        wider = 1 + 4 * D * self.ways(x) * x[2] / WIDTH
        squares = jnp.sum(x[:2] ** 2)
        return jnp.log(HEIGHT / wider) - squares / (WIDTH * wider) + rho * x[2]

    def lift(self, x, raw, theta):
        initial = HEIGHT * jnp.exp(-jnp.sum(x[:2] ** 2) / WIDTH)
        return self.spread_out(x, theta) - jnp.log(1 - initial) + x[2] * raw

    def boundary(self, theta):
        x = np.concatenate([self.domain.grid(9, 9, [0.0]), np.zeros((1, 3))])
        return x, _logit(HEIGHT * np.exp(-np.sum(x[:, :2] ** 2, axis=1) / WIDTH))

    def inputs(self, x, theta):
        tissue = jnp.stack([2 * self.tissue(x) - 1, 2 * self.ways(x) - 1])
        return jnp.concatenate([self.domain.normalise(x), tissue])


def _bump(log_u):
    """1 in the tumour and at its front, and falling slowly beyond.

    Where no row asks for anything, a network lets a second tumour begin.
    """
    return jnp.exp(jnp.minimum(0.0, (log_u + 5) / 3))


def _logit(u):
    return np.log(u) - np.log1p(-u)


def growth(maps: TissueMaps, points: int = 4000) -> Glioblastoma:
    """The problem in a slice of a brain, the tumour beginning at the point 0 of the maps.

    In a template: ``growth(template_slice(20.0).around((-25.0, -10.0), 42.0))``.
    """
    maps = maps.around((0.0, 0.0), RADIUS + 1)
    spacing, origin = (tuple(v / LENGTH for v in part) for part in (maps.spacing, maps.origin))
    disk = np.sum(maps.centres**2, axis=-1) <= RADIUS**2
    phase = bilo.image_domain(maps.brain, spacing, origin).smoothed_mask(1.2 * max(spacing))
    image = bilo.image_domain(disk, spacing, origin)
    domain = bilo.image_domain(disk & (image.values(phase) > FAINTEST), spacing, origin)
    tissue = domain.function(maps.diffusivity())
    problem = Glioblastoma(
        bilo.space_time(domain, 1.0),
        np.zeros((1, 3)),
        phase,
        tissue,
        domain.function(domain.values(lambda x: _mean_on_way(tissue, x))),
    )
    return eqx.tree_at(lambda p: p.points, problem, _scattered(problem, points))


def _mean_on_way(tissue, x):
    """The mean of P^(-1/2) between 0 and x, to the power -2."""
    s = (jnp.arange(64) + 0.5) / 64
    values = jax.vmap(lambda s: tissue(s * x))(s)
    return jnp.mean(values**-0.5) ** -2


def _scattered(problem, count):
    """Points where there may be a tumour: in a disk that widens, more of them early on."""
    most = {"rD": 1.5, "rRHO": 1.2}
    a, b, t = bilo.hammersley(*3 * [(np.arange(8 * count) + 0.5) / (8 * count)]).T
    t = t**1.5
    wider = 1 + 4 * DIFFUSION * most["rD"] * t / WIDTH
    far = WIDTH * wider * (14 + np.log(HEIGHT / wider) + GROWTH * most["rRHO"] * t)
    r = np.minimum(np.sqrt(far), RADIUS / LENGTH) * np.sqrt(a)
    points = np.stack([r * np.cos(2 * np.pi * b), r * np.sin(2 * np.pi * b), t], axis=1)
    points = points[problem.domain.contains(points)]
    log_u = jax.jit(jax.vmap(lambda x: problem.spread_out(x, most)))(points)
    return even_part(points[np.asarray(log_u) > -14], count)


class Density(eqx.Module):
    """v = logit u from u: where there are no cells it is that of `LEAST`."""

    u: Any

    def __call__(self, x):
        u = jnp.clip(self.u(x), LEAST, 1 - LEAST)
        return jnp.log(u) - jnp.log1p(-u)


class NumericalGrowth(bilo.AbstractSolutionOperator):
    """The equation for u, solved on the voxels; its solution is v = logit u."""

    problem: Glioblastoma
    equation: bilo.ReactionDiffusion

    def init_state(self):
        return self.equation.init_state()

    def solve(self, theta, state):
        u, state, info = self.equation.solve(theta, state)
        return Density(u), state, info


def numerical(problem: Glioblastoma, steps: int | None = None) -> NumericalGrowth:
    """On the voxels of the problem's image; ``steps`` as in `bilo_ppl.ReactionDiffusion`."""
    domain = problem.domain
    tissue = domain.values(problem.tissue)
    squares = domain.values(lambda x: jnp.sum(x**2))
    equation = bilo.ReactionDiffusion(
        problem,
        theta={"rD": 2.0, "rRHO": 1.0},
        diffusivity=lambda theta: DIFFUSION * theta["rD"] * tissue,
        initial=lambda theta: HEIGHT * jnp.exp(-squares / WIDTH),
        flow=bilo.logistic_flow(lambda theta: GROWTH * theta["rRHO"]),
        phase=np.clip(domain.values(problem.phase), 0, 1),
        steps=steps,
    )
    return NumericalGrowth(problem, equation)


def _prior():
    """rD, rRHO, and the thresholds, which are no parameters of the equation."""
    rD = numpyro.sample("rD", dist.LogNormal(0.1, 0.1**0.5))
    rRHO = numpyro.sample("rRHO", dist.LogNormal(0.1, 0.1**0.5))
    c = [
        numpyro.sample(name, dist.TruncatedNormal(mean, 0.1, low=0.0, high=1.0))
        for name, mean in (("c1", 0.3), ("c2", 0.7))
    ]
    return {"rD": rD, "rRHO": rRHO}, jnp.stack(c)[None]


def _density(v, x):
    """u at points (n, 3): (n, 1)."""
    return jax.nn.sigmoid(jax.vmap(v)(x))[:, None]


def log_odds(u, c):
    """Of a label being 1: a / (1 - a) with a = 1/2 + 1/2 tanh(k d) (1 - exp(-d^2 / s^2)), d = u - c."""
    d = jnp.abs(u - c)
    near = jnp.exp(-((d / CLEARANCE) ** 2))
    steep = jnp.tanh(SHARPNESS * d)
    # 1 - tanh, and not the difference of numbers that are nearly 1.
    rest = 2 / (1 + jnp.exp(2 * SHARPNESS * d)) + steep * near
    return jnp.sign(u - c) * (jnp.log1p(steep * (1 - near)) - jnp.log(rest))


def model(operator, x, y=None, sigma=1.0):
    """Labels y (n, 2), 0 or 1, at points (n, 3): whole tumour and core. Bernoulli; no use of sigma."""
    theta, c = _prior()
    v = bilo.solution("v", operator, theta)
    numpyro.sample("y", dist.Bernoulli(logits=log_odds(_density(v, x), c)), obs=y)


def squares_model(operator, x, y, sigma=0.05):
    """For point estimates: sigmoid(20 (u - c)) against the labels, by squares relative to theirs.

    sigma is the relative error that costs half a nat.
    """
    theta, c = _prior()
    v = bilo.solution("v", operator, theta)
    soft = jax.nn.sigmoid(SQUARES_SHARPNESS * (_density(v, x) - c))
    scale = sigma * np.linalg.norm(y, axis=0)
    numpyro.sample("y", dist.Normal(soft, jnp.asarray(scale, soft.dtype)), obs=y)


start = {"rD": 1.0, "rRHO": 1.0}
problem = growth(brain_phantom())
truth = {"rD": 1.3, "rRHO": 1.15, "c1": 0.35, "c2": 0.6}
init = {"c1": 0.3, "c2": 0.7}
architecture = {"width": 48, "depth": 2}


def reference(steps=48):
    """Time steps that leave u(., 1) wrong by 4e-5, in relation to its norm; the voxels by 0.02."""
    return numerical(problem, steps)


def synthetic_data(seed):
    """Labels of all voxels at t = 1, each drawn with its probability: wrong near the thresholds."""
    centres = problem.domain.centres
    x = np.concatenate([centres, np.ones((len(centres), 1))], axis=1)
    odds = np.asarray(_true_log_odds(), float)
    y = np.random.default_rng(seed).logistic(size=odds.shape) < odds
    return {"x": x, "y": y.astype(float), "sigma": 1.0}


@functools.cache
def _true_log_odds():
    theta = {name: truth[name] for name in problem.parameters}
    centres = problem.domain.centres
    x = jnp.concatenate([jnp.asarray(centres), jnp.ones((len(centres), 1))], axis=1)
    v = reference().solve(theta, ())[0]
    return log_odds(_density(v, x), jnp.array([[truth["c1"], truth["c2"]]]))


def dice(first, second):
    """2 |A and B| / (|A| + |B|) of two masks."""
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    return 2 * np.sum(first & second) / max(first.sum() + second.sum(), 1)
