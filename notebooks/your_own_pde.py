# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own PDE
#
# A catalyst takes up a substance that diffuses into it from both sides. The uptake saturates
# (Michaelis and Menten):
#
# $$u'' = \frac{V u}{K + u} \quad \text{on } [0, 1], \qquad u(0) = u(1) = 1.$$
#
# V, the largest rate, and K, where half of it is reached, are unknown. The equation is not linear
# in u, and nothing in the package knows it. This notebook goes the way that is worth going with
# every new equation: state it, check the statement, see what the data can tell, and only then
# sample.

# %%
# %matplotlib inline
import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib.figure import Figure
from numpyro.infer import MCMC, NUTS, init_to_value

import bilo_ppl as bilo
from bilo_ppl import plots

jax.config.update("jax_enable_x64", True)
QUICK = bool(os.environ.get("BILO_QUICK"))  # fewer draws, for tests
CHAINS, WARMUP, DRAWS = (1, 20, 40) if QUICK else (2, 200, 500)

# %% [markdown]
# ## State it
#
# `boundary` is optional. It says at which points the lift must give which values, and is checked
# before any work.


# %%
class Uptake(bilo.Problem):
    parameters, components = ("V", "K"), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) - theta["V"] * u(x) / (theta["K"] + u(x))

    def lift(self, x, raw, theta):
        return 1 + x[0] * (1 - x[0]) * raw

    def boundary(self, theta):
        return np.array([[0.0], [1.0]]), np.ones(2)


problem, start = Uptake(), {"V": 5.0, "K": 1.0}

# %% [markdown]
# ## Check the statement
#
# A wrong sign in a residual gives no error, only another equation. Two checks cost next to nothing.
#
# **Where the solution is known.** For K far above u the uptake is linear, with u = cosh(s (x -
# 1/2)) / cosh(s / 2) and s² = V / K. The residual of that function must nearly vanish.

# %%
limit = {"V": 4e6, "K": 1e6}


def linear_limit(x):
    return jnp.cosh(2 * (x[0] - 0.5)) / jnp.cosh(1.0)


line = problem.domain.grid(101)
left = jax.vmap(lambda x: problem.residual(linear_limit, x, limit))(line)
print(f"largest residual {np.abs(left).max():.1e}")

# %% [markdown]
# **By another solver.** `FiniteDifferences` discretises the same residual. That its two grids agree
# says that they are fine enough; that u falls from the boundary inwards is what uptake must do.

# %%
truth = {"V": 8.0, "K": 0.5}
coarse, fine = (bilo.FiniteDifferences(problem, nodes, theta=start) for nodes in (51, 401))
u_true = jax.vmap(fine.solve(truth, fine.init_state())[0])(line)
u_coarse = jax.vmap(coarse.solve(truth, coarse.init_state())[0])(line)
print(f"the grids differ by {np.abs(u_true - u_coarse).max():.1e}")

# %% [markdown]
# ## Features for it
#
# Where an equation is new, random features are tried first: tanh units that nothing trains, of
# which only the output layer is fitted, here by a few Gauss-Newton steps since the equation is not
# linear in u. Some thetas over the prior say how steep the units should be. Does it find the
# solution that finite differences find?

# %%
keys = jax.random.split(jax.random.key(0), 4)
over_prior = [
    {"V": jnp.array(V), "K": jnp.array(K)} for V, K in ((2.0, 1.0), (5.0, 1.0), (20.0, 0.3))
]
features, _ = bilo.choose_random_features(problem, over_prior, count=32, key=keys[0])
operator = bilo.OutputLayer(features, start, tolerance=1e-6)
figure = Figure(figsize=(6.4, 3.4), layout="constrained")
ax = figure.subplots()
for theta, colour in zip((start, over_prior[2], truth), plots.COLOURS, strict=False):
    u, _, info = operator.solve(theta, operator.init_state())
    found = jax.vmap(u)(line)
    numerical = jax.vmap(fine.solve(theta, fine.init_state())[0])(line)
    name = ", ".join(f"{n} = {float(v):g}" for n, v in theta.items())
    off = np.abs(found - numerical).max()
    print(f"{name}: {info.steps} steps to a loss of {info.loss:.0e}; u differs by {off:.0e}")
    ax.plot(line, found, color=colour, label=name)
    ax.plot(line[::5], numerical[::5], ".", color=plots.INK)
