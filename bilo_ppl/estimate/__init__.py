"""Point estimates: the maximum of the posterior density, and a Gaussian about it."""

from bilo_ppl.estimate.accuracy import EstimateAccuracy, check_estimate
from bilo_ppl.estimate.files import save_estimate
from bilo_ppl.estimate.find import find_map
from bilo_ppl.estimate.laplace_approximation import Laplace, laplace
from bilo_ppl.estimate.line_search import backtracking_lbfgs, gauss_newton
from bilo_ppl.estimate.result import Estimate, History

__all__ = [
    "Estimate",
    "EstimateAccuracy",
    "History",
    "Laplace",
    "backtracking_lbfgs",
    "check_estimate",
    "find_map",
    "gauss_newton",
    "laplace",
    "save_estimate",
]
