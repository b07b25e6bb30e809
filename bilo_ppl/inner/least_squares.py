"""Nonlinear least squares over many small items.

The lower level drives named rows to zero. Rows come in families: one function of the weights and of
an item (a collocation point, or a point and a theta), evaluated at a batch of items. Rows of one item
depend on no other item, so the Jacobian is a batch of small reverse passes and nothing is wasted.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jaxtyping import Array, Float

from bilo_ppl._types import Key, Rows, Scalar, Weights
from bilo_ppl.inner.sharding import on_each_device

__all__ = ["LeastSquares", "RowFamily"]

WHOLE = 32
"""A family with no more items is always taken whole."""


class RowFamily(eqx.Module):
    """``rows(weights, item)`` at a batch of items.

    ``rows`` returns a mapping from names to row vectors. ``row_weights`` gives the loss weights by
    name (1 where not given); every row is scaled by sqrt(weight / number of items), so that the squared
    norm of a block is its weighted mean square over the items.

    Examples:
        >>> from bilo_ppl.inner.least_squares import LeastSquares, RowFamily
        >>> def misfit(w, item):  # of a straight line
        ...     place, value = item
        ...     return {"misfit": jnp.reshape(w[0] + w[1] * place - value, (1,))}
        >>> items = jnp.arange(4.0), 1 + 2 * jnp.arange(4.0)
        >>> family = RowFamily(misfit, items, row_weights={})
        >>> family.named(jnp.array([2.0, 2.0]))["misfit"].ravel().tolist()  # over sqrt 4
        [0.5, 0.5, 0.5, 0.5]
    """

    rows: Callable[[Weights, Any], Mapping[str, Rows]]
    items: Any
    row_weights: Mapping[str, float]
    of: int | None = eqx.field(static=True, default=None)
    """Number of items of the mean, where these are a part of them; None for all."""

    @property
    def count(self) -> int:
        """Number of items."""
        return jax.tree.leaves(self.items)[0].shape[0]

    def part(self, key: Key, count: int) -> "RowFamily":
        """The family at ``count`` of its items, a random one from each of as many equal stretches.

        Its squared norm is a mean square over them, and so an estimate of that of the whole.
        """
        if count >= self.count:
            return self
        within = jax.random.uniform(key, (count,))
        picked = ((jnp.arange(count) + within) * (self.count / count)).astype(int)
        picked = jnp.minimum(picked, self.count - 1)
        items = jax.tree.map(lambda leaf: leaf[picked], self.items)
        return eqx.tree_at(lambda family: family.items, self, items)

    def filled(self, multiple: int) -> "RowFamily":
        """The family with items added until their number is a multiple; their rows are zero.

        They repeat the first item, so that a residual is finite there if it is at all.
        """
        missing = -self.count % multiple
        if not missing:
            return RowFamily(self.rows, self.items, self.row_weights, self.count)

        def rows(weights, item):
            own, added = item
            found = self.rows(weights, own)
            return {name: jnp.where(added, 0, block) for name, block in found.items()}

        def fill(leaf):
            leaf = jnp.asarray(leaf)
            return jnp.concatenate([leaf, jnp.repeat(leaf[:1], missing, axis=0)])

        added = jnp.arange(self.count + missing) >= self.count
        items = (jax.tree.map(fill, self.items), added)
        return RowFamily(rows, items, self.row_weights, self.count)

    def _scaled(self, weights: Weights, item: Any) -> dict[str, Rows]:
        return {
            name: math.sqrt(self.row_weights.get(name, 1.0) / (self.of or self.count)) * rows
            for name, rows in self.rows(weights, item).items()
        }

    def named(self, weights: Weights) -> dict[str, Float[Array, "items m"]]:
        """Scaled rows by name."""
        return jax.vmap(lambda item: self._scaled(weights, item))(self.items)

    def jacobian(self, weights: Weights) -> Float[Array, "rows p"]:
        """Jacobian of the scaled rows, item by item, with respect to the flattened weights."""
        flat, unravel = ravel_pytree(weights)
        one = jax.tree.map(lambda leaf: leaf[0], self.items)
        names = jax.eval_shape(lambda: self.rows(weights, one))

        # One reverse pass a block: a cheap block does not pay for the graph of an expensive one.
        def item_jacobian(w, item):
            blocks = [
                jax.jacrev(lambda v, name=name: self._scaled(unravel(v), item)[name])(w)
                for name in sorted(names)
            ]
            return jnp.concatenate(blocks)

        blocks = jax.vmap(item_jacobian, in_axes=(None, 0))(flat, self.items)
        return blocks.reshape(-1, flat.size)


class LeastSquares(eqx.Module):
    """minimise sum(rows(W)**2), the rows of all families stacked.

    It is what an inner solver is given: a `LowerLevel` at one theta. With a ``mesh`` (`over`), items are
    spread over its devices: see `bilo_ppl.inner.sharding`. Rows of zeros then fill the families up to
    multiples of their number; loss and minimiser are the same.

    Examples:
        >>> line = LeastSquares((family,))
        >>> w = jnp.array([2.0, 2.0])
        >>> float(line.loss(w)), line.rows(w).tolist(), line.jacobian(w).shape
        (1.0, [0.5, 0.5, 0.5, 0.5], (4, 2))
        >>> line.count, {name: float(value) for name, value in line.terms(w).items()}
        (4, {'misfit': 1.0})
    """

    families: tuple[RowFamily, ...]
    mesh: Mesh | None = eqx.field(static=True, default=None)

    def over(self, mesh: Mesh | None) -> "LeastSquares":
        """The same problem with its rows over the devices of a mesh; None: as they are on one device."""
        return self if mesh == self.mesh else LeastSquares(self.families, mesh)

    def _on_each_device(self, mesh: Mesh, method: Callable[..., Any], weights: Weights) -> Any:
        """``method(problem, weights)`` of the part that each device has, one after the other."""
        families = tuple(family.filled(mesh.size) for family in self.families)

        def local(weights, items):
            pairs = zip(families, items, strict=True)
            own = (eqx.tree_at(lambda f: f.items, family, part) for family, part in pairs)
            return method(LeastSquares(tuple(own)), weights)

        return on_each_device(mesh, local, weights, [family.items for family in families])

    def named(self, weights: Weights) -> dict[str, Float[Array, "items m"]]:
        """Scaled rows by name."""
        if self.mesh is not None:
            return self._on_each_device(self.mesh, LeastSquares.named, weights)
        return {name: rows for f in self.families for name, rows in f.named(weights).items()}

    def rows(self, weights: Weights) -> Rows:
        """All scaled rows; the order is that of `jacobian`."""
        if self.mesh is not None:
            return self._on_each_device(self.mesh, LeastSquares.rows, weights)
        parts = []
        for family in self.families:
            named = family.named(weights)
            parts.append(jnp.concatenate([named[k] for k in sorted(named)], axis=1).ravel())
        return jnp.concatenate(parts)

    def loss(self, weights: Weights) -> Scalar:
        """Weighted mean squares, summed: the loss of the papers."""
        return jnp.sum(self.rows(weights) ** 2)

    def terms(self, weights: Weights) -> dict[str, Scalar]:
        """The loss, term by term."""
        return {name: jnp.sum(rows**2) for name, rows in self.named(weights).items()}

    @property
    def count(self) -> int:
        """Number of items in all families."""
        return sum(family.count for family in self.families)

    def part(self, key: Key, count: int) -> "LeastSquares":
        """The problem on about ``count`` of its items: an even part of each family.

        Small families, such as boundary conditions, stay whole.
        """
        share = count / self.count
        parts = (
            family.part(jax.random.fold_in(key, i), max(round(share * family.count), WHOLE))
            for i, family in enumerate(self.families)
        )
        return LeastSquares(tuple(parts), self.mesh)

    def jacobian(self, weights: Weights) -> Float[Array, "rows p"]:
        """Derivative of `rows` with respect to the flattened weights."""
        if self.mesh is not None:
            return self._on_each_device(self.mesh, LeastSquares.jacobian, weights)
        return jnp.concatenate([family.jacobian(weights) for family in self.families])
