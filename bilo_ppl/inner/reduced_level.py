"""A reduced basis: an output layer between the solutions at some thetas.

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
from bilo_ppl.inner.cubature import Cubature, choose_cubature
from bilo_ppl.inner.output_level import OutputLevel
from bilo_ppl.inner.output_rows import AbstractOutputRows, OutputWeights

__all__ = ["ReducedLevel", "at_fewer_points", "reduced_level"]

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
            *(level.operator, level.points, level.axes, level.basis, level.shares, level.known),
            *(origin, directions, level._kept(origin.ravel())),
            jax.lax.map(level._kept, directions.reshape(len(directions), -1)),
        )

    @classmethod
    def empty(cls, level: OutputLevel, count: int, points: int) -> "ReducedLevel":
        """Of a structure, for what is read from a file."""
        nothing = jnp.zeros(level.shape, level.operator.dtype)
        whole = cls.along_directions(
            level, nothing, jnp.zeros((count, *level.shape), nothing.dtype)
        )
        first = np.arange(points)
        return whole if points == len(level.points) else whole.at_few(Cubature(first, 1.0 + first))

    def at_few(self, cubature: Cubature) -> "ReducedLevel":
        """At some of the points, which stand for all."""
        index = cubature.index
        shares = self.shares[index] * jnp.asarray(cubature.counts, self.shares.dtype)
        return ReducedLevel(
            *(self.operator, self.points[index], self.axes, self.basis[index], shares),
            self.known and self.known.at(index),
            *(self.origin, self.directions),
            *(self.at_origin[..., index], self.along[..., index]),
        )

    def weights(self, flat: Float[Array, " r"]) -> OutputWeights:
        """See `AbstractOutputRows.weights`."""
        return self.origin + jnp.tensordot(flat, self.directions, 1)

    def _kept(self, flat: Float[Array, " r"]) -> Float[Array, "kept components n"]:
        return self.at_origin + jnp.tensordot(flat, self.along, 1)

    def _pulled_back(
        self, asked: Float[Array, "kept components rows n"]
    ) -> Float[Array, "r rows n"]:
        return jnp.einsum("kcqn,rkcn->rqn", asked, self.along)

    def _summed_back(self, asked: Float[Array, "kept components rows n"]) -> Float[Array, "r rows"]:
        return jnp.einsum("kcqn,rkcn->rq", asked, self.along)


def reduced_level(
    level: OutputLevel,
    theta: Theta,
    solutions: Float[Any, "count components features"],
    loss: float,
) -> tuple[ReducedLevel, Float[Array, "count r"]] | None:
    """The level between ``solutions``, weights at thetas near ``theta``, about their mean; and where on
    it they are.

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
    # One at least: where the lift has all of theta, the same weights solve everywhere.
    rank = max(1, int(np.argmax(left <= loss)))
    if rank > WORTH_IT * origin.size:
        return None
    sizes, combined = sizes[:rank, None], combined[:rank]
    scaled = combined / np.maximum(sizes, np.finfo(float).tiny)
    directions = (jnp.asarray(scaled) @ apart).reshape(rank, *level.shape)
    reduced = ReducedLevel.along_directions(level, origin.reshape(level.shape), directions)
    return reduced, jnp.asarray((sizes * combined).T)


def at_fewer_points(
    level: ReducedLevel, thetas: Theta, coordinates: Float[Array, "count r"]
) -> ReducedLevel:
    """The level at a few points with weights (`bilo_ppl.inner.cubature`), if some stand for all.

    They are chosen by what the rows are at a batch of thetas, at these ``coordinates``.
    """
    cubature = choose_cubature(np.asarray(_parts(level, thetas, coordinates)))
    return level if cubature is None else level.at_few(cubature)


@jit_once
def _changes(level: OutputLevel, theta: Theta, origin: Any, apart: Any) -> Float[Array, "n rows"]:
    """Of the rows at ``theta``."""
    return apart @ level.jacobian(theta, origin).T


@jit_once
def _parts(level: ReducedLevel, thetas: Theta, coordinates: Any) -> Float[Array, "sums n"]:
    """What each point adds to the loss, its gradient and the normal matrix at each theta."""

    def at(known: Any) -> Any:
        rows, J = level.residuals(*known), level.derivatives(*known)
        return jnp.concatenate(
            [
                jnp.sum(rows**2, axis=0)[None],
                jnp.einsum("qn,rqn->rn", rows, J),
                jnp.einsum("rqn,sqn->rsn", J, J).reshape(-1, rows.shape[1]),
            ]
        )

    found = jax.lax.map(at, (thetas, coordinates))
    return found.reshape(-1, found.shape[-1])
