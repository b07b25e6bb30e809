"""Two reactions in a row with diffusion (Bateman; Crank, The Mathematics of Diffusion, chapter 14).

    u_t = D u_xx - k u,   v_t = D v_xx + k u - m v   for x and t in [0, 1],
    u = v = 0 at both ends,   u(x, 0) = sin(pi x), v(x, 0) = 0.

Truth D = 0.05, k = 2, m = 1; start (0.1, 1, 2); log D ~ N(-3, 1), log k and log m ~ N(0, 1); both
components at 5 places and 5 times, noise sd 0.03.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import bilo_ppl as bilo


class Chain(bilo.Problem):
    parameters, components = ("D", "k", "m"), 2
    domain = bilo.space_time(bilo.interval(0.0, 1.0), 1.0)
    points = domain.grid(31, 31)

    def residual(self, u, x, theta):
        made, lost = theta["k"] * u(x)[0], theta["m"] * u(x)[1]
        diffused = bilo.partial(u, 1)(x) - theta["D"] * bilo.partial(u, 0, 0)(x)
        return diffused - jnp.stack([-made, made - lost])

    def lift(self, x, raw, theta):
        initial = jnp.stack([jnp.sin(jnp.pi * x[0]), 0.0])
        return initial + x[0] * (1 - x[0]) * x[1] * raw


problem, start = Chain(), {"D": 0.1, "k": 1.0, "m": 2.0}
truth = {"D": 0.05, "k": 2.0, "m": 1.0}


def closed_form(x, theta):
    k, m, t = theta["k"], theta["m"], x[1]
    second = k / (m - k) * (jnp.exp(-k * t) - jnp.exp(-m * t))
    mode = jnp.sin(jnp.pi * x[0]) * jnp.exp(-theta["D"] * jnp.pi**2 * t)
    return mode * jnp.stack([jnp.exp(-k * t), second])


def model(operator, x, y=None, sigma=0.03):
    D = numpyro.sample("D", dist.LogNormal(-3.0, 1.0))
    rates = {name: numpyro.sample(name, dist.LogNormal(0.0, 1.0)) for name in ("k", "m")}
    u = bilo.solution("u", operator, {"D": D, **rates})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


def synthetic_data(seed):
    x = problem.domain.grid(np.arange(1, 6) / 6, np.linspace(0.2, 1.0, 5))
    u = np.asarray(jax.vmap(lambda p: closed_form(p, truth))(x))
    noise = 0.03 * np.random.default_rng(seed).normal(size=(25, 2))
    return {"x": x, "y": u + noise, "sigma": 0.03}


def reference():
    return bilo.ClosedForm(problem, closed_form)
