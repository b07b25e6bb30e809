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
# # The papers' figures: Part I
#
# Part I of the papers on bilevel local operator learning (arXiv:2404.17789) finds point estimates.
# Its figures show three things: what a local operator is, that its derivative is right, and that
# descending in theta and in the weights *at the same time* works. They are redrawn here on the
# scalar Poisson equation,
#
# $$D\,u'' = -\pi^2 \sin(\pi x) \ \text{on } [0, 1], \quad u(0) = u(1) = 0, \quad u = \sin(\pi x) / D,$$
#
# where everything can be written down.

# %%
# %matplotlib inline
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from matplotlib.figure import Figure

import bilo_ppl as bilo
from bilo_ppl import plots

jax.config.update("jax_enable_x64", True)
QUICK = bool(os.environ.get("BILO_QUICK"))  # fewer steps, for tests
STEPS = 100 if QUICK else 1500


class Poisson(bilo.Problem):
    parameters, components = ("D",), 1
    domain = bilo.interval(0.0, 1.0)
    points = domain.grid(41)

    def residual(self, u, x, theta):
        return theta["D"] * bilo.laplacian(u)(x) + jnp.pi**2 * jnp.sin(jnp.pi * x[0])

    def lift(self, x, raw, theta):
        return x[0] * (1 - x[0]) * raw


def model(operator, x, y=None, sigma=0.01):
    D = numpyro.sample("D", dist.Gamma(2.0, 1.0))
    u = bilo.solution("u", operator, {"D": D})
    numpyro.sample("y", dist.Normal(jax.vmap(u)(x), sigma), obs=y)


problem, start = Poisson(), {"D": 2.0}
line = problem.domain.grid(101)
sine = np.sin(np.pi * line[:, 0])

# %% [markdown]
# ## A local operator
#
# It is a network u(x, D; W), pretrained at D = 2 so that the residual vanishes *and* its derivative
# in D. The second condition is what makes it an operator: with the weights as they are, u follows D
# to first order.

# %%
key = jax.random.key(0)
with_gradient, report = bilo.pretrain(
    problem, start, key=key, width=32, dtype=np.float64, progress=False
)
without, _ = bilo.pretrain(
    problem,
    start,
    key=key,
    width=32,
    dtype=np.float64,
    sensitivity=bilo.PartialDerivative(),
    progress=False,
)
print(report)

figure = Figure(figsize=(9, 3.4), layout="constrained")
axes = figure.subplots(1, 2, sharey=True)
titles = ("residual and its derivative in D", "residual alone")
for ax, network, title in zip(axes, (with_gradient, without), titles, strict=True):
    for D, colour in zip((1.8, 2.0, 2.2), plots.COLOURS, strict=False):
        ax.plot(line, jax.vmap(network.field({"D": D}))(line), color=colour, label=f"D = {D}")
        ax.plot(line, sine / D, ":", color=plots.INK)
    ax.set(xlabel="x", title=title)
axes[0].set_ylabel("u, pretrained at D = 2")
axes[0].legend(frameon=False)
figure

# %% [markdown]
# Dotted are the solutions. Left, u moves as they do, nearly, without any fine-tuning. Right, the
# network was given D as an input and never told what to do with it; u at D = 2 is as good, and its
# derivative means nothing.
#
# ## The derivative, against finite differences
#
# What descents and samplers need is the derivative of the misfit through *fine-tuned* solutions,
# weights included. At D = 1.6 the exact one is known. Fine-tuning goes to a given tolerance; the
# derivative is taken in the three ways of the package. The differences are central, of two whole
# fine-tunings, with a step of 1e-2.

# %%
x = problem.domain.interior_grid(10)
y = np.sin(np.pi * x[:, 0])


def misfit(network, sensitivity, tolerance):
    solver = bilo.LevenbergMarquardt(tolerance, max_steps=100)
    operator = bilo.FineTuned(network, solver, sensitivity)

    def value(D):
        u, _, _ = operator.solve({"D": D}, operator.init_state())
        return jnp.sum((jax.vmap(u)(x) - y) ** 2)

    return jax.jit(value), jax.jit(jax.grad(value))


def exact_slope(D):
    return float(np.sum(-2 * (y / D - y) * y / D**2))


