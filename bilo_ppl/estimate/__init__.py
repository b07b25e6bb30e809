"""Point estimates: the maximum of the posterior density, and a Gaussian about it."""

from bilo_ppl.estimate.files import save_estimate
from bilo_ppl.estimate.find import find_map
from bilo_ppl.estimate.laplace import GaussianDraws, Laplace, laplace
from bilo_ppl.estimate.result import Estimate, History

__all__ = [
    "Estimate",
    "GaussianDraws",
    "History",
    "Laplace",
    "find_map",
    "laplace",
    "save_estimate",
]
