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
# # Hierarchical experiments
#
# A drug is absorbed and eliminated in six patients, each with a rate k of their own:
#
# $$c' = e^{-t} - k\,c \quad \text{for } t \in [0, 12] \text{ hours}, \qquad c(0) = 0.$$
#
# Of each patient there are four blood samples. Patients resemble each other. A hierarchical model says
# so, with a population that the rates are drawn from, and learns the population too.
# All equations are solved at once.

# %%
# %matplotlib inline
import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib.figure import Figure
from numpyro.infer import MCMC, NUTS, init_to_median
from numpyro.infer.reparam import LocScaleReparam

import bilo_ppl as bilo
from bilo_ppl import plots

jax.config.update("jax_enable_x64", True)
QUICK = bool(os.environ.get("BILO_QUICK"))  # fewer draws, for tests
DRAWS = 100 if QUICK else 1000

# %% [markdown]
# ## The equation, and data of six patients
#
# `time_interval` is a domain of time alone, for ordinary differential equations. The lift t · raw
# starts at 0.


# %%
class Elimination(bilo.Problem):
    parameters, components = ("k",), 1
    domain = bilo.time_interval(0.0, 12.0)
    points = domain.grid(61)

    def residual(self, u, x, theta):
        return bilo.partial(u, 0)(x) + theta["k"] * u(x) - jnp.exp(-x[0])

    def lift(self, x, raw, theta):
        return x[0] * raw


def exact(t, k):
    return (np.exp(-k * t) - np.exp(-t)) / (1 - k)


problem, sigma, patients = Elimination(), 0.05, 6
random = np.random.default_rng(2)
k_true = np.exp(-1 + 0.4 * random.normal(size=patients))
times = np.array([1.0, 3.0, 6.0, 10.0])[:, None]
y = exact(times[:, 0], k_true[:, None]) + sigma * random.normal(size=(patients, len(times)))

# %% [markdown]
# ## The operator
#
# The equation is linear in u, so that fitting the output layer of a network with random features
# solves it in one step. The thetas, over the range of the prior, tell how steep the features should
# be.

# %%
keys = jax.random.split(jax.random.key(0), 3)
thetas = [{"k": jnp.array(k)} for k in (0.05, 0.5, 5.0)]
features, _ = bilo.choose_random_features(problem, thetas, count=32, key=keys[0])
operator = bilo.OutputLayer(features, thetas[-1], tolerance=1e-5)

# %% [markdown]
# ## Three models
#
# `bilo.solutions` takes a theta whose arrays have an axis of experiments in front, and solves for
# all of them by one vectorised solve; `us(times)` are the values, a row for each patient.
# (`bilo.solution` inside of a loop would do the same, patient by patient.)
#
# Apart: every patient on their own. Together: one rate for all. Hierarchical: a population, of
# unknown median exp(mu) and spread tau.


# %%
def observe(operator, k, y):
    us = bilo.solutions("u", operator, {"k": k})
    numpyro.sample("y", dist.Normal(us(times), sigma), obs=y)


def apart(operator, y=None):
    with numpyro.plate("patients", patients):
        k = numpyro.sample("k", dist.LogNormal(-1.0, 1.5))
    observe(operator, k, y)


def together(operator, y=None):
    k = numpyro.sample("k", dist.LogNormal(-1.0, 1.5))
    observe(operator, jnp.broadcast_to(k, (patients,)), y)


def hierarchical(operator, y=None):
    mu = numpyro.sample("mu", dist.Normal(-1.0, 1.5))
    tau = numpyro.sample("tau", dist.HalfNormal(0.5))
    with numpyro.plate("patients", patients), numpyro.handlers.reparam(config={"log k": centred}):
        log_k = numpyro.sample("log k", dist.Normal(mu, tau))
    observe(operator, numpyro.deterministic("k", jnp.exp(log_k)), y)


centred = LocScaleReparam(0)

# %% [markdown]
# `LocScaleReparam(0)` samples the deviations in units of tau. Without it small values of tau are a
# funnel that no step size fits.

# %%
samples = {}
for model in (apart, together, hierarchical):
    kernel = NUTS(model, init_strategy=init_to_median, target_accept_prob=0.9)
    mcmc = MCMC(kernel, num_warmup=DRAWS // 2, num_samples=DRAWS, progress_bar=False)
    mcmc.run(keys[1], operator, y)
    samples[model.__name__] = mcmc.get_samples(group_by_chain=True)

table = bilo.summary(bilo.to_arviz(mcmc))
table.round(3)

# %% [markdown]
# ## What the population adds

# %%
figure = Figure(figsize=(6.4, 3.6), layout="constrained")
ax = figure.subplots()
numbers = np.arange(patients)
for shift, name, colour in zip(
    (-0.15, 0.15), ("apart", "hierarchical"), plots.COLOURS, strict=False
):
    low, middle, high = np.quantile(samples[name]["k"][0], [0.05, 0.5, 0.95], axis=0)
    bars = np.stack([middle - low, high - middle])
    ax.errorbar(numbers + shift, middle, bars, fmt="o", color=colour, capsize=3, label=name)
low, high = np.quantile(samples["together"]["k"], [0.05, 0.95])
ax.axhspan(low, high, color="0.6", alpha=0.3, linewidth=0, label="together")
ax.plot(numbers, k_true, "x", color=plots.INK, markersize=8, label="truth")
ax.set(xlabel="patient", ylabel="k, per hour, 5 to 95 %")
ax.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
figure

# %%
spread = {name: float(np.std(np.log(samples[name]["k"][0]), axis=0).mean()) for name in samples}
error = {
    name: float(np.abs(np.median(samples[name]["k"][0], axis=0) - k_true).mean())
    for name in samples
}
for name in samples:
    print(f"{name:13} mean sd of log k {spread[name]:.3f}, mean error of k {error[name]:.3f}")

# %% [markdown]
# One rate for all patients is sure of itself and wrong for most of them. The hierarchical
# intervals are a little narrower than those apart, and drawn towards the population, most where a
# patient's own data say least (4). Four samples say much; with two, or more noise, the population
# would matter more. How far is not a choice: tau is inferred.
#
# ## A new patient
#
# The population is what one knows of somebody of whom there are no data yet.

# %%
draws = samples["hierarchical"]
noise = np.random.default_rng(0).normal(size=draws["mu"].shape)
plots.plot_posterior(np.exp(draws["mu"] + draws["tau"] * noise), "k of a new patient").figure

# %% [markdown]
# ## Certificate
#
# `solutions` is one site, for the certificate too.

# %%
print(bilo.certify(hierarchical, draws, operator, y, subset=50))