ways = {
    "residual gradient (the papers)": (with_gradient, bilo.ResidualGradient()),
    "implicit differentiation": (without, bilo.ImplicitDifferentiation()),
    "partial derivative, not adapted": (without, bilo.PartialDerivative()),
}
tolerances = (1e-2, 1e-6) if QUICK else (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
D, step = 1.6, 1e-2
figure = Figure(figsize=(6.4, 3.6), layout="constrained")
ax = figure.subplots()
for (name, (network, sensitivity)), colour in zip(ways.items(), plots.COLOURS, strict=False):
    slopes = [float(misfit(network, sensitivity, t)[1](D)) for t in tolerances]
    error = np.abs(np.array(slopes) / exact_slope(D) - 1)
    ax.loglog(tolerances, error, "o-", color=colour, label=name)
values = [misfit(without, bilo.PartialDerivative(), t)[0] for t in tolerances]
differences = [float(v(D + step) - v(D - step)) / (2 * step) for v in values]
error = np.abs(np.array(differences) / exact_slope(D) - 1)
ax.loglog(tolerances, error, "x--", color=plots.INK, label="differences of fine-tuned solutions")
ax.set(xlabel="tolerance on the lower-level loss", ylabel="relative error of the slope")
ax.invert_xaxis()
ax.legend(frameon=False, fontsize="small", ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
figure

# %% [markdown]
# The first two come to 1e-4. (A solver that overshoots its tolerance makes steps of the curves.) The
# differences do no better than 0.4 per cent, since what is left of the residual is divided by the
# step. The third is wrong, however well the equation is solved: it leaves out how the weights follow
# D. It is right after `adapt`, when the weights need not follow.
#
# ## Descending in both at once
#
# Algorithm 1 of the paper takes one Adam step of the weights and one of D, in turn, each with its
# own learning rate. The nested method solves the equation to its tolerance at every step of D. The
# truth is D = 1.

# %%
adam = bilo.OptaxSolver(optax.adam(1e-3), tolerance=1e-4, max_steps=1)
simultaneous = bilo.find_map(
    model,
    key,
    bilo.FineTuned(with_gradient, adam, bilo.ResidualGradient()),
    x,
    y,
    method="simultaneous",
    optimizer=optax.adam(2e-3),
    steps=STEPS,
    gradient_tolerance=0.0,
    progress=False,
)
nested = bilo.find_map(
    model,
    key,
    bilo.FineTuned(without, bilo.LevenbergMarquardt(1e-8, 50), bilo.ImplicitDifferentiation()),
    x,
    y,
    progress=False,
)
figure = Figure(figsize=(6.4, 5), layout="constrained")
axes = figure.subplots(2, 1, sharex=True)
for found, name, colour in zip(
    (simultaneous, nested), ("simultaneous, Adam", "nested"), plots.COLOURS, strict=False
):
    steps = np.arange(1, found.history.steps + 1)
    error = np.abs(found.history.values["D"] - 1)
    axes[0].loglog(steps, error, color=colour, label=name, marker="o" if len(steps) < 50 else "")
    axes[1].loglog(
        steps, found.history.inner_loss, color=colour, marker="o" if len(steps) < 50 else ""
    )
axes[0].set_ylabel("|D - 1|")
axes[0].legend(frameon=False)
axes[1].set(xlabel="step of D", ylabel="lower-level loss")
for name, found in (("simultaneous", simultaneous), ("nested", nested)):
    D, steps = float(found.values["D"]), found.history.steps
    print(f"{name}: |D - 1| = {abs(D - 1):.0e} after {steps} steps")
figure

# %% [markdown]
# After some tens of steps, in which Adam finds its scales, the simultaneous descent keeps the
# lower-level loss below 1e-2: D moves slowly enough for the weights to follow. The nested one takes a
# handful of steps, each with a few of Levenberg and Marquardt inside.
#
# ## Learning rates
#
# How fast is slowly enough? A stored benchmark (`benchmarks/part1_studies.py`: Fisher-KPP, two
# parameters, 1500 steps) varies the learning rate of theta and the weight of the residual gradient.

# %%
here = pathlib.Path.cwd()
stored = next(p for p in (here, *here.parents) if (p / "benchmarks" / "results").is_dir())
studies = json.loads((stored / "benchmarks" / "results" / "part1_studies.json").read_text())
figure = Figure(figsize=(6.4, 3.4), layout="constrained")
ax = figure.subplots()
rows = studies["robustness"]
for weight, colour in zip(sorted({r["weight"] for r in rows}), plots.COLOURS, strict=False):
    chosen = [r for r in rows if r["weight"] == weight]
    rates, errors = ([r[name] for r in chosen] for name in ("learning_rate", "error"))
    ax.loglog(rates, errors, "o-", color=colour, label=f"weight {weight:g}")
ax.set(xlabel="learning rate of log theta", ylabel="larger error of D and rho")
ax.legend(frameon=False)
figure

# %% [markdown]
# With the papers' weight 0.1 and rates from 0.003 to 0.01 both parameters are right to one per cent.
# Slower, 1500 steps do not suffice; faster, the weights no longer follow. With too small a weight
# the derivative is not enforced, with too large a one the residual is neglected.
#
# Not redrawn here, for their cost: Fisher-KPP, heat, Burgers and Darcy. `bilo-ppl map fisher_kpp`
# and the like run them, and `benchmarks/README.md` has their tables. *Comparing operators* has the
# PINN's trade-off, *An unknown function* what its name says.
