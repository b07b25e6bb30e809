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
# # Reading the diagnostics when things go wrong
#
# A run can look perfect and be wrong. This notebook breaks one small inference in five ways, each
# of which happens in earnest, and shows which number tells. The problem is that of *First
# posterior*: u'' = r u with r = 9 unknown, and with an exact posterior to compare with, which in
# earnest there is not.

# %%
# %matplotlib inline
import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, init_to_value

import bilo_ppl as bilo
from bilo_ppl import plots
from bilo_ppl.diagnostics import goodness_of_fit

jax.config.update("jax_enable_x64", True)
QUICK = bool(os.environ.get("BILO_QUICK"))  # fewer draws, for tests
CHAINS, DRAWS, DEPTH = (1, 20, 2) if QUICK else (2, 300, 10)


class Decay(bilo.Problem):
    parameters, components = ("r",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(31)

    def residual(self, u, x, theta):
        return bilo.laplacian(u)(x) - theta["r"] * u(x)

    def lift(self, x, raw, theta):
        return 1 - x[0] + x[0] * (1 - x[0]) * raw


def formula(x, theta):
    root = jnp.sqrt(theta["r"])
    return jnp.sinh(root * (1 - x[0])) / jnp.sinh(root)


def model(operator, x, y=None, sigma=0.02):
    r = numpyro.sample("r", dist.LogNormal(1.5, 1.0))
    u = bilo.solution("u", operator, {"r": r})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


problem, sigma = Decay(), 0.02
exact = bilo.ClosedForm(problem, formula)
x = problem.domain.interior_grid(12)
noise = sigma * np.random.default_rng(0).normal(size=len(x))
y = np.asarray(jax.vmap(lambda p: formula(p, {"r": 9.0}))(x)) + noise
grid = {"r": np.linspace(3.0, 16.0, 1001)}
posterior = bilo.grid_posterior(model, grid, exact, x, y)

keys = jax.random.split(jax.random.key(0), 3)
network, _ = bilo.pretrain(
    problem, {"r": 5.0}, key=keys[0], width=24, dtype=np.float64, progress=False
)
network = network.with_lora(4, key=keys[1])


def tuned(tolerance, max_steps):
    solver = bilo.LevenbergMarquardt(tolerance, max_steps)
    return bilo.FineTuned(network, solver, bilo.ImplicitDifferentiation())


def sample(operator, r=9.0, warmup=DRAWS // 2, draws=DRAWS, **settings):
    """Chains that start at r."""
    start = init_to_value(values={"r": r})
    kernel = NUTS(model, init_strategy=start, **{"max_tree_depth": DEPTH, **settings})
    mcmc = MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=draws,
        num_chains=CHAINS,
        chain_method="sequential",
        progress_bar=False,
    )
    mcmc.run(keys[2], operator, x, y)
    return mcmc


# %% [markdown]
# ## 1. The tolerance is too loose
#
# The network was trained at r = 5, and may stop fine-tuning at a mean squared residual of 0.1. That
# sounds small beside r u, which is 9.

# %%
loose = tuned(0.1, max_steps=20)
mcmc = sample(loose)
draws = draws_of_first = mcmc.get_samples(group_by_chain=True)
inner = bilo.inner_statistics(model, draws, loose, x)
print(bilo.inner_report(bilo.to_arviz(mcmc, inner=inner), tolerance=0.1, max_steps=20))

# %% [markdown]
# Every solve has converged, no transition diverges, R-hat is near 1. Nothing of that knows what a
# residual of 0.1 does to u. The certificate does: it solves again at some draws, much better, and
# weighs the draws by the change of their energy.

# %%
certificate = bilo.certify(model, draws, loose, x, y, subset=50)
print(certificate)
print(f"exact: {posterior.mean('r'):.4f} +- {posterior.sd('r'):.3f}")
plots.plot_posterior(draws["r"], "r", posterior.marginal("r")).figure

# %% [markdown]
# The histogram is a posterior, but that of a slightly different equation. The eye can hardly tell;
# the corrected mean of the certificate is that of the reference. What to do stands in its first
# line: a tighter tolerance. `certificate.advice` says whether weights would do as well.

# %%
print(certificate.advice)

# %% [markdown]
# ## 2. Solves fail
#
# The tolerance is tight now, but a solve may take two steps only. Where it misses its tolerance the
# energy is infinite, the proposal is rejected and counted as a divergence.

# %%
short = tuned(1e-6, max_steps=2)
mcmc = sample(short, r=5.5, step_size=0.1)
draws = mcmc.get_samples(group_by_chain=True)
inner = bilo.inner_statistics(model, draws, short, x)
print(bilo.inner_report(bilo.to_arviz(mcmc, inner=inner), tolerance=1e-6, max_steps=2))

# %%
plots.plot_posterior(draws["r"], "r", posterior.marginal("r")).figure

# %% [markdown]
# The chain cannot leave the region that two steps reach. Its law is the posterior *cut off* there.
# The certificate would find every draw well solved, since it looks at draws, and the missing ones
# are none. So divergences are the number to read here. The cure is more steps, or `adapt`. With 20
# steps the solves at the draws of section 1 look like this.

# %%
enough = tuned(1e-6, max_steps=20)
solved = bilo.inner_statistics(model, draws_of_first, enough, x)["u"]
plots.plot_inner_steps(solved.steps, solved.loss, tolerance=1e-6)[0].figure

# %% [markdown]
# All are below the tolerance, at three steps or more each. `adapt` would bring the upper panel down
# to zero.
#
# ## 3. The chains have not arrived
#
# Two chains start far away, at r = 60, without a warm-up, and take short steps.

# %%
mcmc = sample(exact, r=60.0, warmup=0, draws=60, step_size=0.02, max_tree_depth=3)
idata = bilo.to_arviz(mcmc)
print(bilo.inner_report(idata))
plots.plot_trace(mcmc.get_samples(group_by_chain=True))[0].figure

# %% [markdown]
# A trace should look like noise about one level. Here it begins with a fall. R-hat compares the
# halves of the chains, and sees it. The operator is exact, so that no certificate would object: it
# says that energies are right, not that the draws have arrived.
#
# ## 4. Data and model contradict each other
#
# The data now have a systematic error, as of a sensor that reads a quarter too much. The
# inference runs without complaint, and finds some r.

# %%
biased = 1.25 * y
kernel = NUTS(model, init_strategy=init_to_value(values={"r": 9.0}))
mcmc = MCMC(kernel, num_warmup=200, num_samples=DRAWS, progress_bar=False)
mcmc.run(keys[2], exact, x, biased)
draws = mcmc.get_samples(group_by_chain=True)
fit = goodness_of_fit(model, draws, exact, x, biased)["y"]
print(f"r = {draws['r'].mean():.2f} +- {draws['r'].std():.2f}")
print(fit.warning or fit)

# %%
line = problem.domain.grid(101)
band = bilo.solution_draws(model, draws, line, exact, x)
plots.plot_solution_band(line, band, data=(x, biased, sigma)).figure

# %% [markdown]
# The posterior is narrow and right for this model, and the model is wrong. The chi-square per datum
# should be near 1. The figure shows how: the values near the boundary lie above any solution, since
# u(0) = 1 is built in.
#
# ## 5. The model says something else than meant
#
# NumPyro broadcasts. A likelihood of shape (10, 10) for 10 data runs, and counts every datum ten
# times. `check_model` looks at shapes without solving anything; the command line does so before
# every run.


# %%
def too_large(operator, x, y=None):
    r = numpyro.sample("r", dist.LogNormal(1.5, 1.0))
    u = bilo.solution("u", operator, {"r": r})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x)[:, None], sigma), obs=y)


def without_data(operator, x, y=None):
    r = numpyro.sample("r", dist.LogNormal(1.5, 1.0))
    u = bilo.solution("u", operator, {"r": r})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma))


for wrong in (too_large, without_data):
    try:
        bilo.check_model(wrong, exact, x, y)
    except ValueError as error:
        print(f"{wrong.__name__}: {error}\n")

# %% [markdown]
# ## Which number for which fault
#
# | Fault | What stays silent | What tells |
# |---|---|---|
# | solutions too inaccurate | R-hat, divergences, inner solves | certificate |
# | solves fail | certificate | divergences, failed solves, inner steps at the limit |
# | chains not arrived | certificate, inner solves | R-hat, effective draws, trace |
# | data and model contradict | all of these | chi-square, solution band |
# | model says something else | all of these | `check_model` |
#
# The verdict of `bilo-ppl run` looks at all of them.
