"""BPN: bilevel PINN, whose gradient in theta comes from Broyden's method (Hao et al., ICLR 2023).

    minimise over theta   J(w(theta), theta),   w(theta) = argmin over w of L(w, theta)

    dJ/dtheta = J_theta - z^T L_wtheta,   L_ww z = J_w

The network does not see theta: only its weights follow it. Every outer step takes a fixed number of steps
of Adam on L, from the weights of the one before, and solves for z by a fixed number of Broyden's, each
with one product of the Hessian L_ww and a vector. Inner steps are what its authors count.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from bilo_ppl._compile import jit_once
from bilo_ppl._types import Scalar, Theta, Weights

__all__ = ["BPN", "broyden_solve", "fit_bpn", "hypergradient"]

Loss = Callable[[Weights, Theta], Scalar]

INNER, BROYDEN = 64, 32
"""Steps of Adam and of Broyden's method in an outer step."""


class BPN(NamedTuple):
    """What was found, and on which way.

    >>> found.thetas["a"].shape, found.upper.shape  # of the example before, outer=5
    ((6,), (5,))
    >>> bool(found.upper[-1] < found.upper[0])
    True
    >>> found.inner_steps({"a": 1.0}, error=0.01), found.inner_steps({"a": 2.0}, error=0.01)
    (0, None)
    """

    weights: Weights
    """The last ones."""
    thetas: dict[str, np.ndarray]
    """Theta at the start and after every outer step: ``(outer + 1, ...)``."""
    upper: np.ndarray
    """J before every outer step's update, after its inner steps: ``(outer,)``."""
    lower: np.ndarray
    """L there."""
    inner: int
    """Inner steps in an outer one, pretraining apart."""

    def inner_steps(self, wanted: Theta, error: float) -> int | None:
        """Inner steps until the Euclidean distance of theta to ``wanted`` is first below ``error``.

        None where it never is.
        """
        off = sum(
            np.sum((path - np.asarray(wanted[name])) ** 2, axis=tuple(range(1, path.ndim)))
            for name, path in self.thetas.items()
        )
        near = np.flatnonzero(np.sqrt(off) < error)
        return int(near[0]) * self.inner if near.size else None


def broyden_solve(
    product: Callable[[Float[Array, " n"]], Float[Array, " n"]],
    right: Float[Array, " n"],
    steps: int,
) -> Float[Array, " n"]:
    """z with ``product(z) = right`` for a linear map, by Broyden's good method; the best z met.

    The inverse is approximated by a multiple of the identity, that which is best along ``right``, and a
    term of rank one for every step (Sherman and Morrison).

    >>> from bilo_ppl.baselines import broyden_solve
    >>> matrix, right = jnp.diag(jnp.array([1.0, 2.0, 4.0])), jnp.ones(3)
    >>> np.round(broyden_solve(lambda z: matrix @ z, right, steps=20), 4).tolist()
    [1.0, 0.5, 0.25]
    """
    first = product(right)
    scale = jnp.vdot(first, right) / jnp.maximum(
        jnp.vdot(first, first), jnp.finfo(right.dtype).tiny
    )
    zeros = jnp.zeros((steps, right.size), right.dtype)

    def step(i, state):
        z, residual, left, across, best, least = state
        move = -(scale * residual + left.T @ (across @ residual))
        z = z + move
        after = product(z) - right
        change = after - residual
        applied = scale * change + left.T @ (across @ change)
        transposed = scale * move + across.T @ (left @ move)
        pivot = jnp.vdot(move, applied)
        safe = jnp.where(pivot == 0, 1.0, pivot)
        correction = jnp.where(pivot == 0, 0.0, (move - applied) / safe)
        left, across = left.at[i].set(correction), across.at[i].set(transposed)
        size = jnp.linalg.norm(after)
        better = size < least
        best = jnp.where(better, z, best)
        return z, after, left, across, best, jnp.where(better, size, least)

    start = jnp.zeros_like(right)
    state = (start, -right, zeros, zeros, start, jnp.linalg.norm(right))
    return jax.lax.fori_loop(0, steps, step, state)[4]


