"""The local operator u(x, theta; W): network, frozen embedding of theta, and lift."""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Key, Point, Theta, Weights
from bilo_ppl.network.lora import LowRankLinear, add_lora, merge_lora, trainable
from bilo_ppl.network.mlp import MLP
from bilo_ppl.pde.problem import Problem, check_theta, theta_as

__all__ = ["LocalOperator", "LocalSolution", "ThetaEmbedding"]


class ThetaEmbedding(eqx.Module):
    """A fixed random linear map of the normalised theta, added to the first layer of the network.

    Scalars and arrays enter as ``(theta - centre) / scale``; a field enters by its value at the
    point (the auxiliary variable z = f(x) of the papers). It is not trained: the network has to
    follow theta through its own weights, and the inner solver cannot blind it to theta.
    """

    centre: dict[str, Array]
    scale: dict[str, Array]
    matrix: Float[Array, "width inputs"]
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        theta: Theta,
        names: tuple[str, ...],
        points: Any,
        scales: Mapping[str, Any],
        *,
        width: int,
        key: Key,
        dtype: Any,
    ):
        values = {name: _values(theta[name], points, dtype) for name in names}
        self.names = names
        self.centre = {name: jnp.mean(v, axis=0) for name, v in values.items()}
        self.scale = {
            name: jnp.broadcast_to(
                jnp.asarray(scales.get(name, _default_scale(v)), dtype), v.shape[1:]
            )
            for name, v in values.items()
        }
        size = sum(v.size for v in self.centre.values())
        limit = math.sqrt(3 / max(size, 1))
        self.matrix = jax.random.uniform(key, (width, size), dtype, -limit, limit)

    def normalised(self, x: Point, theta: Theta) -> Float[Array, " inputs"]:
        """The values that enter the embedding at x, centred and scaled."""
        parts = []
        for name in self.names:
            value = theta[name](x) if callable(theta[name]) else theta[name]
            centred = (jnp.asarray(value) - self.centre[name]) / self.scale[name]
            parts.append(jnp.ravel(centred))
        return jnp.concatenate(parts) if parts else jnp.zeros(0, self.matrix.dtype)

    def __call__(self, x: Point, theta: Theta) -> Float[Array, " width"]:
        """What is added to the first pre-activation at x."""
        return self.matrix @ self.normalised(x, theta)


def _values(value: Any, points: Any, dtype: Any) -> Array:
    """Values of an entry of theta: of a field, those at the collocation points; else a single one."""
    if callable(value):
        values: Any = jax.vmap(value)(jnp.asarray(points, dtype))
        return values.astype(dtype)
    return jnp.asarray(value, dtype)[None]


def _default_scale(values: Array) -> Array:
    """Root mean square of the first guess (of a number, its magnitude); 1 where that is zero."""
    largest = jnp.max(jnp.abs(values), axis=0)
    # The squares of small or large numbers would leave single precision.
    unit = jnp.where(largest == 0, 1, largest)
    relative = jnp.sqrt(jnp.mean((values / unit) ** 2, axis=0))
    return jnp.where(largest == 0, 1, unit * relative)


class LocalSolution(eqx.Module):
    """The solution at one theta: a function of a point."""

    operator: "LocalOperator"
    theta: dict[str, Any]

    def __call__(self, x):
        """Value at a point ``(d,)`` (in one dimension also a scalar): a scalar or (components,)."""
        return self.operator(jnp.atleast_1d(x), self.theta)


