"""Kill a run again and again, at random moments, and look whether anything is lost.

    python benchmarks/kills.py models/poisson.py --kills 10 -- --chains 2 --warmup 60 --samples 200

One run is left alone. Another is ended by SIGKILL at random moments and gone on with by ``--resume`` each
time, until it ends by itself: its draws must be those of the first, bit for bit. For each kill the stage,
and the seconds that are lost: since the last checkpoint, or since the process began. ``--signal TERM``
ends it by SIGTERM, and says how long that took.
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


def main() -> int:
    """Run it; 1 if draws differ."""
    parser = argparse.ArgumentParser(description="Kill a run again and again, and go on with it.")
    parser.add_argument("model")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--folder", help="where the runs go (default: a temporary folder)")
    parser.add_argument("--whole", help="folder of a run that was left alone, if there is one")
    parser.add_argument(
        "--most", type=float, help="seconds after which a process is killed, at most"
    )
    parser.add_argument("--output", help="a JSON file for what was found")
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    asked, options = parser.parse_args(sys.argv[1:cut]), sys.argv[cut + 1 :]
    folder = pathlib.Path(asked.folder or tempfile.mkdtemp(prefix="bilo-kills-"))
    command = [sys.executable, "-m", "bilo_ppl", "run", asked.model, *options, "--quiet"]
    begun = time.monotonic()
    whole = pathlib.Path(asked.whole or folder / "whole")
    if asked.whole is None:
        subprocess.run([*command, "--out", str(whole)], check=True)
    most = asked.most or max(8.0, 0.5 * (time.monotonic() - begun))
    kills = _killed(command, folder / "killed", asked, most)
    same = _same(whole, folder / "killed")
    content = json.loads((folder / "killed" / "run.json").read_text())
    found = {
        "model": asked.model,
        "options": options,
        "signal": asked.signal,
        "kills": kills,
        "identical": same,
        "resumed": content.get("resumed"),
    }
    if asked.output:
        pathlib.Path(asked.output).write_text(json.dumps(found, indent=2) + "\n")
    worst = max((kill["lost_seconds"] for kill in kills), default=0.0)
    print(f"{len(kills)} kills, at most {worst:.1f} s since a checkpoint; identical: {same}")
    return 0 if same else 1


def _killed(command: list[str], out: pathlib.Path, asked, most: float) -> list[dict]:
    """Kill the run as often as asked for, then let it end."""
    moments, kills = random.Random(asked.seed), []
    number = getattr(signal, f"SIG{asked.signal}")
    while True:
        again = [*command, "--out", str(out), "--resume"]
        begun, process = time.time(), subprocess.Popen(again, stderr=subprocess.DEVNULL)
        try:
            after = moments.uniform(2.0, most) if len(kills) < asked.kills else None
            status = process.wait(after)
        except subprocess.TimeoutExpired:
            kills.append(_kill(process, number, out, begun))
            print(kills[-1], flush=True)
            continue
        if status:
            raise SystemExit(f"the run has ended with status {status}")
        if len(kills) < asked.kills:
            print(f"it has ended after {len(kills)} kills")
        return kills


def _kill(process: subprocess.Popen, number: int, out: pathlib.Path, begun: float) -> dict:
    checkpoint, record = out / "checkpoint.bin", out / "run.json"
    process.send_signal(number)
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
