"""The local operator u(x, theta; W): network, frozen embedding of theta, and lift."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Key, Point, Points, Theta, Weights
from bilo_ppl.network.architecture_checks import check_names, check_network, check_sizes
from bilo_ppl.network.embedding import ThetaEmbedding
from bilo_ppl.network.lora import add_lora, merge_lora, rank_of
from bilo_ppl.network.mlp import MLP
from bilo_ppl.network.modulation import close_modulations, is_modulated, open_modulations
from bilo_ppl.network.tangent import Tangent
from bilo_ppl.network.trainable import cast_arrays, trainable
from bilo_ppl.pde.collocation import completed
from bilo_ppl.pde.point_checks import check_point
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.sizes import unknowns_in, usual_sizes
from bilo_ppl.pde.theta import admit, theta_as

__all__ = ["LocalOperator", "LocalSolution"]


class LocalSolution(eqx.Module):
    """The solution at one theta: a function of a point.

    Theta is taken as it is; `LocalOperator.field` checks and casts it first.
    """

    operator: "LocalOperator"
    theta: Theta

    def __call__(self, x):
        """Value at a point ``(d,)`` (in one dimension also a scalar): a scalar or (components,).

        Raises a ``ValueError`` for several points, and for one outside of the domain.
        """
        operator, problem = self.operator, self.operator.problem
        check_point(problem.domain, x)
        x = jnp.atleast_1d(x).astype(operator.dtype)
        raw = operator.raw(x, self.theta)
        value = problem.lift(x, raw if problem.components > 1 else raw[0], self.theta)
        return value.astype(operator.dtype)


class LocalOperator(eqx.Module):
    """u(x, theta; W) = lift(x, network(inputs(x), embedding(theta); W), theta).

    The network is a tanh `MLP` of ``width``, ``depth``, ``fourier`` features and ``residual`` blocks,
    whose features are also scaled by affine functions of theta (`bilo_ppl.network.Modulation`),
    or any Equinox module ``network(x, e) -> (components,)`` of the problem's inputs x and the
    embedding e of theta, ``(width,)``, which should be added to a first pre-activation. All of its
    floating-point arrays are weights, except those inside `bilo_ppl.network.Frozen`; layers of
    the kind ``equinox.nn.Linear`` can be given low-rank increments. What is not given of width, depth and
    features is as usual for the problem (`bilo_ppl.pde.sizes.usual_sizes`).

    ``scales`` gives typical magnitudes of the entries of theta (default: that of the first guess
    ``theta``; of a field, its root mean square over the collocation points), so that parameters of
    1e-3 and 1e5 are seen alike. ``embedded`` names the entries that the network sees (default: all).
    ``dtype`` is the precision of the network. Raises a ``ValueError`` for another ``dtype``,
    unknown names, sizes that are no counts, and a network that cannot be used.

    Examples:
        >>> untrained = bilo.LocalOperator(problem, start, key=key, width=8, depth=2)
        >>> u = untrained.field({"r": 4.0})
        >>> float(u(jnp.array([0.0]))), float(u(jnp.array([1.0])))  # by the lift
        (1.0, 0.0)
        >>> untrained.dtype
        dtype('float32')
    """

    problem: Problem
    network: Callable[[Any, Any], Any]
    embedding: ThetaEmbedding
    home: dict[str, Array]
    """The theta of pretraining, without the entries that are functions."""
    collocation: Float[Array, "n d"] | None
    """Points in the place of the problem's; None: those."""

    def __init__(
        self,
        problem: Problem,
        theta: Theta,
        *,
        key: Key,
        network: Callable[[Any, Any], Any] | None = None,
        width: int | None = None,
        depth: int | None = None,
        fourier: int | None = None,
        fourier_scale: float = 1.0,
        residual: bool = False,
        scales: Mapping[str, Any] | None = None,
        embedded: tuple[str, ...] | None = None,
        dtype: Any = np.float32,
    ):
        theta = admit(problem, theta, dtype)
        problem = completed(problem, theta)
        check_names(problem, embedded or (), scales or {})
        usual = usual_sizes(problem.domain, unknowns_in(theta))
        width = usual.width if width is None else width
        shape = {
            "depth": usual.depth if depth is None else depth,
            "fourier": usual.fourier if fourier is None else fourier,
            "fourier_scale": fourier_scale,
        }
        check_sizes(width, shape["depth"], shape["fourier"])
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(
                f"LocalOperator: dtype is {dtype!r}; it must be np.float32 or np.float64."
            )
        made, embedding = _initialised(
            problem,
            theta,
            problem.parameters if embedded is None else tuple(embedded),
            dict(scales or {}),
            key,
            None if network is not None else {"width": width, "residual": residual, **shape},
            width,
            np.dtype(dtype),
        )
        self.problem = problem
        self.network = cast_arrays(made if network is None else network, dtype)
        self.embedding = embedding
        self.home = {name: v for name, v in theta.items() if not callable(v)}
        self.collocation = None
        if network is not None:
            x = self.points[0]
            inputs, e = problem.inputs(x, theta), self.embedding(x, theta)
            check_network(problem, self.network, inputs, e)

    @property
    def dtype(self) -> Any:
        """Precision of the network."""
        return self.embedding.matrix.dtype

    @property
    def scales(self) -> dict[str, Array]:
        """Magnitudes of the entries of theta that the network sees, in the order in which it does."""
        return {name: self.embedding.scale[name] for name in self.embedding.names}

    @property
    def rank(self) -> int:
        """Rank of the LoRA increments; 0 where all weights are fine-tuned."""
        return rank_of(self.network)

    @property
    def points(self) -> Float[Array, "n d"]:
        """Collocation points in the precision of the network."""
        chosen = self.problem.points if self.collocation is None else self.collocation
        return jnp.asarray(chosen, self.dtype)

    def __call__(self, x: Point, theta: Theta) -> Any:
        """The solution at a point ``(d,)`` for one theta: a scalar or ``(components,)``."""
        return self.field(theta)(x)

    def field(self, theta: Theta) -> LocalSolution:
        """The solution for one theta, as a function of a point ``(d,)``.

        Examples:
            >>> float(network.field(start)(jnp.array([1.0])))  # by the lift
            0.0
        """
        return LocalSolution(self, theta_as(theta, self.dtype))

    def raw(self, x: Point, theta: Theta) -> Float[Array, " components"]:
        """What the network gives at a point, before the lift."""
        if isinstance(self.network, Tangent):
            return self.network.corrected(partial(self._value, x), theta)
        return self._value(x, self.network, theta)

    def _value(self, x: Point, network: Any, theta: Theta) -> Float[Array, " components"]:
        inputs, t = self.problem.inputs(x, theta), self.embedding.normalised(x, theta)
        e = self.embedding.matrix @ t
        return network(inputs, e, t) if isinstance(network, MLP) else network(inputs, e)

    def about(self, thetas: Theta) -> "LocalOperator":
        """The operator for a fit to ``thetas`` (leading axes), its units of theta those of the region.

        u at home stays what it is; elsewhere it is nearly that, to begin with. An operator that was
        fitted to many thetas before, or whose network is no `MLP`, stays as it is.
        """
        if not isinstance(self.network, MLP) or is_modulated(self.network):
            return self
        # Entries that are functions do not change: any value will do for what they add.
        known = {name: self.home.get(name, c) for name, c in self.embedding.centre.items()}
        network = merge_lora(self.network).shifted(self.embedding(self.points[0], known))
        return eqx.tree_at(
            lambda o: (o.network, o.embedding),
            self,
            (network, self.embedding.about(thetas, self.home)),
        )

    def with_points(self, points: Points) -> "LocalOperator":
        """The same function, to be fine-tuned at other collocation points ``(n, d)``.

        Examples:
            >>> network.with_points(problem.domain.grid(5)).points.shape
            (5, 1)
        """
        chosen = jnp.asarray(points, jnp.result_type(float))
        return eqx.tree_at(lambda o: o.collocation, self, chosen, is_leaf=lambda x: x is None)

    def astype(self, dtype: Any) -> "LocalOperator":
        """The same operator in another precision.

        Examples:
            >>> network.dtype, network.astype(np.float64).dtype
            (dtype('float32'), dtype('float64'))
        """
        parts = cast_arrays((self.network, self.embedding, self.home), dtype)
        return eqx.tree_at(lambda o: (o.network, o.embedding, o.home), self, parts)

    @property
    def weights(self) -> Weights:
        """What the inner solver may change: all weights, or the LoRA increments if there are any."""
        return eqx.filter(self.network, trainable(self.network))

    def with_weights(self, weights: Weights) -> "LocalOperator":
        """The operator with other weights, of the structure of `weights`.

        Examples:
            >>> nothing = jax.tree.map(lambda w: 0 * w, network.weights)
            >>> float(network.with_weights(nothing).field(start)(jnp.array([0.5])))  # lift(x, 0)
            0.5
        """
        return eqx.tree_at(lambda o: o.network, self, eqx.combine(weights, self.network))

    def with_lora(self, rank: int, *, key: Key, many: bool = False) -> "LocalOperator":
        """The same function with increments of the given rank to fine-tune; rank 0: all weights.

        With ``many`` the modulations are weights too, for a fit to many thetas.

        Examples:
            >>> increments = network.with_lora(2, key=key)
            >>> network.rank, increments.rank
            (0, 2)
            >>> point = jnp.array([0.5])
            >>> bool(increments.field(start)(point) == network.field(start)(point))
            True
        """
        network = merge_lora(self.network)
        network = open_modulations(network) if many else close_modulations(network)
        if rank:
            network = add_lora(network, rank, key=key)
        return eqx.tree_at(lambda o: o.network, self, network)

    def tangent(self, theta: Theta) -> "LocalOperator":
        """The same function, to be corrected linearly, by what the weights can change at ``theta``."""
        return eqx.tree_at(lambda o: o.network, self, Tangent(self.network, theta))


@jit_once
def _initialised(
    problem: Problem,
    theta: Theta,
    embedded: tuple[str, ...],
    scales: Mapping[str, Any],
    key: Key,
    shape: Mapping[str, Any] | None,
    width: int,
    dtype: Any,
) -> tuple[Any, ThetaEmbedding]:
    """Random weights and embedding, in one compilation instead of one for every operation."""
    key_network, key_embedding = jax.random.split(key)
    size_in = problem.inputs(jnp.asarray(problem.points[0], dtype), theta).size
    embedding = ThetaEmbedding(
        theta, embedded, problem.points, scales, width=width, key=key_embedding, dtype=dtype
    )
    network = None
    if shape is not None:
        inputs = embedding.matrix.shape[1]
        network = MLP(
            size_in, problem.components, inputs=inputs, **shape, key=key_network, dtype=dtype
        )
    return network, embedding
