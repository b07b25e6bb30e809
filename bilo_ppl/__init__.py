"""Bayesian inference for PDE inverse problems: bilevel local operator learning in NumPyro.

The vocabulary: a `Problem` states the PDE, `pretrain` makes a `LocalOperator`, `FineTuned` turns it
into a solution operator, `solution` uses it in a NumPyro model, `adapt` fits it to the posterior, and
`certify` says how far the posterior can be from the exact one. Figures are in `bilo_ppl.plots`.
"""

import importlib
from typing import Any

from bilo_ppl.adaptation.adapting import adapt
from bilo_ppl.adaptation.report import Adapted, AdaptReport
from bilo_ppl.diagnostics import inner_report, inner_statistics, solution_draws, summary, to_arviz
from bilo_ppl.estimate import Estimate, Laplace, find_map, laplace, save_estimate
from bilo_ppl.fields import (
    KarhunenLoeve,
    NetworkField,
    PiecewiseLinear,
    field_weights,
    fit_field,
    mean_squared_gradient,
    total_variation,
)
from bilo_ppl.inner.lower_level import AbstractSensitivity, LowerLevel
from bilo_ppl.inner.pretraining import pretrain
from bilo_ppl.inner.sensitivity import ImplicitDifferentiation, PartialDerivative, ResidualGradient
from bilo_ppl.inner.sharding import device_mesh
from bilo_ppl.inner.solvers import AbstractInnerSolver, LevenbergMarquardt, OptaxSolver
from bilo_ppl.inner.stop_reason import StopReason
from bilo_ppl.mcmc import (
    BiLOHMC,
    BiLONUTS,
    Draws,
    TwoStage,
    init_near,
    sample_in_blocks,
    stage_acceptance,
)
from bilo_ppl.network.local_operator import LocalOperator
from bilo_ppl.network.operator_file import load_operator, save_operator
from bilo_ppl.network.trainable import Frozen
from bilo_ppl.numerics import (
    FiniteDifferences,
    FiniteVolumes,
    Godunov,
    MethodOfLines,
    ReactionDiffusion,
    logistic_flow,
    runge_kutta,
)
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.operators.black_box import BlackBox
from bilo_ppl.operators.closed_form import ClosedForm
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.operators.output_layer import OutputLayer
from bilo_ppl.operators.random_features import choose_random_features
from bilo_ppl.pde.calculus import divergence, laplacian
from bilo_ppl.pde.calculus import grad as grad
from bilo_ppl.pde.calculus import partial as partial
from bilo_ppl.pde.domain import Box, interval, space_time, time_interval
from bilo_ppl.pde.edges import bubble, edge_points, without_corners
from bilo_ppl.pde.image import ImageDomain, image_domain
from bilo_ppl.pde.points import graded, hammersley, masked, refined
from bilo_ppl.pde.problem import Problem
from bilo_ppl.ppl.data_sites import observed
from bilo_ppl.ppl.effect import solution, solutions
from bilo_ppl.ppl.handlers import replace_operator, warm_start
from bilo_ppl.ppl.model_checks import check_model
from bilo_ppl.ppl.potential import StatefulPotential
from bilo_ppl.ppl.unknowns import penalty, squared_penalty, unknown_function, weight_in_nats
from bilo_ppl.validation.calibration import Calibration, calibrate
from bilo_ppl.validation.certificate import Certificate
from bilo_ppl.validation.certifying import certify
from bilo_ppl.validation.distance import distances
from bilo_ppl.validation.evidence import Evidence, log_evidence
from bilo_ppl.validation.posterior_grid import grid_posterior

__version__ = "0.2.0"

# Without `grad` and `partial`: a star import would replace jax.grad and functools.partial by them.
__all__ = [
    "AbstractInnerSolver",
    "AbstractSensitivity",
    "AbstractSolutionOperator",
    "AdaptReport",
    "Adapted",
    "BiLOHMC",
    "BiLONUTS",
    "BlackBox",
    "Box",
    "Calibration",
    "Certificate",
    "ClosedForm",
    "Draws",
    "Estimate",
    "Evidence",
    "FineTuned",
    "FiniteDifferences",
    "FiniteVolumes",
    "Frozen",
    "Godunov",
    "ImageDomain",
    "ImplicitDifferentiation",
    "KarhunenLoeve",
    "Laplace",
    "LevenbergMarquardt",
    "LocalOperator",
    "LowerLevel",
    "MethodOfLines",
    "NetworkField",
    "OptaxSolver",
    "OutputLayer",
    "PartialDerivative",
    "PiecewiseLinear",
    "Problem",
    "ReactionDiffusion",
    "ResidualGradient",
    "SolveInfo",
    "StatefulPotential",
    "StopReason",
    "TwoStage",
    "adapt",
    "bubble",
    "calibrate",
    "certify",
    "check_model",
    "choose_random_features",
    "device_mesh",
    "distances",
    "divergence",
    "edge_points",
    "field_weights",
    "find_map",
    "fit_field",
    "graded",
    "grid_posterior",
    "hammersley",
    "image_domain",
    "init_near",
    "inner_report",
    "inner_statistics",
    "interval",
    "laplace",
    "laplacian",
    "load_operator",
    "log_evidence",
    "logistic_flow",
    "masked",
    "mean_squared_gradient",
    "observed",
    "penalty",
    "pretrain",
    "refined",
    "replace_operator",
    "runge_kutta",
    "sample_in_blocks",
    "save_estimate",
    "save_operator",
    "solution",
    "solution_draws",
    "solutions",
    "space_time",
    "squared_penalty",
    "stage_acceptance",
    "summary",
    "time_interval",
    "to_arviz",
    "total_variation",
    "unknown_function",
    "warm_start",
    "weight_in_nats",
    "without_corners",
]


def __getattr__(name: str) -> Any:
    """`bilo_ppl.plots`, when it is first asked for: it imports Matplotlib."""
    if name == "plots":
        return importlib.import_module("bilo_ppl.plots")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
