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
# # An unknown function
#
# Here the unknown is not a number but a coefficient D(x):
#
# $$(D\,u')' = -\pi^2 \sin(\pi x) \quad \text{on } [0, 1], \qquad u(0) = u(1) = 0.$$
#
# The truth is a hat, with a kink in the middle. From 51 noisy values of u no method gets D back as
# it was: where u' = 0, in the middle, D does not matter at all. What is assumed of D decides there.
# This notebook makes the assumption in two ways, as a penalty on roughness (a point estimate) and
# as a prior on functions (a posterior).

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
from bilo_ppl.fields import zero_output

jax.config.update("jax_enable_x64", True)
QUICK = bool(os.environ.get("BILO_QUICK"))  # fewer draws, for tests
DRAWS, WEIGHTS = (50, (1e-3,)) if QUICK else (500, (1e-5, 1e-3, 1e-1))

# %% [markdown]
# ## The equation
#
# `theta["D"]` is a function of a point, like u, and stands in the residual as such.


# %%
class Diffusion(bilo.Problem):
    parameters, components = ("D",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        flux = bilo.divergence(lambda y: theta["D"](y) * bilo.grad(u)(y))(x)
        return flux + jnp.pi**2 * jnp.sin(jnp.pi * x[0])

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


def hat(x):
    return 1.25 - 0.5 * jnp.abs(x[0] - 0.5)


problem, sigma = Diffusion(), 0.01
line = problem.domain.grid(201)

# %% [markdown]
# The data come from finite differences on a grid much finer than any used below, so that the same
# errors are not made twice.

# %%
unknown = bilo.NetworkField(
    problem.domain,
    width=32,
    lift=lambda x, raw: 1 + x[0] * (1 - x[0]) * raw,  # D is known to be 1 at the ends
    key=jax.random.key(0),
    dtype=jnp.float64,
)
first_guess = zero_output(unknown)  # D = 1
numerical = bilo.FiniteDifferences(problem, 401, theta={"D": first_guess})
fine = bilo.FiniteDifferences(problem, 2001, theta={"D": first_guess})
x = problem.domain.grid(51)
noise = sigma * np.random.default_rng(0).normal(size=len(x))
y = np.asarray(jax.vmap(fine.solve({"D": hat}, fine.init_state())[0])(x)) + noise

# %% [markdown]
# ## A point estimate with a penalty
#
# `unknown_function` makes the weights of a small network one latent site. `squared_penalty` adds the
# mean square of D', with a weight. `weight_in_nats` converts the weight that stands beside a mean
# squared misfit, as in textbooks on regularisation.


# %%
def penalised(operator, x, y=None, weight=1e-3):
    D = bilo.unknown_function("D", first_guess)
    u = bilo.solution("u", operator, {"D": D})
    nats = bilo.weight_in_nats(weight, sigma, len(x))
    bilo.squared_penalty("roughness", nats, bilo.grad(D), problem.domain.grid(201))
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


# %% [markdown]
# The solution is again a local operator, fine-tuned at every step of the descent.
# `ImplicitDifferentiation` gives the true gradient in all the weights of D by one linear solve,
# whatever their number.

# %%
keys = jax.random.split(jax.random.key(0), 4)
network, report = bilo.pretrain(
    problem,
    {"D": first_guess},
    key=keys[0],
    sensitivity=bilo.PartialDerivative(),
    width=32,
    dtype=jnp.float64,
    progress=False,
)
tuned = bilo.FineTuned(
    network, bilo.LevenbergMarquardt(1e-7, max_steps=20), bilo.ImplicitDifferentiation()
)
STEPS = 20 if QUICK else 200
by_network = bilo.find_map(
    penalised, keys[1], tuned, x, y, weight=1e-3, steps=STEPS, progress=False
)
print(by_network.message, f"U = {by_network.energy:.2f}")

# %% [markdown]
# The same descent with finite differences is the classical adjoint method. Only the operator is
# another one. With it the weight is varied.

# %%
estimates = {
    weight: bilo.find_map(
        penalised, keys[1], numerical, x, y, weight=weight, steps=STEPS, progress=False
    )
    for weight in WEIGHTS
}
figure = Figure(figsize=(6.4, 3.6), layout="constrained")
ax = figure.subplots()
ax.plot(line, jax.vmap(hat)(line), color=plots.INK, linestyle="--", label="truth")
for colour, (weight, found) in zip(plots.COLOURS[1:], estimates.items(), strict=False):
    D = jax.vmap(found.theta()["D"])(line)
    ax.plot(line, D, color=colour, label=f"finite differences, weight {weight:g}")
ax.plot(
    line,
    jax.vmap(by_network.theta()["D"])(line),
    color=plots.COLOURS[0],
    linestyle=":",
    linewidth=2.5,
    label="local operator, weight 0.001",
)
ax.set(xlabel="x", ylabel="D")
ax.legend(frameon=False, fontsize="small", ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
figure

# %% [markdown]
# Too small a weight follows the noise, too large a one knows only the ends. Nothing in the estimate
# itself says which is right, and none says how sure it is.
#
# ## A posterior over functions
#
# A Gaussian random field for log D, by ten coefficients of its Karhunen-Loève expansion, is an
# ordinary prior. It vanishes at the ends, since D is known to be 1 there. (With free ends the
# expansion has no constant: the mean of log D would be fixed to zero, which here is wrong.)


# %%
def random_field(a):
    return bilo.KarhunenLoeve(a, ends="dirichlet")


def bayesian(operator, x, y=None):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([10]).to_event(1))
    u = bilo.solution("u", operator, {"D": random_field(a)})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


# %% [markdown]
# The equation is linear in u. Then the output layer of a network with random features is all that
# need be fitted, and a solve is one linear least-squares step: nothing is pretrained, nothing
# adapted. Some draws from the prior say how steep the features should be.

# %%
coefficients = np.random.default_rng(1).normal(size=(4, 10))
thetas = [{"D": random_field(jnp.asarray(a))} for a in coefficients]
features, _ = bilo.choose_random_features(problem, thetas, count=40, key=keys[2])
layer = bilo.OutputLayer(features, thetas[0], tolerance=1e-3)

kernel = NUTS(bayesian, init_strategy=init_to_value(values={"a": np.zeros(10)}))
mcmc = MCMC(kernel, num_warmup=DRAWS, num_samples=DRAWS, progress_bar=False)
mcmc.run(keys[3], layer, x, y)
draws = mcmc.get_samples(group_by_chain=True)
bilo.summary(bilo.to_arviz(mcmc)).round(2)

# %%
functions = jax.vmap(lambda a: jax.vmap(random_field(a))(line))(draws["a"][0])
D_true = jax.vmap(hat)(line)
plots.plot_solution_band(line, functions, truth=(line, D_true), name="D").figure

# %% [markdown]
# The band is widest about the middle, where u' = 0, and holds the truth nearly everywhere. Nothing in
# it tells of a kink: the prior does not believe in kinks, and the data cannot tell. That is the
# honest answer to what the penalty has hidden. (One chain with R-hat up to 1.03 shows the band; its
# edges would need more draws.)
#
# The certificate solves again by finite differences.

# %%
print(bilo.certify(bayesian, draws, layer, x, y, reference=numerical, subset=50))
