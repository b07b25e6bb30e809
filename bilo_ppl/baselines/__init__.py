"""What BiLO is compared with: methods that trade the equation against the data, for the same models."""

from bilo_ppl.baselines.bpinn import bpinn, solutions_at_draws
from bilo_ppl.baselines.bpn import BPN, broyden_solve, fit_bpn, hypergradient
from bilo_ppl.baselines.free_network import FreeNetwork
from bilo_ppl.baselines.pinn import PINN, fit_pinn
from bilo_ppl.baselines.pino import PINO, fit_pino
from bilo_ppl.baselines.starts import mean_field, mode, values_of

__all__ = [
    "BPN",
    "PINN",
    "PINO",
    "FreeNetwork",
    "bpinn",
    "broyden_solve",
    "fit_bpn",
    "fit_pinn",
    "fit_pino",
    "hypergradient",
    "mean_field",
    "mode",
    "solutions_at_draws",
    "values_of",
]
