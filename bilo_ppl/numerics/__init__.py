"""Reference solution operators: differentiable classical solvers."""

from bilo_ppl.numerics.finite_differences import FiniteDifferences, GridField

__all__ = ["FiniteDifferences", "GridField"]
