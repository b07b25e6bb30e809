"""How far a loop is, for a person: a bar on a terminal, elsewhere a line."""

import contextlib
import sys
import time
from typing import Any

from tqdm import tqdm

from bilo_ppl._expected import Expected
from bilo_ppl._output import put

__all__ = ["Progress", "tell"]

WORTH_SAYING = 1.0
"""Seconds to come that are announced."""


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def tell(line: str) -> None:
    """A line to stderr, below the bar if there is one."""
    if sys.stderr is None:
        return
    # The bar, if there is one, stands in the last line.
    text = f"\n{line}\n" if _on_terminal() else f"{line}\n"
    # A handler may have come in the middle of another write, into which this one must not go.
    with contextlib.suppress(RuntimeError):
        put(sys.stderr, text, end="")


class Progress:
    """A bar on a terminal; elsewhere one line at the end."""

    def __init__(self, total: int, label: str, unit: str, shown: bool):
        self.label, self.unit, self.begun = label, unit, time.perf_counter()
        self.done, self.text, self.interrupted = 0, "", False
        self._before = 0
        terminal, self._shown = _on_terminal(), shown
        self._line = shown and total > 0 and not terminal
        self._bar = tqdm(
            total=total, desc=label, unit=unit, file=sys.stderr, disable=not (shown and terminal)
        )

    def __enter__(self) -> "Progress":
        return self

    def resume(self, done: int) -> None:
        """Some of the work was done before."""
        self._before = done
        self._bar.update(done)

    def update(self, done: int, text: str) -> None:
        """Show how far the work is."""
        self.done, self.text = done, text
        self._bar.update(done - self._bar.n)
        self._bar.set_postfix_str(text)

    def expect(self, expected: Expected | None) -> None:
        """Say what the work will take, unless that is next to nothing."""
        if self._shown and expected is not None and expected.left >= WORTH_SAYING:
            if self._bar.disable:
                tell(str(expected))
            else:
                self._bar.write(str(expected), file=sys.stderr)

    def __exit__(self, kind: Any, *exc_info) -> None:
        self._bar.close()
        if kind is None and self._line:
            units = self.unit if self.done == 1 else f"{self.unit}s"
            after = "interrupted after " if self.interrupted else ""
            text = f", {self._before} of them before" if self._before else ""
            text += f", {self.text}" if self.text else ""
            seconds = time.perf_counter() - self.begun
            tell(f"{self.label}: {after}{self.done} {units}{text} ({seconds:.1f} s)")
