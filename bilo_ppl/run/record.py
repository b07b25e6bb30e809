"""The record of a run: what was asked, what was done, how long it took; kept in run.json."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bilo_ppl._checkpoint import checkpoint_stage, current_checkpoint
from bilo_ppl._compile import compiler
from bilo_ppl._expected import costing
from bilo_ppl._files import replacing
from bilo_ppl._output import put
from bilo_ppl.plots.figure_file import Drawn, figure_of, save_figure
from bilo_ppl.run.folder import RunFolder
from bilo_ppl.run.forecasts import Forecasts

__all__ = ["Clock", "Record", "now", "plain", "version", "warn"]

_PACKAGES = (
    "bilo-ppl", "jax", "jaxlib", "numpyro", "equinox", "optax", "numpy", "scipy", "arviz", "h5netcdf",
    "h5py",
)  # fmt: skip

MOST_STAGES = 4
"""That the line on the CPU seconds names."""


def now() -> str:
    """Date and time of day (UTC), to a second, as in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def version(package: str) -> str:
    """Version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


class Clock:
    """CPU seconds of this process, wall seconds, and those of compilation, from now on."""

    def __init__(self):
        self.cpu, self.wall = time.process_time(), time.perf_counter()
        self.compiled = compiler().seconds

    def elapsed(self) -> tuple[float, float]:
        """``(cpu, wall)`` seconds."""
        return time.process_time() - self.cpu, time.perf_counter() - self.wall

    def compilation(self) -> float:
        """Wall seconds of compilation."""
        return compiler().seconds - self.compiled


class Record:
    """Contents of run.json; the file is written after every change of status, whole or not at all.

    ``record["name"] = value`` adds an entry. ``settings`` are a command's, with at least ``seed``,
    ``data``, ``data_seed`` and ``quiet``.
    """

    def __init__(self, folder: RunFolder, settings: Any):
        self.folder, self.settings = folder, settings
        self._found = compiler().found
        self.content: dict[str, Any] = {
            "status": "started",
            "started": now(),
            "command_line": sys.argv,
            "arguments": dataclasses.asdict(settings),
            "inputs": {},
            "files": [],
            "seeds": {"run": settings.seed, "data": None if settings.data else settings.data_seed},
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in _PACKAGES},
            "platform": {
                "host": platform.node(),
                "system": platform.platform(terse=True),
                "machine": platform.machine(),
                "backend": jax.default_backend(),
                "devices": jax.local_device_count(),
            },
            "cpu_seconds": {},
            "wall_seconds": {},
            "compile_seconds": {},
            "expected_seconds": {},
            "long_stages": {},
        }
        self.forecasts = Forecasts(self.content, warn)

    def read(self, name: str, path: str | os.PathLike) -> None:
        """Note which file was read, and the SHA-256 of what was in it."""
        content = Path(path).read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        self.content["inputs"][name] = {"path": os.fspath(path), "sha256": sha256}

    def __setitem__(self, name: str, value: Any) -> None:
        self.content[name] = value

    def say(self, *lines: str) -> None:
        """Print, unless the run is quiet."""
        if not self.settings.quiet:
            for line in lines:
                put(sys.stdout, line)

    def alarm(self, text: str) -> None:
        """Warn, also in quiet runs, and keep the warning: a reason to doubt the results."""
        warn(text)
        self.content.setdefault("alarms", []).append(f"WARNING: {text}")

    def status(self, text: str) -> None:
        """Write run.json with this status."""
        self.content["status"] = text
        self.content["written"] = now()
        checkpoint = current_checkpoint()
        if checkpoint is not None:
            self.content["checkpoint"] = checkpoint.cost
        path = self.folder.add("run.json")
        self.content["files"] = self.folder.files
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(plain(self.content), indent=2) + "\n")

    def path(self, name: str) -> Path:
        """Where to write a file of the results, such as ``figures/trace.png``.

        run.json lists it before it is there: whatever ends the process, a next run knows it.
        """
        path, new = self.folder.add(name), name not in self.content["files"]
        if new:
            self.status(self.content["status"])
        return path

    def draw(self, figures: Iterable[tuple[str, Drawn]], verdict: str = "") -> None:
        """Write figures one by one, by name, and say where they lie; the verdict stands above each."""
        title = f"{Path(self.settings.model).stem}: {verdict}"
        for name, drawn in figures:
            figure = figure_of(drawn)
            if verdict:
                below = figure.get_suptitle()
                figure.suptitle(f"{title}\n{below}" if below else title, fontsize="medium")
            # NumPyro's scopes put a slash into the names of sites.
            file = f"figures/{name.replace('/', '_')}.png"
            save_figure(figure, self.path(file))
            self.say(f"  {self.folder.path / file}")

    @contextmanager
    def stage(self, name: str, title: str = "", arithmetic: float = 0.0) -> Iterator[None]:
        """Time a stage, in CPU and wall seconds; what it says stands below its title.

        With what it should take, as far as that is known: see `Forecasts`.
        """
        started = Clock()
        checkpoint_stage(name)
        self.forecasts.found = compiler().found > self._found
        expected = self.forecasts.begin(name, lambda: started.elapsed()[1], arithmetic)
        if title:
            self.say(f"\n{title}{expected}")
        self.status(f"in {name}")
        try:
            with costing(self.forecasts.costs):
                yield
        finally:
            self.took(name, started)

    def took(self, name: str, started: "Clock") -> None:
        """Add the time since ``started`` to that of a stage, which may be done twice."""
        cpu, wall = started.elapsed()
        for key, seconds in (
            ("cpu_seconds", cpu),
            ("wall_seconds", wall),
            ("compile_seconds", started.compilation()),
        ):
            self.content[key][name] = round(self.content[key].get(name, 0.0) + seconds, 3)

    def times(self) -> str:
        """One line on the CPU seconds, and on the stages that took most of them."""
        cpu, wall = self.content["cpu_seconds"], self.content["wall_seconds"]
        most = sorted(cpu.items(), key=lambda stage: -stage[1])[:MOST_STAGES]
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in most)
        return (
            f"CPU seconds: {sum(cpu.values()):.1f} in all (wall {sum(wall.values()):.1f}, compilation "
            f"{sum(self.content['compile_seconds'].values()):.1f}); {parts}. All in run.json."
        )


def plain(value: Any) -> Any:
    """JSON values; numbers that are not finite become their names, since JSON has none."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return repr(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return str(value)


def warn(text: str) -> None:
    """Print a warning, also in quiet runs."""
    put(sys.stderr, f"WARNING: {text}")
