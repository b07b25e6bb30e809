"""Growth of a glioblastoma in a slice of a brain, from the outlines of the tumour at one time.

    u_t = D div(P grad u) + rho u (1 - u)   in the brain, no flux through its boundary,
    u(x, 0) = 0.1 exp(-0.1 |x|^2), x in millimetres from where the tumour began,

a density u of tumour cells with P = 1 in white and 0.1 in grey matter (Zhang et al., *Medical Image
Analysis*, 2025). The unknowns are rD = D / (0.13 mm^2/day) and rRHO = rho / (0.025/day), and the
thresholds c1 and c2 of u at which the whole tumour and its core end in the image, a plain part of the
NumPyro model. Time is in units of the 240 days until the image; lengths are in centimetres.

The boundary is diffuse (Li et al., *Commun. Math. Sci.* 7, 2009): with a smoothed mask phi of the brain,
phi u_t = D div(P phi grad u) + rho phi u (1 - u). Were growth and diffusion not in each other's way,

    logit u = m + rho t,   m(x, t) = logit w(x, D t),   phi w_s = div(P phi grad w),  w(x, 0) = u(x, 0),

and that is right while cells are few: one table of m (`bilo_ppl.numerics.image.spreading`), a solution
of a linear equation without unknowns, serves all theta. The solution of the problem is what is missing,

    n = logit u - m - rho t <= 0,   n = 0 at t = 0,
    phi n_t = D (div(P phi grad n) + P phi s),
    s = (1 - 2u) (2 grad m + grad n) . grad n - 2 (u - w) |grad m|^2,

smooth, and between -1 and 0 where there are cells. (For u itself the equation has the solution 0, too,
and that is what a network finds.) The network sees harmonic coordinates, in which n has no kinks where
tissues meet (`bilo_ppl.numerics.image.harmonic`). n is what a solution operator gives, the numerical one
as well; `density` makes u of it.
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
from bilo_ppl.anatomy import TissueMaps, brain_phantom, check_labels, log_odds
from bilo_ppl.numerics.image.harmonic import harmonic_coordinates
from bilo_ppl.numerics.image.spreading import Spreading, spreading
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
BRIGHT = 0.3  # phi at the points
MOST = 20.0  # rD up to which the equation without growth is tabulated
FAR = -9.0  # logit u beyond which there are no points
LEAST = 1e-12  # u below it is as good as none
SQUARES_SHARPNESS = 20.0


class Glioblastoma(bilo.Problem):
    domain: bilo.ImageDomain
    points: Any
    phase: ImageFunction
    """phi."""
    tissue: ImageFunction
    """P."""
    spread: Spreading
    """m: logit of what diffusion alone makes of u(x, 0), a function of x and D t."""
    harmonic: tuple[ImageFunction, ...]
    """h: coordinates in which n has no kinks where tissues meet."""

    parameters = ("rD", "rRHO")
    components = 1

    def residual(self, n, x, theta):
        D, slope = DIFFUSION * theta["rD"], bilo.grad(n)(x)
        m, along = jax.value_and_grad(lambda y: self.spread(y, D * x[2]))(x)
        m, along = jnp.tanh(m / 2), along[:2]  # 2w - 1
        u = jnp.tanh(self.logit(n(x), x, theta) / 2)  # 2u - 1
        steep = (m - u) * along @ along - u * (2 * along + slope[:2]) @ slope[:2]
        # div(P phi grad h) = 0: what is left of div(P phi grad n) are second derivatives in h.
        space = self.domain.space
        ways = jnp.stack([bilo.grad(h)(x)[:2] for h in self.harmonic], axis=1)
        bends = jnp.stack([bilo.laplacian(h, space)(x) for h in self.harmonic])
        bent = bilo.laplacian(n, space)(x) - bends @ jnp.linalg.solve(ways, slope[:2])
        rate = slope[2] - D * self.tissue(x) * (bent + steep)
        return _bump(self.logit(0.0, x, start)) * self.phase(x) * rate

    def logit(self, n, x, theta):
        """logit u, from n at a point."""
        return _free(self.spread, x, theta) + n

    def lift(self, x, raw, theta):
        return x[2] * raw

    def boundary(self, theta):
        x = self.domain.grid(9, 9, [0.0])
        return x, np.zeros(len(x))

    def observable(self, x, n, theta):
        return jax.nn.sigmoid(self.logit(n, x, theta))

    def inputs(self, x, theta):
        return jnp.stack([h(x) * LENGTH / RADIUS for h in self.harmonic] + [2 * x[2] - 1])


def _free(m, x, theta):
    """m + rho t."""
    return m(x, DIFFUSION * theta["rD"] * x[2]) + GROWTH * theta["rRHO"] * x[2]


def _bump(v):
    """1 in the tumour and at its front, and falling slowly beyond."""
    return jnp.exp(jnp.minimum(0.0, (v + 3) / 2))


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
    images = {
        "diffusivity": domain.values(tissue),
        "phase": np.clip(domain.values(phase), 0, 1),
    }
    spread = spreading(
        domain,
        domain.values(_initial),
        diffusivity=images["diffusivity"],
        phase=images["phase"],
        scale=WIDTH / 4,
        end=MOST * DIFFUSION,
    )
    problem = Glioblastoma(
        bilo.space_time(domain, 1.0),
        np.zeros((1, 3)),
        phase,
        tissue,
        spread,
        harmonic_coordinates(domain, **images),
    )
    return eqx.tree_at(lambda p: p.points, problem, _scattered(problem, points))


def _initial(x):
    return HEIGHT * jnp.exp(-jnp.sum(x[:2] ** 2) / WIDTH)


def _scattered(problem, count):
    """Points where there may be a tumour, more of them early on."""
    most = {"rD": 1.5, "rRHO": 1.2}
    a, b, t = bilo.hammersley(*3 * [(np.arange(8 * count) + 0.5) / (8 * count)]).T
    lower, upper = np.array(problem.domain.lower), np.array(problem.domain.upper)
    points = lower + np.stack([a, b, t**1.5], axis=1) * (upper - lower)
    points = points[problem.domain.contains(points)]
    # Nearer to the boundary nothing is left to ask: without flux n varies along it, as h does.
    points = points[np.asarray(jax.jit(jax.vmap(problem.phase))(points)) > BRIGHT]
    v = jax.jit(jax.vmap(lambda x: problem.logit(0.0, x, most)))(points)
    return even_part(points[np.asarray(v) > FAR], count)


class Deficit(eqx.Module):
    """n from u: where there are hardly any cells, as if there were `LEAST`."""

    u: Any
    spread: Spreading
    theta: Any

    def __call__(self, x):
        u = jnp.clip(self.u(x), LEAST, 1 - LEAST)
        return jnp.log(u) - jnp.log1p(-u) - _free(self.spread, x, self.theta)


class NumericalGrowth(bilo.AbstractSolutionOperator):
    """The equation for u, solved on the voxels; its solution is n."""

    problem: Glioblastoma
    equation: bilo.ReactionDiffusion

    def init_state(self):
        return self.equation.init_state()

    def solve(self, theta, state):
        u, state, info = self.equation.solve(theta, state)
        return Deficit(u, self.problem.spread, theta), state, info

    def refined(self):
        return NumericalGrowth(self.problem, self.equation.refined())


def numerical(problem: Glioblastoma, steps: int | None = None) -> NumericalGrowth:
    """On the voxels of the problem's image; ``steps`` as in `bilo_ppl.ReactionDiffusion`."""
    domain = problem.domain
    tissue = domain.values(problem.tissue)
    initial = domain.values(_initial)
    equation = bilo.ReactionDiffusion(
        problem,
        theta={"rD": 2.0, "rRHO": 1.0},
        diffusivity=lambda theta: DIFFUSION * theta["rD"] * tissue,
        initial=lambda theta: initial,
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


def _final(places):
    """Points (n, 3) at t = 1."""
    return np.concatenate([places, np.ones((len(places), 1))], axis=1)


def density(problem, n, x, theta):
    """u at points (n, 3), from the solution n at theta: (n, 1)."""
    points = jnp.asarray(x)
    return jax.vmap(lambda x: problem.observable(x, n(x), theta))(points)[:, None]


def model(operator, x, y=None, sigma=1.0):
    """Labels y (n, 2), 0 or 1, at points (n, 3): whole tumour and core. Bernoulli; no use of sigma."""
    if y is not None:
        check_labels(y, observed)
    theta, c = _prior()
    u = density(operator.problem, bilo.solution("n", operator, theta), x, theta)
    bilo.observed("y", dist.Bernoulli(logits=log_odds(u, c)), y)


def squares_model(operator, x, y, sigma=0.05):
    """For point estimates: sigmoid(20 (u - c)) against the labels, by squares relative to theirs.

    sigma is the relative error that costs half a nat.
    """
    theta, c = _prior()
    u = density(operator.problem, bilo.solution("n", operator, theta), x, theta)
    soft = jax.nn.sigmoid(SQUARES_SHARPNESS * (u - c))
    scale = sigma * np.linalg.norm(y, axis=0)
    numpyro.sample("y", dist.Normal(soft, jnp.asarray(scale, soft.dtype)), obs=y)


start = {"rD": 1.0, "rRHO": 1.0}
problem = growth(brain_phantom())
truth = {"rD": 1.3, "rRHO": 1.15, "c1": 0.35, "c2": 0.6}
init = {"c1": 0.3, "c2": 0.7}
units = {"x": "cm", "y": "cm", "t": "240 days", "rD": "0.13 mm^2/day", "rRHO": "0.025/day"}
architecture = {"width": 24, "depth": 2}
observed = ("whole", "core")  # what the columns of y are called in a file


def reference(steps=48):
    """Time steps that leave u(., 1) wrong by 4e-5, in relation to its norm; the voxels by 0.0025."""
    return numerical(problem, steps)


def synthetic_data(seed):
    """Labels of all voxels at t = 1, each drawn with its probability: wrong near the thresholds."""
    x = _final(problem.domain.centres)
    odds = np.asarray(_true_log_odds(), float)
    y = np.random.default_rng(seed).logistic(size=odds.shape) < odds
    return {"x": x, "y": y.astype(float), "sigma": 1.0}


@functools.cache
def _true_log_odds():
    theta = {name: truth[name] for name in problem.parameters}
    x = _final(problem.domain.centres)
    u = density(problem, reference().solve(theta, ())[0], x, theta)
    return log_odds(u, jnp.array([[truth["c1"], truth["c2"]]]))


def figures(solutions, values, data):
    """u at the last time over the anatomy, with the thresholds and the masks, and its sd.

    ``solutions(x)`` are those of k draws, ``values`` these draws; of a point estimate there is one.
    """
    from bilo_ppl.plots import plot_density  # with matplotlib

    x = _final(problem.domain.centres)
    theta = {name: jnp.asarray(values[name]) for name in problem.parameters}
    free = jax.vmap(jax.vmap(lambda x, t: problem.logit(0.0, x, t), (0, None)), (None, 0))
    u = np.asarray(jax.nn.sigmoid(solutions(x) + free(jnp.asarray(x), theta)))
    levels = [float(np.mean(values[name])) for name in ("c1", "c2")]
    anatomy = problem.domain.values(problem.tissue)
    shown = plot_density(
        problem.domain, u, levels, data.x, data.y, anatomy, names=observed, units=units
    )
    yield "tumour", shown
