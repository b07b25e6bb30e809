"""The local operator u(x, theta; W): network, embedding of theta, low-rank increments, file."""

from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.network.mlp import MLP, Linear
from bilo_ppl.network.modulation import Modulation
from bilo_ppl.network.operator_file import load_operator, save_operator
from bilo_ppl.network.trainable import Frozen

__all__ = [
    "MLP",
    "Frozen",
    "Linear",
    "LocalOperator",
    "Modulation",
    "load_operator",
    "save_operator",
]
