"""The folder of a run's results, in which nothing is lost that the run was not told to replace."""

import contextlib
import errno
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator

from filelock import Timeout

from bilo_ppl._blocks import Interrupts
from bilo_ppl._files import replacing
from bilo_ppl._log import has_log
from bilo_ppl._output import put
from bilo_ppl.run.listing import CHECKPOINT, RESULTS, listed, present, remove
from bilo_ppl.run.lock import held, is_held
from bilo_ppl.run.settings import BadInputError, RunFailedError

__all__ = ["UNFINISHED", "RunFolder"]

UNFINISHED = "unfinished"
"""Subfolder for the files of a run that is to replace an earlier one, until it has ended."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""What a disk says that takes no more."""

SHOWN = 6
"""Files that a message names at most."""


class RunFolder:
    """Where a run writes: the results of an earlier run stay until there are new ones.

    ``written`` are patterns of all names that the run may write, ``inputs`` the files that it reads.
    With ``resume`` the folder may hold a run; `go_on_in` says where its files, and the new ones, lie.

    `check` refuses a folder without touching it. Within ``with folder:`` no other run writes there, and
    `add` says where a file goes: into ``path``, or, where an earlier run has left its results, into
    ``path/unfinished``. At the end the new files take the place of the old ones, if draws or estimates
    are among them. Only files are replaced or removed that an earlier run has listed in its run.json,
    and no input.
    """

    def __init__(
        self,
        path: pathlib.Path,
        *,
        written: Iterable[str],
        inputs: Iterable[str | os.PathLike] = (),
        overwrite: bool = False,
        resume: bool = False,
    ):
        self.path, self.work = path, path
        self._resume = resume
        self.goes_on = False
        """Whether a run is there that goes on."""
        self._may_write, self._overwrite = tuple(written), overwrite
        self._inputs = [pathlib.Path(file) for file in inputs]
        self._files: set[str] = set()
        self._kept: set[str] = set()
        self._lock = contextlib.ExitStack()

    def __str__(self) -> str:
        """Where the files lie in the end."""
        return str(self.path if self._has_results() else self.work)

    @property
    def files(self) -> list[str]:
        """Names of the files of this run, and of inputs that an earlier run had written here."""
        return sorted(self._files | self._kept)

    def add(self, name: str) -> pathlib.Path:
        """Where to write a file of the run."""
        self._files.add(name)
        return self.work / name

    def check(self) -> None:
        """Raise a `BadInputError` if the run must not or cannot write there; nothing is touched."""
        with self._writing(BadInputError):
            if is_held(self.path):
                raise self._in_use()
            self._check_files()

    def go_on_in(self, place: pathlib.Path) -> None:
        """Write to where the files of an earlier run are, as that run itself."""
        self.work, self.goes_on = place, True

    def __enter__(self) -> "RunFolder":
        with self._writing(BadInputError), contextlib.ExitStack() as undo:
            _make(self.path, undo)
            try:
                undo.enter_context(held(self.path))
            except Timeout as error:
                raise self._in_use() from error
            # Another run may have ended since the check.
            self._check_files()
            self._begin()
            self._lock = undo.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # The lock goes in any case, and with it the folders that are empty.
        with self._lock, self._writing(RunFailedError), Interrupts() as interrupts:
            with interrupts.deferring(""):
                self._end()
            if isinstance(error, OSError) and self._concerns(error):
                raise error

    def _begin(self) -> None:
        if self.goes_on:
            self._files = set(listed(self.work) or ()) - {"run.json"}
            self._kept = {name for name in self._files if self._is_input(self.work / name)}
            return
        earlier = listed(self.path)
        if earlier is None:
            return
        self._kept = {name for name in earlier if self._is_input(self.path / name)}
        self.work = self.path / UNFINISHED
        remove(self.work, listed(self.work) or (), self._is_input)
        self.work.mkdir(exist_ok=True)

    def _end(self) -> None:
        if self.work == self.path:
            return
        if self._has_results():
            try:
                self._publish()
            except OSError as error:
                raise RunFailedError(
                    f"the new results cannot take the place of those in {self.path} "
                    f"({error.strerror or error}); what has not been moved lies in {self.work}."
                ) from error
            return
        put(
            sys.stderr,
            f"bilo-ppl: the earlier results in {self.path} are as they were; what this run has "
            f"written lies in {self.work}.",
        )

    def _has_results(self) -> bool:
        return any((self.work / name).is_file() for name in RESULTS)

    def _publish(self) -> None:
        """Put the new files in the place of the old ones, run.json last."""
        earlier = listed(self.path) or frozenset()
        new = {name for name in self._files if (self.work / name).is_file()} - {"run.json"}
        # Whatever ends the process here: run.json lists what a next run may replace.
        self._rewrite_record(sorted(earlier | new))
        for name in sorted(new):
            (self.path / name).parent.mkdir(exist_ok=True)
            os.replace(self.work / name, self.path / name)
        remove(self.path, earlier - new - {"run.json"}, self._is_input)
        os.replace(self.work / "run.json", self.path / "run.json")
        for folder in (self.work / "figures", self.work):
            with contextlib.suppress(OSError):
                folder.rmdir()
        self.work = self.path

    def _rewrite_record(self, files: list[str]) -> None:
        path = self.path / "run.json"
        content = json.loads(path.read_text())
        content |= {"status": "being replaced by another run", "files": files}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")

    def _check_files(self) -> None:
        earlier = listed(self.path)
        if earlier is not None and not (self._overwrite or self._resume):
            unended = ", --resume to go on with it" if self._has_checkpoint() else ""
            raise BadInputError(
                f"{self.path} holds the results of another run; choose another folder with --out, or "
                f"give --overwrite to replace them{unended}."
            )
        if self._resume and self._has_checkpoint():
            # It is there before anything lists it.
            earlier = (earlier or frozenset()) | {CHECKPOINT}
        self._check_place(self.path, earlier)
        if earlier is not None:
            work = self.path / UNFINISHED
            self._check_place(work, listed(work))

    def _check_place(self, place: pathlib.Path, own: frozenset[str] | None) -> None:
        """Refuse a folder in which the run would replace what no earlier run has written."""
        if _is_no_folder(place):
            raise BadInputError(f"{place} is a file; choose another folder with --out.")
        there = present(place, self._may_write)
        for name in there:
            if self._is_input(place / name):
                raise BadInputError(
                    f"{place / name} is an input of this run, which would write a file of that name; "
                    "choose another folder with --out."
                )
        foreign = [n for n in there if n not in (own or ()) or (place / n).is_dir()]
        foreign += ["figures"] if _is_no_folder(place / "figures") else []
        if foreign:
            more = f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else ""
            raise BadInputError(
                f"{place} holds files that no run has listed as its results and that this one would "
                f"replace: {', '.join(foreign[:SHOWN])}{more}. Move them, or choose another folder "
                "with --out."
            )
        for folder in (place, place / "figures"):
            if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
                raise BadInputError(_cannot_write(folder, "Permission denied"))

    def _has_checkpoint(self) -> bool:
        return any(has_log(place / CHECKPOINT) for place in (self.path, self.path / UNFINISHED))

    def _is_input(self, path: pathlib.Path) -> bool:
        return any(file.exists() and path.exists() and path.samefile(file) for file in self._inputs)

    def _concerns(self, error: OSError) -> bool:
        """Whether an error is about the folder, or the disk that it is on."""
        named = pathlib.Path(os.fspath(error.filename)) if error.filename else None
        return error.errno in FULL or (named is not None and self.path in named.parents)

    def _in_use(self) -> BadInputError:
        return BadInputError(
            f"another run is writing to {self.path} now; wait until it has ended, or choose another "
            "folder with --out."
        )

    @contextlib.contextmanager
    def _writing(self, kind: type[Exception]) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise kind(_cannot_write(self.path, error.strerror or error)) from error


def _cannot_write(folder: pathlib.Path, reason: object) -> str:
    return f"cannot write to {folder} ({reason}); choose another folder with --out."


def _is_no_folder(path: pathlib.Path) -> bool:
    return os.path.lexists(path) and not path.is_dir()


def _make(folder: pathlib.Path, undo: contextlib.ExitStack) -> None:
    """Make a folder and those above it, to be removed by ``undo`` if they are empty then."""

    def remove_empty(made: pathlib.Path) -> None:
        with contextlib.suppress(OSError):
            made.rmdir()

    for path in reversed([folder, *folder.parents]):
        if not path.exists():
            path.mkdir(exist_ok=True)
            undo.callback(remove_empty, path)
