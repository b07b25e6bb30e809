"""An unknown function by its values at nodes."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float

from bilo_ppl._types import Scalar

__all__ = ["PiecewiseLinear"]


class PiecewiseLinear(eqx.Module):
    """A function on an interval, linear between equidistant nodes; ``values`` ``(n,)`` are unknown.

    With ``ends``, the two values at the ends are known, and ``values`` are those at the ``n`` nodes
    between. Outside the interval the outermost pieces go on. As a coefficient of a finite-difference
    operator on the same nodes it makes the stiffness matrix of linear elements. Raises a ``ValueError``
    for fewer than two nodes, or an empty interval.

    Examples:
        >>> roof = bilo.PiecewiseLinear(jnp.array([1.5]), ends=(1.0, 1.0))
        >>> float(roof(jnp.array([0.25]))), float(roof(jnp.array([1.0])))
        (1.25, 1.0)
    """

    values: Float[Any, " n"]
    lower: float = eqx.field(static=True, default=0.0)
    upper: float = eqx.field(static=True, default=1.0)
    ends: tuple[float, float] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        nodes = jnp.size(self.values) + (0 if self.ends is None else 2)
        if nodes < 2 or not self.lower < self.upper:
            raise ValueError(
                f"PiecewiseLinear: {nodes} nodes from {self.lower} to {self.upper}; give at least two, "
                "and lower below upper."
            )

    def __call__(self, x: Any) -> Scalar:
        """The value at a point ``(1,)`` or a scalar: a scalar."""
        values = jnp.asarray(self.values)
        values = values.astype(jnp.result_type(values, jnp.float32))
        if self.ends is not None:
            first, last = jnp.asarray(self.ends, values.dtype)
            values = jnp.concatenate([first[None], values, last[None]])
        cells = values.size - 1
        place = (jnp.reshape(x, ()) - self.lower) * (cells / (self.upper - self.lower))
        cell = jnp.clip(jnp.floor(place), 0, cells - 1).astype(int)
        return values[cell] + (place - cell) * (values[cell + 1] - values[cell])
