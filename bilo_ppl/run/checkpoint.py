"""The checkpoint of a run in its folder: which run it is of, and what has ended there.

A run goes on only with what it was begun with: other data, another seed or tolerance give other draws.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from bilo_ppl._checkpoint import Checkpoint, current_checkpoint, keeping
from bilo_ppl._log import Log, has_log
from bilo_ppl._snapshot import Saved
from bilo_ppl.run.folder import UNFINISHED
from bilo_ppl.run.listing import CHECKPOINT, listed
from bilo_ppl.run.plan import Plan
from bilo_ppl.run.record import Record, plain, version, warn
from bilo_ppl.run.settings import BadInputError

__all__ = ["as_before", "checkpoint_in", "find_run", "recall", "remember"]

MAY_DIFFER = ("samples", "ess", "seeds", "reweight", "groups", "quiet")
"""Settings that a run may go on with other values of: no draw depends on them."""

_BY_CONTENT = ("model", "data", "operator_file", "out", "overwrite", "resume")
"""Settings that say where files are, which are compared by what they hold, or not at all."""

_RUN = "run"
"""Key of what the run was begun with."""

_OWN = ("status", "arguments", "files", "versions", "platform", "long_stages", "resumed")
"""Entries of run.json that are of the process that writes it."""


def find_run(plan: Plan) -> list[str]:
    """With ``--resume``, make the folder go on with the run that is there; notes on how.

    Raises a ``ValueError`` where it was begun with other settings, or has no checkpoint.
    """
    if not plan.settings.resume:
        return []
    path = plan.folder.path
    found = [place for place in (path / UNFINISHED, path) if has_log(place / CHECKPOINT)]
    if not found:
        if listed(path) is not None:
            raise ValueError(
                f"--resume: the run in {path} has left no {CHECKPOINT}, so there is nothing to go on "
                "from. Choose another folder with --out, or replace it with --overwrite."
            )
        return [f"There is no run in {path} to go on with: it begins now."]
    now, refusals = _begun_with(plan), []
    for place in found:
        then = _read(place / CHECKPOINT)
        differing = _differences(then, now)
        if not differing:
            plan.folder.go_on_in(place)
            return _other_versions(then, now)
        refusals.append(
            f"--resume: the run in {place} was begun with other settings:\n  "
            + "\n  ".join(differing)
            + f"\nOnly {_listed(plan.settings)} may differ. Give the others as they were, choose another "
            "folder with --out, or replace the run with --overwrite."
        )
    raise ValueError(refusals[0])


@contextlib.contextmanager
def checkpoint_in(plan: Plan) -> Iterator[Checkpoint]:
    """The checkpoint of a run, in its folder, for all that is done within."""
    path = plan.folder.add(CHECKPOINT)
    checkpoint = Checkpoint(Log(path, anew=not plan.folder.goes_on), warn)
    try:
        if checkpoint.recall(_RUN) is None:
            checkpoint.remember(_RUN, _begun_with(plan))
        with keeping(checkpoint):
            yield checkpoint
    finally:
        checkpoint.close()


def remember(record: Record, name: str, notes: Mapping[str, Any], tree: Any = ()) -> None:
    """Keep the result of a stage that has ended, with the record so far."""
    checkpoint = current_checkpoint()
    if checkpoint is not None:
        content = {k: v for k, v in plain(record.content).items() if k not in _OWN}
        checkpoint.remember(name, {"own": dict(notes), "content": content}, tree)


def recall(record: Record, name: str) -> Saved | None:
    """The result of a stage that has ended before; the record is what it was then."""
    checkpoint = current_checkpoint()
    found = None if checkpoint is None else checkpoint.recall(name)
    if found is not None:
        record.content |= found.notes["content"]
        record.content.setdefault("resumed", []).append(name)
    return found


def as_before(name: str, value: int) -> int:
    """A number that a run has chosen when it began, or this one if it begins now."""
    checkpoint = current_checkpoint()
    if checkpoint is None:
        return value
    found = checkpoint.recall(name)
    if found is None:
        checkpoint.remember(name, {"value": value})
        return value
    return found.notes["value"]


def _begun_with(plan: Plan) -> dict[str, Any]:
    """All that the draws depend on, as JSON values."""
    settings, data = plan.settings, plan.observations
    asked = plain(dataclasses.asdict(settings))
    arrays = jax.tree.leaves((data.model_args, data.model_kwargs))
    return {
        "settings": {
            name: value for name, value in asked.items() if name not in (*MAY_DIFFER, *_BY_CONTENT)
        },
        "contents": {
            "the model file": _hash_of_file(plan.file.path),
            "the data": _hash_of(np.asarray(array).tobytes() for array in arrays),
            "the operator file": _hash_of_file(settings.operator_file),
        },
        "versions": {name: version(name) for name in ("bilo-ppl", "jax", "jaxlib", "numpyro")}
        | {"backend": jax.default_backend(), "devices": str(jax.local_device_count())},
    }


def _read(path: pathlib.Path) -> Mapping[str, Any]:
    log = Log(path)
    try:
        record = log.get(_RUN)
    finally:
        log.close()
    # A process that ended before it had written that had done nothing else.
    return {} if record is None else record.notes


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    if not then:
        return []
    before, after = then["settings"], now["settings"]
    found = [
        f"{name}: {before.get(name)} then, {after.get(name)} now"
        for name in {**before, **after}
        if name not in MAY_DIFFER and before.get(name) != after.get(name)
    ]
    changed = [k for k, v in now["contents"].items() if then["contents"].get(k) != v]
    return [*found, *(f"{name}: of other content" for name in changed)]


def _other_versions(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = then.get("versions", {}), now["versions"]
    other = [f"{k} {old.get(k)}, now {v}" for k, v in new.items() if old and old.get(k) != v]
    if not other:
        return []
    return [
        f"The run was begun with {'; '.join(other)}: what it goes on with may differ in the last digits "
        "from what it would have been."
    ]


def _listed(settings: Any) -> str:
    names = [f"--{name}" for name in MAY_DIFFER if hasattr(settings, name)]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _hash_of(parts: Any) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _hash_of_file(path: str | os.PathLike | None) -> str | None:
    if path is None:
        return None
    try:
        return _hash_of([pathlib.Path(path).read_bytes()])
    except OSError as error:
        raise BadInputError(f"cannot read {path} ({error.strerror or error}).") from error
