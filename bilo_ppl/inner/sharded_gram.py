"""The normal matrix of rows that are spread over devices, in double precision, for many dampings.

Primal (more rows than weights): J^T J is the sum of what the devices make of their own rows, one
all-reduce of weights x weights. Dual: J J^T has every row against every other, and rows that lie on
several devices would have to be gathered. It is a sum too, over the weights. So the devices turn J once,
from their rows to a part of its columns, by one all-to-all, of which each sends and gets no more than
it has; then one all-reduce of rows x rows. The factorisation is done by every device for itself:
what it costs does not fall with the number of devices.

A QR decomposition would need the devices' factors gathered, and is left to one device. Double precision
stands for it: with the damping that steps have, the normal matrix is as good (`LEAST_DAMPING` in
`bilo_ppl.inner.linearised`).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jax.sharding import Mesh
from jaxtyping import Array, Float

from bilo_ppl._types import Rows, Scalar
from bilo_ppl.inner.linear_model import AbstractLinearised, lower_half
from bilo_ppl.inner.sharding import repeated_on_all, sum_of_rows, turned

__all__ = ["ShardedGram"]


class ShardedGram(AbstractLinearised):
    """A Jacobian whose rows are spread over a mesh, with its smaller normal matrix on every device."""

    J: Float[Array, "rows p"]
    """Some rows may be zero: those that make their number a multiple of the devices'."""
    normal: Float[Array, "k k"]
    """Its lower triangle; above it, some entries are left out."""
    count: int = eqx.field(static=True)
    """Rows without those that fill up."""
    mesh: Mesh = eqx.field(static=True)

    def __init__(self, jacobian: Float[Array, "rows p"], mesh: Mesh, count: int):
        """The normal matrix of a Jacobian; its derivative is not needed and is stopped."""
        self.J, self.mesh, self.count = jax.lax.stop_gradient(jacobian), mesh, count

        def own(J):
            # Turned in the precision that it has: in double it would be twice as much to send.
            mine = turned(J, mesh.size) if self.dual else J.T
            return lower_half(mine.astype(jnp.result_type(float)))

        self.normal = sum_of_rows(mesh, own, self.J)

    @property
    def dual(self) -> bool:
        """Whether the smaller normal matrix is rows x rows."""
        return self.count <= self.J.shape[1]

    def apply(self, step: Float[Array, " p"]) -> Rows:
        """See `AbstractLinearised`."""
        return self.J @ step

    def damped(self, damping: Scalar | float) -> Callable[[Rows], Float[Array, " p"]]:
        """See `AbstractLinearised`."""
        # Rows of zeros add nothing to the trace, but are none of the eigenvalues of the mean.
        shift = damping * jnp.trace(self.normal) / min(self.count, self.J.shape[1])
        factor = cho_factor(self.normal + shift * jnp.eye(len(self.normal)), lower=True)

        def normal_solve(right_side):
            return cho_solve(factor, right_side.astype(self.normal.dtype)).astype(self.J.dtype)

        if self.dual:
            return lambda rows: self._pull(normal_solve(repeated_on_all(self.mesh, rows)))
        return lambda rows: normal_solve(self._pull(rows))

    def _pull(self, rows: Rows) -> Float[Array, " p"]:
        """J^T y."""
        return sum_of_rows(self.mesh, lambda J, y: J.T @ y, self.J, rows)
