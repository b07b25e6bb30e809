"""The papers' stateful samplers as NumPyro kernels, chains in blocks, and the draws that come out."""

from bilo_ppl.mcmc.acceptance import StageAcceptance, predicted_acceptance, stage_acceptance
from bilo_ppl.mcmc.blocks import BlockSampler
from bilo_ppl.mcmc.chain import BiLOState
from bilo_ppl.mcmc.draws import Draws
from bilo_ppl.mcmc.gaussian_proposals import PCN, RandomWalk
from bilo_ppl.mcmc.initial_position import init_near
from bilo_ppl.mcmc.kernels import BiLOHMC, BiLONUTS
from bilo_ppl.mcmc.kinetic import kinetic_energy
from bilo_ppl.mcmc.sampling import sample_in_blocks
from bilo_ppl.mcmc.two_stage import TwoStage

__all__ = [
    "PCN",
    "BiLOHMC",
    "BiLONUTS",
    "BiLOState",
    "BlockSampler",
    "Draws",
    "RandomWalk",
    "StageAcceptance",
    "TwoStage",
    "init_near",
    "kinetic_energy",
    "predicted_acceptance",
    "sample_in_blocks",
    "stage_acceptance",
]
