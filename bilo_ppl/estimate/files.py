"""Save an estimate, and read back what `find_map` goes on from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bilo_ppl._leaves import read_header, read_leaves, write_leaves
from bilo_ppl.estimate.loop import MapState
from bilo_ppl.estimate.result import Estimate, History

__all__ = ["check_same", "load_state", "save_estimate"]

FORMAT = "bilo_ppl estimate 2"


def save_estimate(path: str | Path, estimate: Estimate) -> None:
    """Write the state and the history of an estimate: ``find_map(..., resume=path)`` goes on.

    The file appears whole or not at all.

    Examples:
        >>> bilo.save_estimate(folder / "estimate.bin", estimate)
        >>> again = bilo.find_map(
        ...     model, key, operator, x, y, resume=folder / "estimate.bin", progress=False
        ... )
        >>> abs(float(again.values["r"] - estimate.values["r"])) < 0.01
        True
    """
    history = estimate.history
    header = {
        "format": FORMAT,
        "steps": history.steps,
        "status": estimate.status,
        "state": _leaves(estimate.state),
        "recorded": _leaves(history),
    }
    write_leaves(path, header, (estimate.state, history))


def load_state(path: str | Path, like: MapState) -> tuple[MapState, History]:
    """Read the state and the history of a file by `save_estimate`.

    ``like`` is the first state of the run that is to go on. Raises a ``ValueError`` if the file is
    not of this kind, or was written for another model, operator, method or optimiser.
    """
    with Path(path).open("rb") as file:
        header = read_header(file, FORMAT)
        found = header.get("state")
        if not isinstance(found, list):
            raise ValueError(f"{path}: its header has no state; the file is damaged.")
        _compare(_leaves(like), found, f"the estimate {path}")
        blank = _recorded(header, path)
        state, history = read_leaves(file, (like, blank), header)
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
        f"find_map: {source} belongs to another run: this one needs {missing[:2]}, it has {other[:2]}. "
        "Take the same model, operator, method and optimizer."
    )


def _recorded(header: Mapping[str, Any], path: str | Path) -> History:
    """A history of the shapes in a header; a ``ValueError`` if these are none."""
    try:
        found = [(str(n), tuple(map(int, s)), str(k)) for n, s, k in header["recorded"]]
        if sum(int(np.prod(s, dtype=object)) for _, s, _ in found) > Path(path).stat().st_size:
            raise ValueError("it is longer than the file")
        if any(np.dtype(kind).hasobject for _, _, kind in found):
            raise ValueError("it has objects")
        return _blank(found)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: its header has no history ({error}); the file is damaged."
        ) from error


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
