"""A reduced basis: an output layer between the solutions at some thetas, where a problem is linear in u.

The weights c(theta) of a family of solutions lie near a space of few dimensions, c = c_0 + V a, with c_0
the mean of some of them. The directions V are the principal ones of these, in the norm of the rows at
one theta (proper orthogonal decomposition; Quarteroni, Manzoni, Negri, *Reduced Basis Methods for
Partial Differential Equations*, 2016, chapter 6). The rows are all those of the output layer, so that
the loss says how right a solution of the reduced problem is.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Theta
from bilo_ppl.inner.output_level import OutputLevel
from bilo_ppl.inner.output_rows import AbstractOutputRows, OutputWeights

__all__ = ["ReducedLevel", "reduced_level"]

WORTH_IT = 0.6
"""Part of the weights above which so many directions save too little."""


class ReducedLevel(AbstractOutputRows):
    """Rows of the coordinates a, of shape ``(r,)``."""

    origin: OutputWeights
    directions: Float[Array, "r components features"]
    at_origin: Float[Array, "kept components n"]
    """The combinations of derivatives that are kept, of the raw output at the origin."""
    along: Float[Array, "r kept components n"]
    """Their change along each direction."""

    @classmethod
    def along_directions(
        cls,
        level: OutputLevel,
        origin: OutputWeights,
        directions: Float[Array, "r components features"],
    ) -> "ReducedLevel":
        """About an origin, with what the rows ask of it and of the directions tabulated."""
        return cls(
            *(level.operator, level.points, level.axes, level.basis),
            *(origin, directions, level._kept(origin.ravel())),
            jax.lax.map(level._kept, directions.reshape(len(directions), -1)),
        )

    @classmethod
    def empty(cls, level: OutputLevel, count: int) -> "ReducedLevel":
        """Of a structure, for what is read from a file."""
        nothing = jnp.zeros(level.shape, level.operator.dtype)
        return cls.along_directions(level, nothing, jnp.zeros((count, *level.shape), nothing.dtype))

    def weights(self, flat: Float[Array, " r"]) -> OutputWeights:
        """See `AbstractOutputRows.weights`."""
        return self.origin + jnp.tensordot(flat, self.directions, 1)

    def _kept(self, flat: Float[Array, " r"]) -> Float[Array, "kept components n"]:
        return self.at_origin + jnp.tensordot(flat, self.along, 1)

    def _pulled_back(
        self, asked: Float[Array, "kept components rows n"]
    ) -> Float[Array, "r rows n"]:
        return jnp.einsum("kcqn,rkcn->rqn", asked, self.along)


def reduced_level(
    level: OutputLevel,
    theta: Theta,
    solutions: Float[Any, "count components features"],
    loss: float,
) -> ReducedLevel | None:
    """The level between ``solutions``, weights at thetas near ``theta``, about their mean.

    What is left out raises their mean loss, by the rows at ``theta``, by at most ``loss``. None where
    nearly as many directions are needed as there are weights.
    """
    flat = jnp.asarray(solutions).reshape(len(solutions), -1)
    origin = jnp.mean(flat, axis=0)
    apart = flat - origin[None]
    changes = np.asarray(_changes(level, theta, origin, apart))
    _, sizes, combined = np.linalg.svd(changes.T, full_matrices=False)
    # What is left out with the last ones, from all of them to none.
    left = np.append(np.cumsum(sizes[::-1] ** 2)[::-1], 0.0) / len(solutions)
    rank = int(np.argmax(left <= loss))
    if rank > WORTH_IT * origin.size:
        return None
    scaled = combined[:rank] / np.maximum(sizes[:rank, None], np.finfo(float).tiny)
    directions = (jnp.asarray(scaled) @ apart).reshape(rank, *level.shape)
    return ReducedLevel.along_directions(level, origin.reshape(level.shape), directions)


@jit_once
def _changes(level: OutputLevel, theta: Theta, origin: Any, apart: Any) -> Float[Array, "n rows"]:
    """Of the rows at ``theta``."""
    return apart @ level.jacobian(theta, origin).T
