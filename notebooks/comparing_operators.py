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
# # Comparing operators
#
# A model names its operator once, in `bilo.solution`. So the same model, prior and data can be
# given any solver, and what differs in the result is the solver's doing. Here: finite differences,
# a local operator (BiLO), a neural operator that was trained on solutions (DeepONet), and a
# physics-informed network (PINN).
#
# The problem is a standard of the literature on Bayesian PINNs,
#
# $$0.01\,u'' + k \tanh u = f \quad \text{on } [-0.7, 0.7],$$
#
# with f and boundary values such that u = sin(6x)³ solves it for k = 0.7.

# %%
# %matplotlib inline
import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib.figure import Figure

import bilo_ppl as bilo
from bilo_ppl import plots
from bilo_ppl.baselines import FreeNetwork, fit_pinn
from bilo_ppl.surrogates import solve_all, train_deeponet

jax.config.update("jax_enable_x64", True)
QUICK = bool(os.environ.get("BILO_QUICK"))  # less training, for tests
STEPS, WEIGHTS, NODES = (100, (10,), 5) if QUICK else (4000, (1, 10, 100), 25)


def exact(x):
    return jnp.sin(6 * x[0]) ** 3


def forcing(x):
    s, c = jnp.sin(6 * x[0]), jnp.cos(6 * x[0])
    return 0.01 * (216 * s * c**2 - 108 * s**3) + 0.7 * jnp.tanh(s**3)


class NonlinearPoisson(bilo.Problem):
    parameters, components = ("k",), 1
    domain = bilo.interval(-0.7, 0.7)
    points = domain.grid(51)

    def residual(self, u, x, theta):
        return 0.01 * bilo.laplacian(u)(x) + theta["k"] * jnp.tanh(u(x)) - forcing(x)

    def lift(self, x, raw, theta):
        ends = np.sin(4.2) ** 3 * x[0] / 0.7
        return ends + (x[0] + 0.7) * (x[0] - 0.7) * raw


problem, truth, sigma = NonlinearPoisson(), {"k": 0.7}, 0.1
x = problem.domain.interior_grid(8)
y = np.asarray(jax.vmap(exact)(x)) + sigma * np.random.default_rng(0).normal(size=len(x))


def model(operator, x, y=None):
    k = numpyro.sample("k", dist.LogNormal(0.0, 1.0))
    u = bilo.solution("u", operator, {"k": k})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


# %% [markdown]
# ## The operators
#
# **Finite differences**, on 401 nodes, the standard here. In one dimension nothing beats them; they
# are what the others are measured by.

# %%
numerical = bilo.FiniteDifferences(problem, nodes=401, theta=truth, guess=exact)
line = problem.domain.grid(101)
off = jax.vmap(numerical.solve(truth, ())[0])(line) - jax.vmap(exact)(line)
print(f"largest error at k = 0.7: {np.abs(off).max():.0e}")

# %% [markdown]
# **BiLO**: pretrained at k = 0.6 from the equation alone, without any solution. At other k it is
# fine-tuned until the mean squared residual is below 1e-7.

# %%
keys = jax.random.split(jax.random.key(0), 5)
network, report = bilo.pretrain(
    problem, {"k": 0.6}, key=keys[0], width=32, dtype=np.float64, progress=False
)
local = bilo.FineTuned(
    network.with_lora(4, key=keys[1]),
    bilo.LevenbergMarquardt(1e-7, max_steps=40),
    bilo.ImplicitDifferentiation(),
)
print(report)

# %% [markdown]
# **DeepONet**: it learns from numerical solutions, here at 40 values of k in [0.6, 0.8]. It knows
# nothing of the equation.

# %%
thetas = {"k": jnp.asarray(np.random.default_rng(1).uniform(0.6, 0.8, 40))}
solutions = solve_all(numerical, thetas, problem.domain.grid(101))
trained = train_deeponet(problem, solutions, key=keys[2], steps=STEPS, width=32, progress=False)
print(f"median relative error on solutions kept for the test: {trained.median_error:.1e}")

# %% [markdown]
# ## How right are they, and where?

