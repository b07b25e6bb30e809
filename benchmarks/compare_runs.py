"""Two runs of the same model by ``bilo-ppl run`` side by side: means, sds, cost, certificates.

    python -m bilo_ppl run darcy --fine-tune output-layer --out runs/features
    python -m bilo_ppl run darcy --operator numerical --out runs/numerical
    python benchmarks/compare_runs.py runs/features runs/numerical [--out FILE.json]

The second run is the reference. A mean agrees where it is off by at most 4 Monte Carlo standard errors of
both runs and 0.1 posterior sd; an sd agrees within 15 %. Nothing is solved.
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np

from bilo_ppl import diagnostics
from bilo_ppl.diagnostics._draws import scalar_draws
from bilo_ppl.diagnostics.results import chain_diagnostics

STANDARD_ERRORS, OF_SD, SPREAD = 4.0, 0.1, 0.15


class Run:
    """What a run has left in its folder."""

    def __init__(self, folder: str):
        self.folder = pathlib.Path(folder)
        self.record = json.loads((self.folder / "run.json").read_text())
        idata = diagnostics.load(self.folder / "posterior.nc")
        posterior = {name: v.values for name, v in idata["posterior"].data_vars.items()}
        self.draws = scalar_draws(posterior)
        self.steps = idata["sample_stats"]["n_steps"].values
        self.diverging = int(idata["sample_stats"]["diverging"].values.sum())
        self.checks = {name: chain_diagnostics(draws) for name, draws in self.draws.items()}

    @property
    def ess(self) -> np.ndarray:
        """Effective sample size by entry."""
        return np.array([min(c.ess_bulk, c.ess_tail) for c in self.checks.values()])

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, sd, and Monte Carlo standard error of the mean, by entry."""
        draws = np.stack([np.ravel(d) for d in self.draws.values()])
        sd = draws.std(axis=1, ddof=1)
        bulk = np.array([check.ess_bulk for check in self.checks.values()])
        return draws.mean(axis=1), sd, sd / np.sqrt(bulk)

    def summary(self) -> dict[str, Any]:
        """Cost and quality of the run."""
        seconds = self.record["cpu_seconds"]
        return {
            "run": self.folder.name,
            "draws": list(self.steps.shape),
            "ess_least": float(self.ess.min()),
            "ess_median": float(np.median(self.ess)),
            "r_hat_largest": max(float(check.r_hat) for check in self.checks.values()),
            "diverging": self.diverging,
            "gradients_per_draw": float(self.steps.mean()),
            "cpu_seconds": {name: round(value, 1) for name, value in seconds.items()},
            "cpu_seconds_in_all": float(sum(seconds.values())),
            "certificates": {
                name: found["verdict"]
                for name, found in self.record.get("certificates", {}).items()
            },
        }


def compared(one: Run, two: Run) -> dict[str, Any]:
    """Moments of the first run against those of the second."""
    if list(one.draws) != list(two.draws):
        raise SystemExit(f"the runs have other unknowns: {list(one.draws)}, {list(two.draws)}.")
    (mean, sd, error), (mean2, sd2, error2) = one.moments(), two.moments()
    off, errors = np.abs(mean - mean2), np.hypot(error, error2)
    agree = off <= STANDARD_ERRORS * errors + OF_SD * sd2
    ratio = sd / sd2
    return {
        "entries": len(off),
        "means_agree": int(agree.sum()),
        "mean_largest_in_sd": float((off / sd2).max()),
        "mean_rms_in_errors": float(np.sqrt(np.mean((off / errors) ** 2))),
        "sds_agree": int((np.abs(ratio - 1) <= SPREAD).sum()),
        "sd_ratio": [float(ratio.min()), float(ratio.max())],
    }


def main() -> None:
    """Print and write the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs=2, metavar="FOLDER")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    one, two = map(Run, arguments.runs)
    found = {"runs": [one.summary(), two.summary()], "compared": compared(one, two)}
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.out:
        pathlib.Path(arguments.out).write_text(text + "\n")


if __name__ == "__main__":
    main()
