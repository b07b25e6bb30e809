"""Reference solution operators: differentiable classical solvers."""

from bilo_ppl.numerics.finite_differences import FiniteDifferences
from bilo_ppl.numerics.godunov import Godunov
from bilo_ppl.numerics.grid_field import GridField, GridField2D, PiecewiseGridField
from bilo_ppl.numerics.method_of_lines import MethodOfLines

__all__ = [
    "FiniteDifferences",
    "Godunov",
    "GridField",
    "GridField2D",
    "MethodOfLines",
    "PiecewiseGridField",
]
