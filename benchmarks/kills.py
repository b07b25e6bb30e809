"""Kill runs at random moments of all their stages, and look whether anything is lost.

    python benchmarks/kills.py models/poisson.py --kills 50 -- --chains 2 --warmup 200 --samples 1500

One run is left alone. Others are ended by SIGKILL, once in each stage of theirs at a random moment, and
gone on with by ``--resume`` each time, until they end by themselves: their draws must be those of the
first, bit for bit. For each kill its stage, and the seconds lost: since the last checkpoint, or since the
process began. ``--signal TERM`` ends them by SIGTERM, and says how long that took.
"""

import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from bilo_ppl.diagnostics import load

START = "start"
"""What a process does before its run has a folder: it imports, and checks what it was given."""

IN_VAIN = 3
"""Runs without a kill, one after the other, that are enough."""

POLLING = 0.02
"""Seconds between two looks at what a run is doing."""


def main() -> int:
    """Run it; 1 if draws differ."""
    parser = argparse.ArgumentParser(description="Kill runs again and again, and go on with them.")
    parser.add_argument("model")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--folder", help="where the runs go (default: a temporary folder)")
    parser.add_argument("--whole", help="folder of a run that was left alone, if there is one")
    parser.add_argument("--output", help="a JSON file for what was found")
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    asked, options = parser.parse_args(sys.argv[1:cut]), sys.argv[cut + 1 :]
    folder = pathlib.Path(asked.folder or tempfile.mkdtemp(prefix="bilo-kills-"))
    command = [sys.executable, "-m", "bilo_ppl", "run", asked.model, *options, "--quiet"]
    whole = pathlib.Path(asked.whole or folder / "whole")
    if asked.whole is None:
        subprocess.run([*command, "--out", str(whole)], check=True)
    seconds = json.loads((whole / "run.json").read_text())["wall_seconds"]
    moments, found = random.Random(asked.seed), []
    while (missing := asked.kills - sum(len(run["kills"]) for run in found)) > 0:
        out = folder / f"killed-{len(found)}"
        kills = _killed(command, out, _targets(moments, seconds, missing), asked.signal)
        content = json.loads((out / "run.json").read_text())
        same = _same(whole, out)
        found.append({"kills": kills, "identical": same, "resumed": content.get("resumed")})
        _write(asked, options, found)
        if not any(run["kills"] for run in found[-IN_VAIN:]):
            raise SystemExit("runs have ended before any kill: they are too short for this.")
    kills = [kill for run in found for kill in run["kills"]]
    worst = max(kill["lost_seconds"] for kill in kills)
    same = all(run["identical"] for run in found)
    print(f"{len(kills)} kills of {len(found)} runs, at most {worst:.1f} s lost; identical: {same}")
    return 0 if same else 1


def _targets(moments: random.Random, seconds: dict[str, float], most: int) -> list:
    """A moment of each stage, in their order: its name, and seconds after it has begun."""
    names = [START, *(name for name in seconds if name != "check")]
    lengths = seconds | {START: seconds["check"]}
    stages = sorted(moments.sample(range(len(names)), min(most, len(names))))
    return [(names[stage], moments.uniform(0.0, lengths[names[stage]])) for stage in stages]


def _killed(command: list[str], out: pathlib.Path, targets: list, signal_name: str) -> list[dict]:
    """Kill one run at the moments, as far as it meets them, then let it end."""
    kills = []
    for stage, after in targets:
        begun = time.time()
        process = _start(command, out)
        if not _wait(process, out, stage, after, begun):
            return kills
        kills.append({"aimed_at": stage} | _kill(process, signal_name, out, begun))
        print(kills[-1], flush=True)
    if status := _start(command, out).wait():
        raise SystemExit(f"the run has ended with status {status}")
    return kills


def _start(command: list[str], out: pathlib.Path) -> subprocess.Popen:
    again = [*command, "--out", str(out), "--resume"]
    return subprocess.Popen(again, stderr=subprocess.DEVNULL)


def _wait(process, out: pathlib.Path, stage: str, after: float, begun: float) -> bool:
    """Wait until a stage has gone on for some seconds; False if the process ends before."""
    until = begun + after if stage == START else None
    while process.poll() is None:
        if until is None and stage in _status(out, begun):
            until = time.time() + after
        if until is not None and time.time() >= until:
            return True
        time.sleep(POLLING)
    if process.returncode:
        raise SystemExit(f"the run has ended with status {process.returncode}")
    return False


def _status(out: pathlib.Path, begun: float) -> str:
    """What a process that began then says that it does."""
    record = out / "run.json"
    try:
        if record.stat().st_mtime < begun:
            return ""
        return json.loads(record.read_text())["status"]
    except (OSError, ValueError):
        return ""


def _write(asked, options: list[str], found: list[dict]) -> None:
    if asked.output:
        content = {"model": asked.model, "options": options, "signal": asked.signal, "runs": found}
        pathlib.Path(asked.output).write_text(json.dumps(content, indent=1) + "\n")


def _kill(process: subprocess.Popen, name: str, out: pathlib.Path, begun: float) -> dict:
    checkpoint, record = out / "checkpoint.bin", out / "run.json"
    process.send_signal(getattr(signal, f"SIG{name}"))
    now = time.time()
    process.wait()
    took = time.time() - now
    written = checkpoint.stat().st_mtime if checkpoint.exists() else now
    status = json.loads(record.read_text())["status"] if record.exists() else "not begun"
    return {
        "stage": status,
        "after": round(now - begun, 2),
        "lost_seconds": round(max(now - max(written, begun), 0.0), 2),
        "ended_after": round(took, 2),
        "status": process.returncode,
    }


def _same(whole: pathlib.Path, killed: pathlib.Path) -> bool:
    one, other = (load(path / "posterior.nc") for path in (whole, killed))
    groups = ("posterior", "sample_stats")
    return all(
        np.array_equal(one[group][name].values, other[group][name].values, equal_nan=True)
        for group in groups
        for name in one[group].data_vars
    )


if __name__ == "__main__":
    sys.exit(main())
