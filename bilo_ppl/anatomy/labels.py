"""Labels of tissue where a density is above a threshold: their likelihood, and how masks agree."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

__all__ = ["check_labels", "dice", "log_odds"]


def check_labels(labels: Any, names: Sequence[str]) -> None:
    """Refuse labels ``(n, len(names))`` that are not 0 or 1, NaN where one is missing, or all the same.

    ``names`` are those of the masks, for the messages. Traced labels are not looked at. Raises a
    ``ValueError`` for such labels, and for another number of columns than of names.

    Examples:
        >>> from bilo_ppl.anatomy import check_labels
        >>> known = np.array([[1, 0], [0, 1], [1, np.nan]])
        >>> check_labels(known, ["core", "edema"])  # says nothing: all is well
        >>> check_labels(255 * known, ["core", "edema"])
        Traceback (most recent call last):
            ...
        ValueError: the mask core has 2 labels such as 255; a label is 1 inside and 0 outside. ...
    """
    if isinstance(labels, Tracer):
        return
    labels = np.asarray(labels, float)
    if labels.ndim != 2 or labels.shape[1] != len(names):
        raise ValueError(
            f"labels of shape {labels.shape}: there must be {len(names)} at each point, of "
            f"{' and '.join(names)}, (n, {len(names)})."
        )
    for name, column in zip(names, labels.T, strict=True):
        known = column[~np.isnan(column)]
        wrong = known[(known != 0) & (known != 1)]
        if wrong.size:
            raise ValueError(
                f"the mask {name} has {wrong.size} labels such as {wrong[0]:g}; a label is 1 inside and "
                "0 outside. Compare probabilities with a threshold, and images of 0 and 255 with 127."
            )
        if known.size and np.ptp(known) == 0:
            which = "is empty" if known[0] == 0 else "has no outside"
            raise ValueError(
                f"the mask {name} {which}: all of its {known.size} labels are {known[0]:g}, and say "
                "nothing of where the density passes its threshold. Are image and mask on one grid?"
            )


def log_odds(u: Any, threshold: Any, sharpness: float = 10.0, clearance: float = 0.05) -> Any:
    """Of a label being 1: log(a / (1 - a)), as exact where a is nearly 0 or 1 as elsewhere.

        a = 1/2 + 1/2 tanh(k d) (1 - exp(-d^2 / s^2)),   d = u - threshold,

    with the ``sharpness`` k and the ``clearance`` s (Zhang et al., *Medical Image Analysis*, 2025):
    a label is certain far from the threshold, and says nothing within s of it. ``u``, ``threshold`` and
    ``clearance`` have the unit of the density, ``sharpness`` its inverse; arrays are broadcast.

    Examples:
        >>> from bilo_ppl.anatomy import log_odds
        >>> odds = log_odds(jnp.array([0.1, 0.5, 0.9]), threshold=0.5)
        >>> odds.round(2).tolist()
        [-8.0, 0.0, 8.0]
        >>> dist.Bernoulli(logits=odds).probs.round(3).tolist()
        [0.0, 0.5, 1.0]
    """
    d = jnp.abs(u - threshold)
    near = jnp.exp(-((d / clearance) ** 2))
    steep = jnp.tanh(sharpness * d)
    # 1 - tanh, and not the difference of numbers that are nearly 1.
    rest = 2 / (1 + jnp.exp(2 * sharpness * d)) + steep * near
    return jnp.sign(u - threshold) * (jnp.log1p(steep * (1 - near)) - jnp.log(rest))


def dice(first: Any, second: Any) -> float:
    """2 |A and B| / (|A| + |B|) of two masks of one shape; 1 if both are empty.

    Raises a ``ValueError`` for masks of different shapes.

    Examples:
        >>> from bilo_ppl.anatomy import dice
        >>> dice([1, 1, 0, 0], [0, 1, 1, 0])
        0.5
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape:
        raise ValueError(f"dice: masks of shapes {first.shape} and {second.shape}.")
    total = first.sum() + second.sum()
    return float(2 * np.sum(first & second) / total) if total else 1.0
