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
from bilo_ppl.diagnostics import plots

jax.config.update("jax_enable_x64", True)
QUICK = bool(os.environ.get("BILO_QUICK"))  # fewer draws, for tests
DRAWS = 100 if QUICK else 1000

# %% [markdown]
# ## State it
#
# `boundary` is optional. It says at which points the lift must give which values, and is checked
# before any work.


# %%
class Uptake(bilo.Problem):
    parameters, components = ("V", "K"), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(31)

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
# ## A network for it, and how far it carries
#
# The network is pretrained at the first guess, V = 5 and K = 1. Its inputs are x, V and K, and it
# was also asked that the *derivative* of the residual in V and K vanishes. So it is right to first
# order away from the guess, and fine-tuning does the rest.

# %%
keys = jax.random.split(jax.random.key(0), 4)
network, report = bilo.pretrain(problem, start, key=keys[0], width=32, progress=False)
operator = bilo.FineTuned(
    network.with_lora(4, key=keys[1]),
    bilo.LevenbergMarquardt(tolerance=1e-7, max_steps=20),
    bilo.ImplicitDifferentiation(),
)
tuned, _, info = operator.solve(truth, operator.init_state())
before, after = (np.abs(jax.vmap(f)(line) - u_true) for f in (network.field(truth), tuned))
print(report)
print(f"fine-tuned at the truth in {info.steps} steps, loss {info.loss:.1e}")

figure = Figure(figsize=(6.4, 3.4), layout="constrained")
ax = figure.subplots()
ax.semilogy(line, before, color=plots.COLOURS[1], label="as pretrained, V = 5 and K = 1")
ax.semilogy(line, after, color=plots.COLOURS[0], label="fine-tuned at V = 8, K = 0.5")
ax.set(xlabel="x", ylabel="|u - finite differences|", ylim=(1e-7, 1))
ax.legend(frameon=False, ncols=2)
figure

# %% [markdown]
# ## What can the data tell?
#
# Ten values with noise 0.01. Laplace's approximation about the point estimate takes seconds, and
# says before any sampling which unknowns the data can tell apart.

# %%
sigma = 0.01
x = problem.domain.interior_grid(10)
noise = sigma * np.random.default_rng(1).normal(size=len(x))
y = np.asarray(jax.vmap(fine.solve(truth, fine.init_state())[0])(x)) + noise


def model(operator, x, y=None, sigma=sigma):
    V = numpyro.sample("V", dist.LogNormal(np.log(5.0), 0.7))
    K = numpyro.sample("K", dist.LogNormal(0.0, 0.7))
    u = bilo.solution("u", operator, {"V": V, "K": K})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


bilo.check_model(model, operator, x, y)
estimate = bilo.find_map(model, keys[2], operator, x, y, progress=False)
print(estimate)
laplace = bilo.laplace(estimate).sample(keys[3], 1000)
correlation = np.corrcoef(np.ravel(laplace.samples["V"]), np.ravel(laplace.samples["K"]))[0, 1]
print(f"correlation of V and K: {correlation:.2f}")

# %% [markdown]
# The correlation is near one: where u is of the size of K, a larger V is made up for by a larger K.
# No method can get from these data what they do not contain. A second experiment with less
# substance at the boundary would.
#
# ## Sample
#
# `adapt` fits the network to the region that the estimate has found. A dense mass matrix takes
# account of the correlation.

# %%
operator = bilo.FineTuned(operator.operator, operator.solver, bilo.PartialDerivative())
adapted = bilo.adapt(model, keys[2], operator, x, y, progress=False)
print(adapted.report)
kernel = NUTS(
    model,
    init_strategy=init_to_value(values=adapted.operator.home),
    inverse_mass_matrix=adapted.covariance,
    dense_mass=True,
    step_size=0.5,
)
mcmc = MCMC(
    kernel,
    num_warmup=200,
    num_samples=DRAWS,
    num_chains=2,
    chain_method="sequential",
    progress_bar=False,
)
mcmc.run(keys[3], adapted.operator, x, y)
draws = mcmc.get_samples(group_by_chain=True)
bilo.summary(bilo.to_arviz(mcmc)).round(3)

# %%
plots.plot_pairs(draws, truth)

# %% [markdown]
# The ridge is what Laplace's approximation has said, but bent: a Gaussian cannot be.
#
# ## Certify by the other solver
#
# The finite differences that have checked the statement also check the result: at 100 draws the
# energy is computed again by them, and the weights say by how much the means would move.

# %%
print(bilo.certify(model, draws, adapted.operator, x, y, reference=fine, subset=100))

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
