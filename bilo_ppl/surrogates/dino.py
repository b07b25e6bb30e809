"""DINO: a network between a few combinations of theta and a few modes of u.

    u(x; theta) = mean(x) + sum_k s_k q_k(z) phi_k(x),   z = P t

with t the encoded theta, phi_k the principal components of solutions (proper orthogonal decomposition),
s_k the standard deviations of their coefficients, and q a network that has learnt coefficients and their
derivatives in theta (O'Leary-Roseberry, Chen, Villa, Ghattas, *J. Comput. Phys.* 496, 2024). Mean and
modes are known on a grid and interpolated linearly between its points. Boundary values are those of the
solutions, so that the problem's lift is not applied.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl._types import Key

__all__ = ["DINO"]


class DINO(eqx.Module):
    """From an encoded theta ``(m,)`` to coefficients of modes, and from there to a point.

    The bases are data, not weights: training changes ``linear`` and ``nonlinear`` only.

    >>> from bilo_ppl.surrogates import DINO
    >>> axis = np.linspace(0, 1, 5)
    >>> network = DINO([axis], [[1.0]], [1 - axis], [[axis * (1 - axis)]], width=8, key=key)
    >>> network.at(jnp.array([0.5])).shape  # from one number of theta to one mode
    (1,)
    >>> network.value(jnp.array([4.0]), jnp.array([0.5])).tolist()  # 1 - x + 4 x (1 - x)
    [1.5]
    """

    axes: tuple[Float[Array, " n"], ...]
    """Coordinates of the grid, one array for each dimension."""
    enter: Float[Array, "inputs m"]
    """P: the combinations of theta that matter."""
    mean: Float[Array, "components *grid"]
    modes: Float[Array, "rank components *grid"]
    """s_k phi_k."""
    linear: Float[Array, "rank inputs"]
    """Where u is linear in theta, nothing else is needed."""
    nonlinear: eqx.nn.MLP

    def __init__(
        self,
        axes: Sequence[Any],
        enter: Any,
        mean: Any,
        modes: Any,
        *,
        width: int = 100,
        depth: int = 3,
        key: Key,
    ):
        """The bases as numbers; ``width`` and ``depth`` are those of the network between them."""
        self.axes = tuple(jnp.asarray(axis, jnp.float32) for axis in axes)
        self.enter, self.mean, self.modes = (
            jnp.asarray(numbers, jnp.float32) for numbers in (enter, mean, modes)
        )
        inputs, rank = len(self.enter), len(self.modes)
        self.linear = jnp.zeros((rank, inputs), jnp.float32)
        self.nonlinear = eqx.nn.MLP(
            inputs, rank, width, depth, activation=jnp.tanh, dtype=jnp.float32, key=key
        )

    def at(self, t: Float[Array, " m"]) -> Float[Array, " rank"]:
        """The coefficients q of the modes."""
        z = self.enter @ t
        return self.linear @ z + self.nonlinear(z)

    def value(
        self, coefficients: Float[Array, " rank"], x: Float[Array, " d"]
    ) -> Float[Array, " components"]:
        """u at a point, from the coefficients; outside of the grid, that of its nearest face."""
        mean, modes = self.mean, self.modes
        # One axis after the other, the last first.
        for axis, coordinate in zip(reversed(self.axes), x[::-1], strict=True):
            place = jnp.clip(coordinate, axis[0], axis[-1])
            left = jnp.clip(jnp.searchsorted(axis, place) - 1, 0, axis.size - 2)
            part = (place - axis[left]) / (axis[left + 1] - axis[left])
            mean, modes = (
                (1 - part) * known[..., left] + part * known[..., left + 1]
                for known in (mean, modes)
            )
        return mean + coefficients @ modes
