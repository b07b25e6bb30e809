"""Inner solvers: an optax optimiser, or Levenberg-Marquardt."""

from bilo_ppl.inner.solvers.base import AbstractInnerSolver, InnerSolution, advance, solve
from bilo_ppl.inner.solvers.gradient_steps import OptaxSolver
from bilo_ppl.inner.solvers.levenberg_marquardt import LevenbergMarquardt

__all__ = [
    "AbstractInnerSolver",
    "InnerSolution",
    "LevenbergMarquardt",
    "OptaxSolver",
    "advance",
    "solve",
]
