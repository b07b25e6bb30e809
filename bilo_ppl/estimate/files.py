"""Save an estimate, and read back what `find_map` goes on from.

The file is one line of JSON followed by Equinox's serialised leaves.
"""

import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from bilo_ppl.estimate.loop import MapState
from bilo_ppl.estimate.result import Estimate, History

__all__ = ["check_same", "load_state", "save_estimate"]

FORMAT = "bilo_ppl estimate 1"


def save_estimate(path: str | Path, estimate: Estimate) -> None:
    """Write the state and the history of an estimate: ``find_map(..., resume=path)`` goes on.

    The file appears whole or not at all.
    """
    history = estimate.history
    header = {
        "format": FORMAT,
        "steps": history.steps,
        "status": estimate.status,
        "state": _leaves(estimate.state),
        "recorded": _leaves(history),
    }
    temporary = Path(f"{path}.part")
    with temporary.open("wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        eqx.tree_serialise_leaves(file, (estimate.state, history))
    os.replace(temporary, path)


def load_state(path: str | Path, like: MapState) -> tuple[MapState, History]:
    """Read the state and the history of a file by `save_estimate`.

    ``like`` is the first state of the run that is to go on. Raises a ``ValueError`` if the file is
    not of this kind, or was written for another model, operator, method or optimiser.
    """
    with Path(path).open("rb") as file:
        header = _header(file.readline(), path)
        _compare(_leaves(like), header["state"], str(path))
        recorded = [(name, tuple(shape), kind) for name, shape, kind in header["recorded"]]
        try:
            state, history = eqx.tree_deserialise_leaves(file, (like, _blank(recorded)))
        except Exception as error:  # Equinox raises several kinds, with internal messages.
            raise ValueError(
                f"{path}: the arrays do not fit the header ({error}); the file is damaged."
            ) from error
    return state, history


def check_same(like: MapState, state: MapState) -> None:
    """Raise a ``ValueError`` unless a state has the arrays that this run's states have."""
    _compare(_leaves(like), _leaves(state), "the estimate to resume from")


def _leaves(tree: Any) -> list[list[Any]]:
    """Name, shape and type of every array."""
    return [
        [jax.tree_util.keystr(where), list(np.shape(leaf)), np.dtype(leaf.dtype).name]
        for where, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _compare(wanted: list[list[Any]], found: list[list[Any]], source: str) -> None:
    if wanted == found:
        return
    missing = [leaf for leaf in wanted if leaf not in found]
    other = [leaf for leaf in found if leaf not in wanted]
    raise ValueError(
        f"find_map: {source} belongs to another run: this one needs {missing[:2]}, it has "
        f"{other[:2]}. Resume with the same model, operator, method and optimizer, and in the same "
        "precision."
    )


def _header(line: bytes, path: str | Path) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path} is not an estimate file of this version (expected {FORMAT!r}).")
    return header


def _blank(recorded: list[tuple[str, tuple[int, ...], str]]) -> History:
    """A history of the recorded shapes, to be overwritten."""
    fields: dict[str, Any] = {"values": {}}
    for where, shape, kind in recorded:
        blank = np.zeros(shape, kind)
        if where.startswith(".values["):
            fields["values"][where[len(".values['") : -2]] = blank
        else:
            fields[where[1:]] = blank
    return History(**fields)