ax.set(xlabel="x", ylabel="u (dots: finite differences)")
ax.legend(frameon=False)
figure

# %% [markdown]
# The two agree, at thetas far from each other, and nothing was trained.
#
# ## What can the data tell?
#
# Eight values with noise 0.01. Laplace's approximation about the point estimate takes seconds, and
# says before any sampling which unknowns the data can tell apart. What they say best is the rate at
# the boundary, where u = 1 is known: w = V / (K + 1). So w and K are the unknowns of the model, and
# V follows.

# %%
sigma = 0.01
x = problem.domain.interior_grid(10)
noise = sigma * np.random.default_rng(1).normal(size=len(x))
y = np.asarray(jax.vmap(fine.solve(truth, fine.init_state())[0])(x)) + noise


def model(operator, x, y=None, sigma=sigma):
    w = numpyro.sample("w", dist.LogNormal(np.log(3.0), 0.7))
    K = numpyro.sample("K", dist.LogNormal(0.0, 0.7))
    V = numpyro.deterministic("V", w * (K + 1))
    u = bilo.solution("u", operator, {"V": V, "K": K})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


bilo.check_model(model, operator, x, y)
estimate = bilo.find_map(model, keys[2], operator, x, y, progress=False)
print(estimate)
gaussian = bilo.laplace(estimate)
sd = np.sqrt(np.diag(gaussian.covariance))
correlation = gaussian.covariance[0, 1] / (sd[0] * sd[1])
print(f"sd of log K {sd[0]:.2f}, of log w {sd[1]:.2f}, their correlation {correlation:.2f}")

# %% [markdown]
# The correlation is near one: where u is of the size of K, a larger rate is made up for by a larger
# K. w is known well, K badly. No method can get from these data what they do not contain. A second
# experiment with less substance at the boundary would.
#
# ## Sample
#
# A solve of 32 unknowns is cheap enough to be done anew at every step of the sampler; for larger
# problems `adapt` finds a smaller basis first. A dense mass matrix, the covariance of the Gaussian,
# takes account of the correlation.

# %%
kernel = NUTS(
    model,
    init_strategy=init_to_value(values=estimate.values),
    inverse_mass_matrix=gaussian.covariance,
    dense_mass=True,
    step_size=0.5,
)
mcmc = MCMC(
    kernel,
    num_warmup=WARMUP,
    num_samples=DRAWS,
    num_chains=CHAINS,
    chain_method="sequential",
    progress_bar=False,
)
mcmc.run(keys[3], operator, x, y)
draws = mcmc.get_samples(group_by_chain=True)
bilo.summary(bilo.to_arviz(mcmc)).round(3)

# %% [markdown]
# The chains agree, but the 1000 draws are worth some 270 independent ones: the ridge makes the sampler
# slow. That is enough for what is said here. For numbers to be printed, run longer.

# %%
rate = truth["V"] / (truth["K"] + 1)
plots.plot_pairs({name: draws[name] for name in ("w", "K", "V")}, {**truth, "w": rate})[0, 0].figure

# %% [markdown]
# The ridge between w and K is the one that Laplace's approximation has said, which is straight in
# their logarithms and bent here. V is as uncertain as K: the data know the two only together.
#
# ## Certify by the other solver
#
# The finite differences that have checked the statement also check the result: at 50 draws the
# energy is computed again by them, and the weights say by how much the means would move.

# %%
print(bilo.certify(model, draws, operator, x, y, reference=fine, subset=50))

# %% [markdown]
# ## To change
#
# - Another equation: change `residual`, `lift` and `boundary`. `bilo.partial(u, axis)` is a
#   derivative along one axis, `bilo.space_time(space, end)` a domain with time, and u may have
#   several components.
# - Conditions that a lift cannot build in, such as a flux at the boundary: `conditions(u, theta)`
#   gives them as further rows of the least-squares problem.
# - The same on the command line: a file with `problem`, `start`, `model` and `synthetic_data`, and
#   `bilo-ppl run FILE`.
