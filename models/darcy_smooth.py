"""Darcy flow as in `darcy`, with the log-Gaussian permeability A = exp(phi)."""

import pathlib
import sys
from functools import partial

sys.path.append(str(pathlib.Path(__file__).resolve().parent))
import darcy

problem = darcy.Darcy(darcy.smooth)
start, model, truth = darcy.start, darcy.model, darcy.truth
synthetic_data = partial(darcy.synthetic_data, problem=problem)
reference = partial(darcy.reference, problem=problem)
