"""Bayesian inference for PDE inverse problems: bilevel local operator learning in NumPyro.

The vocabulary: a `Problem` states the PDE, `pretrain` makes a `LocalOperator`, `FineTuned` turns it
into a solution operator, `solution` uses it in a NumPyro model, `adapt` fits it to the posterior, and
`certify` says how far the posterior can be from the exact one. Plots are in `bilo_ppl.plots`.
"""

from bilo_ppl.adapt import Adapted, AdaptReport, adapt
from bilo_ppl.calculus import divergence, grad, laplacian, partial
from bilo_ppl.certificate import Certificate
from bilo_ppl.certify import certify
from bilo_ppl.checkpoint import load_operator, save_operator
from bilo_ppl.diagnostics import inner_report, inner_statistics, solution_draws, summary, to_arviz
from bilo_ppl.distances import distances
from bilo_ppl.domain import Box, graded, hammersley, interval, masked, space_time
from bilo_ppl.effects import replace_operator, solution, warm_start
from bilo_ppl.estimate import Estimate, Laplace, find_map, laplace, save_estimate
from bilo_ppl.fields import (
    KarhunenLoeve,
    NetworkField,
    field_weights,
    fit_field,
    mean_squared_gradient,
    total_variation,
)
from bilo_ppl.lower_level import LowerLevel
from bilo_ppl.mcmc import BiLOHMC, BiLONUTS
from bilo_ppl.numerics import FiniteDifferences, Godunov, MethodOfLines
from bilo_ppl.operator import LocalOperator
from bilo_ppl.potential import StatefulPotential
from bilo_ppl.pretrain import pretrain
from bilo_ppl.problem import Problem
from bilo_ppl.reference import grid_posterior
from bilo_ppl.sensitivity import ImplicitDifferentiation, PartialDerivative, ResidualGradient
from bilo_ppl.solution_operators import AbstractSolutionOperator, FineTuned, SolveInfo
from bilo_ppl.solvers import LevenbergMarquardt, OptaxSolver
from bilo_ppl.unknowns import penalty, squared_penalty, unknown_function

__version__ = "0.1.0"

__all__ = [
    "AbstractSolutionOperator",
    "AdaptReport",
    "Adapted",
    "BiLOHMC",
    "BiLONUTS",
    "Box",
    "Certificate",
    "Estimate",
    "FineTuned",
    "FiniteDifferences",
    "Godunov",
    "ImplicitDifferentiation",
    "KarhunenLoeve",
    "Laplace",
    "LevenbergMarquardt",
    "LocalOperator",
    "LowerLevel",
    "MethodOfLines",
    "NetworkField",
    "OptaxSolver",
    "PartialDerivative",
    "Problem",
    "ResidualGradient",
    "SolveInfo",
    "StatefulPotential",
    "adapt",
    "certify",
    "distances",
    "divergence",
    "field_weights",
    "find_map",
    "fit_field",
    "grad",
    "graded",
    "grid_posterior",
    "hammersley",
    "inner_report",
    "inner_statistics",
    "interval",
    "laplace",
    "laplacian",
    "load_operator",
    "masked",
    "mean_squared_gradient",
    "partial",
    "penalty",
    "pretrain",
    "replace_operator",
    "save_estimate",
    "save_operator",
    "solution",
    "solution_draws",
    "space_time",
    "squared_penalty",
    "summary",
    "to_arviz",
    "total_variation",
    "unknown_function",
    "warm_start",
]
