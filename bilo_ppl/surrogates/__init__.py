"""Neural operators trained on numerical solutions, to be used behind ``solution`` like any operator."""

from bilo_ppl.surrogates.deeponet import DeepONet
from bilo_ppl.surrogates.fno import FNO
from bilo_ppl.surrogates.surrogate import Surrogate
from bilo_ppl.surrogates.surrogate_file import load_surrogate, save_surrogate
from bilo_ppl.surrogates.training import Trained, relative_errors, train_deeponet, train_fno
from bilo_ppl.surrogates.training_set import TrainingSet, prior_thetas, solve_all

__all__ = [
    "FNO",
    "DeepONet",
    "Surrogate",
    "Trained",
    "TrainingSet",
    "load_surrogate",
    "prior_thetas",
    "relative_errors",
    "save_surrogate",
    "solve_all",
    "train_deeponet",
    "train_fno",
]