class LocalOperator(eqx.Module):
    """u(x, theta; W) = lift(x, network(inputs(x), embedding(theta); W), theta).

    ``scales`` gives typical magnitudes of the entries of theta (default: that of the first guess
    ``theta``; of a field, its root mean square over the collocation points), so that parameters of
    1e-3 and 1e5 are seen alike. ``embedded`` names the entries that the network sees (default: all).
    ``dtype`` is the precision of the network.
    """

    problem: Problem
    network: MLP
    embedding: ThetaEmbedding

    def __init__(
        self,
        problem: Problem,
        theta: Theta,
        *,
        key: Key,
        width: int = 128,
        depth: int = 2,
        fourier: int = 0,
        fourier_scale: float = 1.0,
        residual: bool = False,
        scales: Mapping[str, Any] | None = None,
        embedded: tuple[str, ...] | None = None,
        dtype: Any = np.float32,
    ):
        check_theta(problem, theta)
        theta = theta_as(theta, dtype)
        unknown = [n for n in (*(embedded or ()), *(scales or {})) if n not in problem.parameters]
        if unknown:
            raise ValueError(
                f"LocalOperator: {unknown} in embedded or scales are not parameters of "
                f"{type(problem).__name__}: {list(problem.parameters)}."
            )
        bad = {n: s for n, s in (scales or {}).items() if not np.all(np.asarray(s) > 0)}
        if bad:
            raise ValueError(f"LocalOperator: scales must be positive, but are {bad}.")
        self.problem = problem
        self.network, self.embedding = _initialised(
            problem,
            theta,
            problem.parameters if embedded is None else tuple(embedded),
            dict(scales or {}),
            key,
            {
                "width": width,
                "depth": depth,
                "fourier": fourier,
                "fourier_scale": fourier_scale,
                "residual": residual,
            },
            np.dtype(dtype),
        )

    @property
    def dtype(self) -> Any:
        """Precision of the network."""
        return self.embedding.matrix.dtype

    @property
    def rank(self) -> int:
        """Rank of the LoRA increments; 0 where all weights are fine-tuned."""
        return max(
            (n.A.shape[0] for n in self.network.layers if isinstance(n, LowRankLinear)), default=0
        )

    @property
    def points(self) -> Float[Array, "n d"]:
        """Collocation points in the precision of the network."""
        return jnp.asarray(self.problem.points, self.dtype)

    def __call__(self, x: Point, theta: Theta) -> Any:
        """The solution at a point ``(d,)`` for one theta: a scalar or ``(components,)``."""
        x = x.astype(self.dtype)
        theta = theta_as(theta, self.dtype)
        e = self.embedding(x, theta)
        raw = self.network(self.problem.inputs(x, theta), e)
        value = self.problem.lift(x, raw if self.problem.components > 1 else raw[0], theta)
        return value.astype(self.dtype)

    def field(self, theta: Theta) -> LocalSolution:
        """The solution for one theta, as a function of a point."""
        return LocalSolution(self, theta_as(theta, self.dtype))

    @property
    def weights(self) -> Weights:
        """What the inner solver may change: all weights, or the LoRA increments if there are any."""
        return eqx.filter(self.network, trainable(self.network))

    def with_weights(self, weights: Weights) -> "LocalOperator":
        """The operator with other weights, of the structure of `weights`."""
        return eqx.tree_at(lambda o: o.network, self, eqx.combine(weights, self.network))

    def with_lora(self, rank: int, *, key: Key) -> "LocalOperator":
        """The same function with increments of the given rank to fine-tune; rank 0: all weights."""
        network = merge_lora(self.network)
        if rank:
            network = add_lora(network, rank, key=key)
        return eqx.tree_at(lambda o: o.network, self, network)


@jit_once
def _initialised(
    problem: Problem,
    theta: Theta,
    embedded: tuple[str, ...],
    scales: Mapping[str, Any],
    key: Key,
    shape: Mapping[str, Any],
    dtype: Any,
) -> tuple[MLP, ThetaEmbedding]:
    """Random weights and embedding, in one compilation instead of one for every operation."""
    key_network, key_embedding = jax.random.split(key)
    size_in = problem.inputs(jnp.asarray(problem.points[0], dtype), theta).size
    network = MLP(size_in, problem.components, **shape, key=key_network, dtype=dtype)
    embedding = ThetaEmbedding(
        theta,
        embedded,
        problem.points,
        scales,
        width=shape["width"],
        key=key_embedding,
        dtype=dtype,
    )
    return network, embedding
