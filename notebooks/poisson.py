# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---

# %% [markdown]
# # The posterior of a diffusion coefficient
#
# D u'' = -pi^2 sin(pi x) on [0, 1] with u = 0 at both ends has the solution sin(pi x) / D. The same
# NumPyro model is sampled with a numerical solution operator and compared with the exact posterior on
# a grid. Run it from the root of the repository.

# %%
import pathlib
import sys

import jax
from numpyro.infer import MCMC, NUTS, init_to_value

sys.path.insert(0, str(pathlib.Path.cwd()))
jax.config.update("jax_enable_x64", True)

import bilo_ppl as bilo
from models import poisson

data = poisson.synthetic_data(seed=0)
observed = data["x"], data["y"], data["sigma"]

# %%
kernel = NUTS(poisson.model, init_strategy=init_to_value(values=poisson.truth))
mcmc = MCMC(kernel, num_warmup=300, num_samples=500, num_chains=2, chain_method="sequential",
            progress_bar=False)  # fmt: skip
mcmc.run(jax.random.key(0), poisson.reference(), *observed)
print(bilo.summary(bilo.to_arviz(mcmc)).to_string())

# %%
exact = bilo.grid_posterior(poisson.model, poisson.reference_grid, poisson.reference(), *observed)
print(f"exact: {exact.mean('D'):.4f} +- {exact.sd('D'):.4f}")
print(bilo.distances(mcmc.get_samples(group_by_chain=True)["D"], exact, "D"))
