"""Reference solution operators: differentiable classical solvers."""

from bilo_ppl.numerics.evolution.godunov import Godunov
from bilo_ppl.numerics.evolution.method_of_lines import MethodOfLines
from bilo_ppl.numerics.grid_field import GridField, GridField2D, PiecewiseGridField
from bilo_ppl.numerics.interval.finite_differences import FiniteDifferences

__all__ = [
    "FiniteDifferences",
    "Godunov",
    "GridField",
    "GridField2D",
    "MethodOfLines",
    "PiecewiseGridField",
]
