"""Inner solvers: an optax optimiser, or Levenberg-Marquardt."""

from bilo_ppl.solvers.base import AbstractInnerSolver, InnerSolution, advance, solve
from bilo_ppl.solvers.levenberg_marquardt import LevenbergMarquardt
from bilo_ppl.solvers.optax import OptaxSolver

__all__ = [
    "AbstractInnerSolver",
    "InnerSolution",
    "LevenbergMarquardt",
    "OptaxSolver",
    "advance",
    "solve",
]
