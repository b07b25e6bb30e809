"""Training by optax, in blocks: a progress bar, and Ctrl-C that keeps what there is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bilo_ppl._blocks import BlockReport, Lengths, run_blocks
from bilo_ppl._types import Count, Scalar

__all__ = ["descend"]

RATE, LAST = 1e-3, 1e-2
"""First step of Adam, and the part of it that is left at the end."""

BLOCK = 1000


def descend(
    objective: Callable[[Any, Count], Scalar],
    start: Any,
    steps: int,
    optimizer: optax.GradientTransformation | None,
    label: str,
    progress: bool,
) -> tuple[Any, np.ndarray]:
    """Minimise a function of a pytree of arrays: the last point, and the value at every step.

    ``objective(point, step)`` may depend on the number of the step, as where it takes a random batch.

    By default with Adam, whose step of 1e-3 falls along a cosine to 1e-5. Raises a ``RuntimeError`` where
    the objective is not finite.
    """
    if optimizer is None:
        optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps, LAST))

    @jax.jit
    def many(carry, first, length):
        def body(i, state):
            (point, moments), values = state
            value, gradient = jax.value_and_grad(objective)(point, first + i)
            updates, moments = optimizer.update(gradient, moments, point)
            moved = optax.apply_updates(point, updates)
            return (moved, moments), values.at[i].set(value)

        return jax.lax.fori_loop(0, length, body, (carry, jnp.zeros(BLOCK)))

    start = jax.tree.map(jnp.asarray, start)
    carry = (start, optimizer.init(start))
    history: list[np.ndarray] = []

    def block(length: int) -> BlockReport:
        nonlocal carry
        carry, values = many(carry, sum(map(len, history)), length)
        history.append(np.asarray(values)[:length])
        last = history[-1][-1]
        if not np.isfinite(last):
            raise RuntimeError(
                f"{label}: the objective is not finite after {sum(map(len, history))} steps; take "
                "smaller steps, or another start."
            )
        return BlockReport(length, f"objective {last:.3g}")

    run_blocks(block, steps, label=label, unit="step", lengths=Lengths(BLOCK), progress=progress)
    return carry[0], np.concatenate(history)
