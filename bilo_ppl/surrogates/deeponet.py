"""DeepONet: u is a product of functions of theta and functions of the point.

    raw(x; theta) = sum_k b_k(theta) t_k(x) + c

with a branch network b and a trunk network t (Lu, Jin, Pang, Zhang, Karniadakis, *Nature Machine
Intelligence* 3, 2021). The problem's lift makes the boundary values exact.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl._types import Key

__all__ = ["DeepONet"]


class DeepONet(eqx.Module):
    """``(x, t) -> (components,)`` from network inputs x ``(d,)`` and an encoded theta t ``(m,)``.

    >>> from bilo_ppl.surrogates import DeepONet
    >>> network = DeepONet(1, 1, 1, width=8, terms=4, key=key)
    >>> coefficients = network.at(jnp.array([0.5]))  # of a theta, once for all points
    >>> coefficients.shape, network.value(coefficients, jnp.array([0.25])).shape
    ((4, 1), (1,))
    """

    branch: eqx.nn.MLP
    trunk: eqx.nn.MLP
    offset: Float[Array, " components"]
    terms: int = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        thetas: int,
        components: int,
        *,
        width: int = 100,
        depth: int = 3,
        terms: int = 64,
        key: Key,
    ):
        """``inputs`` and ``thetas`` are numbers of coordinates and of encoded entries of theta.

        ``width`` and ``depth`` are those of either network, ``terms`` is the number of products.
        """
        first, second = jax.random.split(key)
        size: dict[str, Any] = {"width_size": width, "depth": depth, "dtype": jnp.float32}
        out = terms * components
        self.branch = eqx.nn.MLP(thetas, out, activation=jnp.tanh, key=first, **size)
        # Of the trunk the outputs are features too: they end in an activation.
        self.trunk = eqx.nn.MLP(
            inputs, out, activation=jnp.tanh, final_activation=jnp.tanh, key=second, **size
        )
        self.offset = jnp.zeros(components, jnp.float32)
        self.terms = terms

    def at(self, t: Float[Array, " m"]) -> Float[Array, "terms components"]:
        """What depends on theta: the coefficients."""
        return self.branch(t).reshape(self.terms, -1)

    def value(
        self, coefficients: Float[Array, "terms components"], x: Float[Array, " d"]
    ) -> Float[Array, " components"]:
        """The output at a point, from the coefficients."""
        features = self.trunk(x).reshape(self.terms, -1)
        return jnp.sum(coefficients * features, axis=0) / self.terms**0.5 + self.offset
