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
# # First posterior
#
# A substance diffuses into a layer and decays there at an unknown rate r:
#
# $$u'' = r\,u \quad \text{on } [0, 1], \qquad u(0) = 1, \quad u(1) = 0.$$
#
# We have ten noisy values of u and want to know r, with its uncertainty. The way is: state the
# equation, train a network that solves it near a first guess, write a NumPyro model, adapt the
# network to the posterior, sample, check.

# %%
# %matplotlib inline
import os

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, init_to_value

import bilo_ppl as bilo
from bilo_ppl import plots
from bilo_ppl.diagnostics import goodness_of_fit

jax.config.update("jax_enable_x64", True)
QUICK = bool(os.environ.get("BILO_QUICK"))  # fewer draws, for tests
DRAWS = 100 if QUICK else 1000

# %% [markdown]
# ## The equation
#
# `residual` is what is zero where u solves the equation, at one point `x` of shape `(1,)`. `u` is a
# function of a point, and `bilo.laplacian(u)` is one too. `lift` builds the boundary values in:
# whatever the network says (`raw`), the result is 1 at the left end and 0 at the right one.


# %%
class Decay(bilo.Problem):
    parameters, components = ("r",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(31)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) - theta["r"] * u(x)

    def lift(self, x, raw, theta):
        return 1 - x[0] + x[0] * (1 - x[0]) * raw


problem, start = Decay(), {"r": 5.0}

# %% [markdown]
# ## The data
#
# They are made with r = 9, where u is known in closed form, and noise of standard deviation 0.02.

# %%
truth, sigma = 9.0, 0.02


def exact(x, theta):
    root = jax.numpy.sqrt(theta["r"])
    return jax.numpy.sinh(root * (1 - x[0])) / jax.numpy.sinh(root)


x = problem.domain.interior_grid(12)
noise = sigma * np.random.default_rng(0).normal(size=len(x))
y = np.asarray(jax.vmap(lambda p: exact(p, {"r": truth}))(x)) + noise

# %% [markdown]
# ## The model
#
# It is an ordinary NumPyro model. `bilo.solution` is the only place where the equation is solved.
# What solves it is the `operator`, an argument: below it is a network, then a formula, and the
# model does not change.


# %%
def model(operator, x, y=None, sigma=sigma):
    r = numpyro.sample("r", dist.LogNormal(1.5, 1.0))
    u = bilo.solution("u", operator, {"r": r})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


# %% [markdown]
# ## A network that solves the equation at the first guess
#
# `pretrain` drives the residual to zero at r = 5, without looking at any data. r is an input of the
# network.

# %%
keys = jax.random.split(jax.random.key(0), 4)
network, report = bilo.pretrain(
    problem, start, key=keys[0], width=32, dtype=np.float64, progress=False
)
print(report)

# %% [markdown]
# `FineTuned` makes a solution operator of it: wherever r goes, low-rank increments of the weights
# (LoRA, rank 4) are fitted until the loss, the mean squared residual, is below the tolerance 1e-6.
# How that is done does not depend on the data: the equation is a constraint, not a term that is
# traded against them.

# %%
operator = bilo.FineTuned(
    network.with_lora(4, key=keys[1]),
    bilo.LevenbergMarquardt(tolerance=1e-6, max_steps=6),
    bilo.PartialDerivative(),
)

# %% [markdown]
# ## Adaptation
#
# Fine-tuning at every step of a sampler would be slow. So `adapt` descends to the mode of the
# posterior, and fits one set of weights to many values of r about it. The report says how many
# fresh values need no more fitting.

# %%
adapted = bilo.adapt(model, keys[2], operator, x, y, progress=False)
print(adapted.report)

# %% [markdown]
# ## Sampling
#
# NUTS is NumPyro's own. It starts at the mode, and the variances from the adaptation give it the
# right units.

# %%
kernel = NUTS(
    model,
    init_strategy=init_to_value(values=adapted.operator.home),
    inverse_mass_matrix=adapted.inverse_mass_matrix,
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

# %% [markdown]
# R-hat near 1 says that the chains agree, `ess_bulk` how many independent draws they are worth.
#
# ## Is it right?
#
# **Against the exact posterior.** With one parameter and a formula for u the posterior is an
# integral on a grid. The same model is given the formula in the place of the network.

# %%
grid = {"r": np.linspace(5.0, 15.0, 1001)}
exact_posterior = bilo.grid_posterior(model, grid, bilo.ClosedForm(problem, exact), x, y)
print(f"exact {exact_posterior.mean('r'):.3f} +- {exact_posterior.sd('r'):.3f}")
plots.plot_posterior(draws["r"], "r", exact_posterior.marginal("r"), truth=truth).figure

# %% [markdown]
# Histogram and curve agree up to what so many draws scatter. The truth lies within the posterior,
# not at its peak: ten noisy values do not know better.
#
# **Without an exact posterior**, which is the usual case, `certify` solves the equation again at
# some draws, much better, and says by how much that would move the result.

# %%
print(bilo.certify(model, draws, adapted.operator, x, y, subset=50))

# %% [markdown]
# **Against the data.** The band holds the solutions at the draws. It is narrow: the equation leaves
# u little freedom, and one number r is all that the data have to decide. The chi-square says
# whether data and model fit; near 1 per datum is right.

# %%
line = problem.domain.grid(101)
bands = bilo.solution_draws(model, draws, line, adapted.operator, x)
print(goodness_of_fit(model, draws, adapted.operator, x, y)["y"])
plots.plot_solution_band(line, bands, data=(x, y, sigma)).figure

# %% [markdown]
# ## What would be different
#
# - Noise ten times smaller: a posterior ten times narrower, and a tolerance that must follow. The
#   certificate tells when it does not. The command line (`bilo-ppl run`) chooses the tolerance
#   itself.
# - No adaptation: the same posterior with `bilo.ImplicitDifferentiation()`, but inner steps at
#   nearly every leapfrog step. *Reading the diagnostics* shows what happens where these are too
#   few.
# - A point estimate instead of draws: `bilo.find_map(model, key, operator, x, y)`.