# %%
operators = {
    "local operator, as pretrained": bilo.FineTuned(
        network, bilo.LevenbergMarquardt(1e3, max_steps=1), bilo.PartialDerivative()
    ),
    "local operator, fine-tuned": local,
    "DeepONet": trained.surrogate,
}
ks = np.linspace(0.52, 1.0, NODES)


def solve_at(operator):
    @jax.jit
    def at(k):
        u, _, info = operator.solve({"k": k}, operator.init_state())
        return jax.vmap(u)(line), info.converged

    values, converged = zip(*map(at, ks), strict=True)
    return np.stack(values), np.array(converged)


reference, _ = solve_at(numerical)
figure = Figure(figsize=(6.4, 3.6), layout="constrained")
ax = figure.subplots()
for (name, operator), colour in zip(operators.items(), plots.COLOURS[1:], strict=False):
    values, converged = solve_at(operator)
    error = np.abs(values - reference).max(axis=1)
    ax.semilogy(ks, error, color=colour, marker=".", label=name)
    ax.semilogy(ks[~converged], error[~converged], "o", color=colour, markerfacecolor="white")
ax.axvspan(0.6, 0.8, color="0.9", linewidth=0, label="solutions that the DeepONet has seen")
ax.set(xlabel="k", ylabel="largest error of u")
ax.legend(frameon=False, fontsize="small", ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
figure

# %% [markdown]
# The pretrained network is right to first order about k = 0.6, so that its error grows at first as
# the square of the distance. Fine-tuned it is right to a tolerance that one chooses, wherever the
# solver gets there; where it does not (a hollow mark) it says so. The DeepONet is right to one or
# two per cent where it was trained; outside of that it is wrong, and does not say so.
#
# ## Posteriors by the three
#
# With one parameter the posterior is a curve, so that no sampler blurs the comparison.

# %%
grid = {"k": np.linspace(0.5, 1.0, 5 * NODES + 1)}
figure = Figure(figsize=(6.4, 3.6), layout="constrained")
ax = figure.subplots()
lines = {"finite differences": (numerical, "-"), **{n: (o, "--") for n, o in operators.items()}}
if QUICK:
    lines.pop("DeepONet")  # hardly trained, so that its density need not end within the grid
for (name, (operator, style)), colour in zip(lines.items(), plots.COLOURS, strict=False):
    posterior = bilo.grid_posterior(model, grid, operator, x, y)
    label = f"{name}: {posterior.mean('k'):.4f} ± {posterior.sd('k'):.4f}"
    ax.plot(*posterior.marginal("k"), style, color=colour, label=label)
ax.axvline(0.7, color=plots.INK, linewidth=1, linestyle=":")
ax.set(xlabel="k", ylabel="posterior density")
ax.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1))
figure

# %% [markdown]
# ## A PINN is an operator whose weights nothing has determined yet
#
# It trains u and k together on residual plus weight times misfit. How much the data weigh has to be
# guessed, and u is a solution of the equation at no weight. `FreeNetwork` stands where the operator
# stood; the model is unchanged.

# %%
free = FreeNetwork(problem, {"k": 0.6}, key=keys[3], width=32)
print("weight      k   residual   u off")
for weight in WEIGHTS:
    found = fit_pinn(model, keys[4], free, x, y, data_weight=weight, steps=STEPS, progress=False)
    k = float(found.values["k"])
    solved, _, _ = numerical.solve({"k": k}, ())
    off = np.abs(found.solution(line, "u") - jax.vmap(solved)(line)).max()
    print(f"{weight:6} {k:6.3f}   {found.pde_loss:8.1e}   {off:5.2f}")

# %% [markdown]
# "u off" is how far the network is from the solution at *its own* k. The more the data weigh, the
# more it fits their noise and the less it is a solution; k goes with it. BiLO has no such weight,
# since the data cannot reach the weights of the network.
#
# ## What it costs
#
# For this equation a numerical gradient takes a fraction of a millisecond, and the network is no
# faster. It pays where a solve is dear or many data share one operator. `bilo-ppl compare
# nonlinear_poisson` runs all methods, samplers included, with times.