def hypergradient(lower: Loss, upper: Loss, weights: Weights, theta: Theta, steps: int) -> Any:
    """dJ/dtheta at the weights, by ``steps`` of Broyden's method; as theta is, a tree.

    >>> from bilo_ppl.baselines import hypergradient
    >>> round(float(hypergradient(lower, upper, jnp.array(3.0), at, steps=5)["a"]), 4)
    -18.0
    """
    flat, unravel = ravel_pytree(weights)
    gradient = jax.grad(lambda w: lower(unravel(w), theta))

    def product(v):
        return jax.jvp(gradient, (flat,), (v,))[1]

    of_weights, of_theta = jax.grad(lambda w, t: upper(unravel(w), t), argnums=(0, 1))(flat, theta)
    z = jax.lax.stop_gradient(broyden_solve(product, of_weights, steps))
    cross = jax.grad(lambda t: jax.jvp(lambda w: lower(unravel(w), t), (flat,), (z,))[1])(theta)
    return jax.tree.map(jnp.subtract, of_theta, cross)


def fit_bpn(
    lower: Loss,
    upper: Loss,
    weights: Weights,
    theta: Theta,
    *,
    outer: int,
    inner: int = INNER,
    broyden: int = BROYDEN,
    pretraining: int = 1000,
    rate: float = 0.05,
    inner_rate: float = 1e-3,
) -> BPN:
    """Minimise ``upper(weights, theta)`` where ``weights`` minimise ``lower(weights, theta)``.

    Both are functions of a tree of weights and a mapping of arrays. First come ``pretraining`` steps of
    Adam (``inner_rate``) on the lower loss at the first theta; then ``outer`` steps of Adam (``rate``) on
    theta, with ``inner`` steps on the weights before each. Raises a ``ValueError`` for numbers of steps
    that are not positive, and a ``RuntimeError`` where a loss is not finite.

    >>> from bilo_ppl.baselines import fit_bpn
    >>> lower = lambda w, theta: jnp.sum((w - 3 * theta["a"]) ** 2)  # least at w = 3 a
    >>> upper = lambda w, theta: jnp.sum((w - 6.0) ** 2)  # least at a = 2
    >>> at = {"a": jnp.array(1.0)}
    >>> found = fit_bpn(lower, upper, jnp.array(3.0), at, outer=5, inner=5, pretraining=10)
    >>> bool(found.thetas["a"][-1] > found.thetas["a"][0])
    True
    """
    counts = {"outer": outer, "inner": inner, "broyden": broyden}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"fit_bpn: {name} is {count}; the least is 1.")
    descent, upper_descent = optax.adam(inner_rate), optax.adam(rate)

    def inner_steps(weights, moments, theta, count):
        def step(_, state):
            weights, moments = state
            updates, moments = descent.update(jax.grad(lower)(weights, theta), moments)
            return optax.apply_updates(weights, updates), moments

        return jax.lax.fori_loop(0, count, step, (weights, moments))

    @jit_once
    def outer_step(weights, moments, theta, upper_moments, count):
        weights, moments = inner_steps(weights, moments, theta, count)
        gradient = hypergradient(lower, upper, weights, theta, broyden)
        updates, upper_moments = upper_descent.update(gradient, upper_moments)
        moved = optax.apply_updates(theta, updates)
        losses = upper(weights, theta), lower(weights, theta)
        return (weights, moments, moved, upper_moments), losses

    theta = {name: jnp.asarray(value, float) for name, value in theta.items()}
    state = (weights, descent.init(weights), theta, upper_descent.init(theta))
    path: list[Any] = [theta]
    losses: list[Any] = []
    for number in range(outer):
        # The first steps at the first theta are pretraining's too: one compiled function does both.
        state, found = outer_step(*state, inner + (0 if number else pretraining))
        if not np.all(np.isfinite(found)):
            raise RuntimeError(
                f"fit_bpn: a loss is not finite after {number + 1} outer steps; take smaller steps."
            )
        path.append(state[2])
        losses.append(found)
    thetas = {name: np.stack([np.asarray(t[name]) for t in path]) for name in theta}
    uppers, lowers = np.asarray(losses).T
    return BPN(state[0], thetas, uppers, lowers, inner)
