"""Following a branch of solutions along a line of thetas by Newton's method.

Each Newton step must contract (Deuflhard, *Newton Methods for Nonlinear Problems*, 2011, chapter
5), which keeps the solution on its branch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bilo_ppl._types import Count, Field, Flag, Scalar, Theta

__all__ = ["CONTRACTION", "Path", "follow", "line"]

CONTRACTION = 0.1
"""By how much each Newton update must be smaller than the last."""

_SMALLEST_STRIDE = 2.0**-10
_ON_THE_WAY = 1e-4  # tolerance before the end of the line


class Path(NamedTuple):
    """Where the continuation stands; theta runs along a line from 0 to 1."""

    reached: Scalar
    """The furthest point of the line at which the solution is known."""
    stride: Scalar
    accepted: Float[Array, " m"]
    """The solution at ``reached``."""
    trial: Float[Array, " m"]
    """Newton's iterate for ``reached + stride``."""
    update: Scalar
    """Size of Newton's last update of ``trial``, infinite before the first."""
    steps: Count


def _distance(a: Array, b: Array) -> Scalar:
    return jnp.max(jnp.abs(a - b))


def follow(
    newton: Callable[[Array, Scalar], Array],
    start: Float[Array, " m"],
    stride: float,
    contraction: float,
    tolerance: float,
    max_steps: int,
) -> Path:
    """Follow a solution along a line, one Newton step ``newton(u, s)`` at a time.

    A trial is given up and the stride halved if its updates fail to shrink by ``contraction``,
    or if one step from the new solution back to ``reached`` misses the old one by more than that
    (the trial has then left the branch). After a success the stride is doubled.
    ``reached < 1`` in the result means failure.
    """
    size = jnp.max(jnp.abs(start))

    def step(path: Path) -> Path:
        target = jnp.minimum(path.reached + path.stride, 1)
        trial = newton(path.trial, target)
        update = _distance(trial, path.trial)
        scale = jnp.maximum(size, jnp.max(jnp.abs(trial)))
        small = scale * jnp.where(target < 1, max(tolerance, _ON_THE_WAY), tolerance)

        def leads_back():
            error = _distance(newton(trial, path.reached), path.accepted)
            return (error <= small) | (error <= contraction * _distance(trial, path.accepted))

        still = update <= small
        done = jax.lax.cond(still, leads_back, lambda: still)
        shrinks = jnp.isfinite(update) & (update <= contraction * path.update)
        failed = ~done & (still | ~shrinks)
        accepted = jnp.where(done, trial, path.accepted)
        return Path(
            reached=jnp.where(done, target, path.reached),
            stride=jnp.where(done, 2, jnp.where(failed, 0.5, 1)) * path.stride,
            accepted=accepted,
            trial=jnp.where(failed, accepted, trial),
            update=jnp.where(done | failed, jnp.inf, update),
            steps=path.steps + 1,
        )

    def unfinished(path: Path) -> Flag:
        return (path.reached < 1) & (path.stride >= _SMALLEST_STRIDE) & (path.steps < max_steps)

    zero, one = jnp.zeros((), start.dtype), jnp.ones((), start.dtype)
    first = Path(zero, stride * one, start, start, jnp.inf * one, jnp.zeros((), int))
    return jax.lax.while_loop(unfinished, step, first)


class _Blend(eqx.Module):
    """The function ``(1 - s) first + s last``: two fields of any kind have a line between them."""

    first: Field
    last: Field
    s: Scalar

    def __call__(self, x):
        return (1 - self.s) * self.first(x) + self.s * self.last(x)


def line(start: Theta, end: Theta) -> Callable[[Scalar], Theta]:
    """The straight line between two thetas; a ``ValueError`` if their arrays do not match."""
    first, last = ({name: _shape(theta[name]) for name in theta} for theta in (start, end))
    if first != last:
        raise ValueError(
            f"FiniteDifferences.solve: the entries of theta have the shapes {last}; they must be "
            f"those of the base theta, {first}."
        )

    def at(s):
        return {
            name: _Blend(a, end[name], s) if callable(a) else (1 - s) * a + s * end[name]
            for name, a in start.items()
        }

    return at


def _shape(value: Any) -> Any:
    return "field" if callable(value) else jnp.shape(value)
