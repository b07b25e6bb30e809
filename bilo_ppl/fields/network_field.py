"""An unknown function as a small network."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bilo_ppl._types import Key, Point, Scalar
from bilo_ppl.network.mlp import MLP
from bilo_ppl.pde.domain import Box

__all__ = ["NetworkField", "zero_output"]


def _raw(x: Point, raw: Scalar) -> Scalar:
    return raw


class NetworkField(eqx.Module):
    """``lift(x, N(x))``: an unknown function as a small tanh network N.

    ``lift(x, raw)`` builds in what is known, such as ``1 + x (1 - x) raw`` for ends fixed at 1, or
    ``jax.nn.softplus(raw)`` for positivity. The network sees the first ``domain.dimension``
    coordinates of a point, mapped to [-1, 1]: an initial value over x can be evaluated at points
    (x, t). Hidden biases start uniform in [-1, 1]. Fourier frequencies are frozen; all layers are
    trainable.

    Examples:
        >>> def lift(x, raw):
        ...     return 1 + x[0] * (1 - x[0]) * raw
        >>> f = bilo.NetworkField(problem.domain, key=key, lift=lift, width=8)
        >>> float(f(jnp.array([0.0]))), float(f(jnp.array([1.0])))
        (1.0, 1.0)
        >>> bilo.field_weights(f).shape
        (97,)
    """

    network: MLP
    domain: Box = eqx.field(static=True)
    lift: Callable[[Any, Any], Any] = eqx.field(static=True)

    def __init__(
        self,
        domain: Box,
        *,
        key: Key,
        lift: Callable[[Any, Any], Any] = _raw,
        width: int = 64,
        depth: int = 2,
        fourier: int = 0,
        fourier_scale: float = 1.0,
        residual: bool = False,
        dtype: Any = jnp.float32,
    ):
        network_key, bias_key = jax.random.split(key)
        network = MLP(
            domain.dimension,
            1,
            width=width,
            depth=depth,
            fourier=fourier,
            fourier_scale=fourier_scale,
            residual=residual,
            key=network_key,
            dtype=dtype,
        )
        # Without biases (and Fourier features) all features are odd about the middle of the domain,
        # and a descent that needs even ones comes to a saddle first.
        hidden = network.layers[:-1]
        biases = jax.random.uniform(bias_key, (len(hidden), width), dtype, -1, 1)
        self.network = eqx.tree_at(
            lambda n: [layer.bias for layer in n.layers[:-1]], network, list(biases)
        )
        self.domain = domain
        self.lift = lift

    def __call__(self, x: Any) -> Scalar:
        """The value at a point ``(d,)`` (in one dimension also a scalar): a scalar."""
        first = self.network.layers[0]
        x = jnp.atleast_1d(jnp.asarray(x, first.bias.dtype))[: self.domain.dimension]
        raw = self.network(self.domain.normalise(x), jnp.zeros_like(first.bias))
        return jnp.reshape(self.lift(x, raw[0]), ())


def zero_output(field: NetworkField) -> NetworkField:
    """The field whose network puts out zero: ``lift(x, 0)``, with all other weights as they are.

    Examples:
        >>> from bilo_ppl.fields import zero_output
        >>> f = bilo.NetworkField(problem.domain, key=key, lift=lambda x, raw: 1 + x[0] + raw, width=8)
        >>> float(zero_output(f)(jnp.array([0.25])))
        1.25
    """
    last = field.network.layers[-1]
    zero = eqx.tree_at(lambda layer: (layer.weight, layer.bias), last, replace_fn=jnp.zeros_like)
    return eqx.tree_at(lambda f: f.network.layers[-1], field, zero)
