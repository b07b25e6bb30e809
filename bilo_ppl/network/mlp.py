"""Networks that a local operator is made of: tanh MLP, Fourier features, residual blocks."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl._types import Key
from bilo_ppl.network.modulation import Modulation
from bilo_ppl.network.trainable import Frozen

__all__ = ["MLP", "Linear"]


class Linear(eqx.Module):
    """An affine map ``y = W x + b``.

    Examples:
        >>> from bilo_ppl.network import Linear
        >>> Linear(jnp.array([[1.0, 2.0]]), jnp.array([0.5]))(jnp.array([1.0, 1.0])).tolist()
        [3.5]
        >>> layer = Linear.glorot(8, 4, key=key, dtype=jnp.float32)
        >>> layer.weight.shape, bool(abs(layer.weight).max() <= np.sqrt(6 / (8 + 4)))
        ((4, 8), True)
    """

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"]

    @classmethod
    def glorot(cls, size_in: int, size_out: int, *, key: Key, dtype: Any) -> "Linear":
        """Glorot-uniform weights and zero bias."""
        limit = math.sqrt(6 / (size_in + size_out))
        weight = jax.random.uniform(key, (size_out, size_in), dtype, -limit, limit)
        return cls(weight, jnp.zeros(size_out, dtype))

    def __call__(self, x):
        """Value at ``x`` (in,): (out,)."""
        return self.weight @ x + self.bias


class MLP(eqx.Module):
    """Multilayer perceptron ``(x, e, t) -> y`` with tanh activation.

    ``e`` is added to the first pre-activation: the place where the local operator puts its frozen
    embedding of theta. ``t``, the normalised theta itself of ``inputs`` numbers, scales the features of
    every hidden layer by 1 + G t (`Modulation`). With ``fourier`` features the point enters as
    [sin(Bx), cos(Bx)] with a frozen Gaussian B of standard deviation ``fourier_scale``; with
    ``residual`` every hidden layer after the first adds its input to its output.

    ``size_in`` and ``size_out`` are numbers of coordinates and of components, ``width`` that of the
    units in each of ``depth`` hidden layers. Raises a ``ValueError`` for sizes that are no counts.

    Examples:
        >>> from bilo_ppl.network import MLP
        >>> mlp = MLP(1, 1, width=8, depth=2, inputs=1, key=key, dtype=jnp.float32)
        >>> point, e = jnp.array([0.5]), jnp.full(8, 0.1)
        >>> mlp(point, e).shape, mlp.hidden(point, e).shape
        ((1,), (8,))
        >>> bool(jnp.allclose(mlp.shifted(e)(point, jnp.zeros(8)), mlp(point, e)))
        True
    """

    layers: list[Linear]
    frequencies: Frozen | None
    """``(half, d)``"""
    modulations: list[Modulation]
    residual: bool = eqx.field(static=True)

    def __init__(
        self,
        size_in: int,
        size_out: int,
        *,
        width: int,
        depth: int,
        inputs: int = 0,
        fourier: int = 0,
        fourier_scale: float = 1.0,
        residual: bool = False,
        key: Key,
        dtype: Any,
    ):
        if width < 1 or depth < 1 or fourier < 0:
            raise ValueError(
                f"MLP: width={width} and depth={depth} must be at least 1, fourier={fourier} at "
                "least 0."
            )
        keys = jax.random.split(key, depth + 2)
        self.frequencies = None
        if fourier:
            drawn = jax.random.normal(keys[-1], (fourier, size_in), dtype)
            self.frequencies = Frozen(fourier_scale * drawn)
        sizes = [2 * fourier if fourier else size_in, *[width] * depth, size_out]
        self.layers = [
            Linear.glorot(a, b, key=k, dtype=dtype)
            for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=False)
        ]
        self.modulations = [Modulation(width, inputs, dtype) for _ in range(depth)]
        self.residual = residual

    def __call__(
        self,
        x: Float[Array, " d"],
        e: Float[Array, " width"],
        t: Float[Array, " inputs"] | None = None,
    ) -> Float[Array, " out"]:
        """Evaluate at network inputs ``x``, embedding ``e`` and normalised theta ``t``: (size_out,).

        Without ``t`` nothing is modulated, as at home, where t is zero.
        """
        return self.layers[-1](self.hidden(x, e, t))

    def hidden(
        self,
        x: Float[Array, " d"],
        e: Float[Array, " width"],
        t: Float[Array, " inputs"] | None = None,
    ) -> Float[Array, " width"]:
        """What the last layer sees there."""
        if self.frequencies is not None:
            phase = jax.lax.stop_gradient(self.frequencies.value) @ x
            x = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)])
        first, *hidden, _ = self.layers
        scaled, *scalings = self.modulations
        h = scaled(jnp.tanh(first(x) + e), t)
        for layer, scaled in zip(hidden, scalings, strict=True):
            new = scaled(jnp.tanh(layer(h)), t)
            h = new + h if self.residual else new
        return h

    def shifted(self, e: Float[Array, " width"]) -> "MLP":
        """The same network with an embedding that is smaller by ``e``: the first bias takes it over."""
        return eqx.tree_at(lambda n: n.layers[0].bias, self, self.layers[0].bias + e)
