"""What a stage will take, said before it starts or as soon as it is known, and what is cheaper."""

from collections.abc import Callable
from typing import Any

from bilo_ppl._expected import LONG, Costs, Expected, duration
from bilo_ppl._progress import WORTH_SAYING
from bilo_ppl.inner.arithmetic import STEP_OF_A_FIT

__all__ = ["Forecasts"]

COMPILATION = {
    "adapt": ("pretrain", 8.0),
    "adapt again": ("pretrain", 8.0),
    "estimate": ("pretrain", 2.0),
    "warmup": ("pretrain", 2.0),
    "draws again": ("pretrain", 0.9),
    "certify": ("pretrain", 1.0),
    "figures": ("pretrain", 0.8),
}
"""An earlier stage, and how many times its seconds of compilation a stage takes: medians of the runs in
``benchmarks/results/defaults.json``, most of which are met within a factor of two."""

CHEAPER = {
    "pretrain": "fewer --points, a smaller --width, or a larger --tol",
    "adapt": "fewer --points, a smaller --width, a larger --tol, or --no-adapt",
    "adapt again": "fewer --points, a smaller --width, or a larger --tol",
    "estimate": "fewer --steps, --seeds or --points, or a smaller --width",
    "warmup": "fewer --warmup transitions, --chains or --points, or a larger --tol",
    "sampling": "fewer --samples (--ess 400 ends with so many), --chains or --points, or a larger --tol",
    "draws again": "fewer --samples, --chains or --points",
    "certify": "fewer --points, a smaller --width, or --no-certify",
}
"""What to ask for in the place of a stage that is long, by its name."""


class Forecasts:
    """Of the stages of one run, in its record ``content``: what is expected of them, and what is long.

    ``warn`` is told of a stage that would take more than half an hour, once.
    """

    def __init__(self, content: dict[str, Any], warn: Callable[[str], None]):
        self.content, self.warn = content, warn
        self.costs = Costs(self._hear)
        self.stage = ""
        self._elapsed: Callable[[], float] = float
        self.found = False
        """Whether compiled programs were found in a cache: then what others take is not known."""

    def begin(self, stage: str, elapsed: Callable[[], float], arithmetic: float = 0.0) -> str:
        """A stage, and the seconds since it began: what to say of its compilation and of the rest.

        ``arithmetic`` in the unit of `step_arithmetic`, where it is known.
        """
        self.stage, self._elapsed = stage, elapsed
        basis, ratio = COMPILATION.get(_kind(stage), ("", 0.0))
        seconds = ratio * self.content["compile_seconds"].get(basis, 0.0)
        # Other data sets use the programs of the first.
        before = [_kind(name) for name in self.content["compile_seconds"]]
        repeated = _kind(stage) == "estimate" and "estimate" in before
        said = ""
        if not self.found and not repeated and seconds >= WORTH_SAYING:
            self._entry["compilation"] = round(seconds, 1)
            said = f" Compilation: about {duration(seconds)}."
        then = self.costs.rates.get(STEP_OF_A_FIT, 0.0) * arithmetic
        if then >= WORTH_SAYING:
            label = f"the stage {stage}"
            self.costs.hear(Expected(label, "pass", 1, 1, False, then, then))
            said += f" {'Then a' if said else 'A'}bout {duration(then)}."
        return said

    @property
    def _entry(self) -> dict[str, Any]:
        return self.content["expected_seconds"].setdefault(self.stage, {"loops": []})

    def _hear(self, expected: Expected) -> None:
        seconds = {"seconds": round(expected.seconds, 2), "at_most": expected.at_most}
        self._entry["loops"].append({"label": expected.label, "units": expected.units, **seconds})
        total = self._elapsed() + expected.left
        long = self.content["long_stages"]
        if total > LONG and self.stage not in long:
            most = " at most" if expected.at_most else ""
            cheaper = CHEAPER.get(_kind(self.stage))
            long[self.stage] = (
                f"the stage {self.stage} would take over half an hour, about {duration(total)}{most} "
                f"({expected})." + (f" Cheaper: {cheaper}; Ctrl-C ends it." if cheaper else "")
            )
            self.warn(long[self.stage])


def _kind(stage: str) -> str:
    """The name of a stage, without the seed of an estimate."""
    return "estimate" if stage.startswith("estimate ") else stage
