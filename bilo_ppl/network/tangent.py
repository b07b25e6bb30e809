"""A network with a correction that is linear in its weights, made of its derivatives in the old ones."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from bilo_ppl._types import Theta, Weights
from bilo_ppl.network.trainable import Frozen, trainable

__all__ = ["Tangent"]


class Tangent(eqx.Module):
    """A network, and at one theta its derivative along a step of the weights, as a correction.

    The only weights are those of ``step``, of the structure of the network's, to begin with zero. What
    corrects is the same functions of a point whatever theta the network is asked for.
    """

    network: Frozen
    theta: Frozen
    step: Weights

    def __init__(self, network: Any, theta: Theta):
        self.network, self.theta = Frozen(network), Frozen(theta)
        self.step = jax.tree.map(lambda leaf: 0 * leaf, eqx.filter(network, trainable(network)))

    def corrected(self, value: Callable[[Any, Theta], Any], theta: Theta) -> Any:
        """``value(network, theta)`` with the correction."""
        network = self.network.value
        weights, rest = eqx.partition(network, trainable(network))
        _, change = jax.jvp(
            lambda w: value(eqx.combine(w, rest), self.theta.value), (weights,), (self.step,)
        )
        return value(network, theta) + change
