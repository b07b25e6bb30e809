"""The papers' stateful samplers as NumPyro kernels: the solver state moves along the trajectory."""

from bilo_ppl.mcmc.chain import BiLOState
from bilo_ppl.mcmc.kernels import BiLOHMC, BiLONUTS

__all__ = ["BiLOHMC", "BiLONUTS", "BiLOState"]
