"""Neural operators trained on numerical solutions, to be used behind ``solution`` like any operator."""

from bilo_ppl.surrogates.deeponet import DeepONet
from bilo_ppl.surrogates.dino import DINO
from bilo_ppl.surrogates.fno import FNO
from bilo_ppl.surrogates.pino import equation_error, on_grid, train_pino
from bilo_ppl.surrogates.reduced_training import derivative_errors, train_dino
from bilo_ppl.surrogates.sensitivities import solve_with_derivatives
from bilo_ppl.surrogates.surrogate import Surrogate
from bilo_ppl.surrogates.surrogate_file import load_surrogate, save_surrogate
from bilo_ppl.surrogates.training import Trained, relative_errors, train_deeponet, train_fno
from bilo_ppl.surrogates.training_set import Derivatives, TrainingSet, prior_thetas, solve_all

__all__ = [
    "DINO",
    "FNO",
    "DeepONet",
    "Derivatives",
    "Surrogate",
    "Trained",
    "TrainingSet",
    "derivative_errors",
    "equation_error",
    "load_surrogate",
    "on_grid",
    "prior_thetas",
    "relative_errors",
    "save_surrogate",
    "solve_all",
    "solve_with_derivatives",
    "train_deeponet",
    "train_dino",
    "train_fno",
    "train_pino",
]
