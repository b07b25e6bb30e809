"""The factor of a normal matrix in which theta has no part: computed once, for every solve.

So it is where a PDE is linear and what is unknown is a source, an initial or a boundary value.
"""

from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Scalar, Theta
from bilo_ppl.inner.output_level import OutputLevel
from bilo_ppl.inner.ridge_problem import RidgeProblem
from bilo_ppl.network.features import output_weights

__all__ = ["fixed_factor"]


def fixed_factor(level: OutputLevel, theta: Theta, ridge: Scalar) -> Float[Array, "p p"] | None:
    """Lower Cholesky factor of linear rows' normal matrix with a ridge; None where it is theta's."""
    if not level.constant:
        return None
    origin = output_weights(level.operator).ravel()
    return _factor_at(RidgeProblem(level, origin, ridge, linear=True, max_steps=1), theta)


@jit_once
def _factor_at(problem: RidgeProblem, theta: Theta) -> Float[Array, "p p"]:
    return problem.factor_at(theta)
