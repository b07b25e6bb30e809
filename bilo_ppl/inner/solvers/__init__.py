"""Inner solvers: an optax optimiser, Levenberg-Marquardt, or chord steps."""

from bilo_ppl.inner.solvers.base import AbstractInnerSolver, InnerSolution, advance, solve
from bilo_ppl.inner.solvers.chord import Chord
from bilo_ppl.inner.solvers.gradient_steps import OptaxSolver
from bilo_ppl.inner.solvers.levenberg_marquardt import LevenbergMarquardt

__all__ = [
    "AbstractInnerSolver",
    "Chord",
    "InnerSolution",
    "LevenbergMarquardt",
    "OptaxSolver",
    "advance",
    "solve",
]
