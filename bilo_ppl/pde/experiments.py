"""Which experiment each observation is from: labels as the user writes them, and codes for a model."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["coded"]


def coded(
    labels: Any, names: Sequence[str], count: int, row: Callable[[int], str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes ``(n,)`` from 0 on, and the names of the experiments by code.

    Labels are numbers or text, ``(n,)``. Codes follow their order: that of the numbers if all of them
    are numbers, else the alphabet. With ``names``, the labels are such codes already.

    Raises a ``ValueError`` for another shape, a label that is empty, NaN or infinite, or a code without
    a name.
    """
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise ValueError(
            f"data: experiment has shape {labels.shape}; give one label, a number or a text, for each "
            f"of the {count} observations."
        )
    if names:
        return _checked(labels, names), tuple(names)
    texts = [str(label).strip() for label in labels.tolist()]
    for i, text in enumerate(texts):
        if text.lower() in {"", "nan", "none", "inf", "-inf"}:
            raise ValueError(
                f"data, {row(i)}: experiment is {text!r}; give every row the number or the name of its "
                "experiment."
            )
    try:
        numbers = np.array([float(text) for text in texts])
    except ValueError:
        known, codes = np.unique(texts, return_inverse=True)
        return codes, tuple(map(str, known))
    known, codes = np.unique(numbers, return_inverse=True)
    return codes, tuple(str(int(v)) if v.is_integer() else str(v) for v in known.tolist())


def _checked(codes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    if codes.dtype.kind not in "iu" or (codes < 0).any() or (codes >= len(names)).any():
        raise ValueError(
            f"data: with the experiment_names {list(names)}, experiment must hold their codes, whole "
            f"numbers from 0 to {len(names) - 1}; without experiment_names it may hold any labels."
        )
    return codes
