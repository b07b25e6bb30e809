"""Reference solution operators: differentiable classical solvers."""

from bilo_ppl.numerics.evolution.godunov import Godunov
from bilo_ppl.numerics.evolution.method_of_lines import MethodOfLines
from bilo_ppl.numerics.grid_field import GridField, GridField2D, PiecewiseGridField
from bilo_ppl.numerics.image.image_series import ImageSeries
from bilo_ppl.numerics.image.reaction import logistic_flow, runge_kutta
from bilo_ppl.numerics.image.reaction_diffusion import ReactionDiffusion
from bilo_ppl.numerics.interval.finite_differences import FiniteDifferences
from bilo_ppl.numerics.plane.finite_volumes import FiniteVolumes

__all__ = [
    "FiniteDifferences",
    "FiniteVolumes",
    "Godunov",
    "GridField",
    "GridField2D",
    "ImageSeries",
    "MethodOfLines",
    "PiecewiseGridField",
    "ReactionDiffusion",
    "logistic_flow",
    "runge_kutta",
]
