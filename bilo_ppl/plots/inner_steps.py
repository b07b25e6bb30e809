"""Inner solves of draws: how many steps they took, and where their losses ended."""

from typing import Any

import numpy as np

from bilo_ppl.diagnostics._draws import of_chains
from bilo_ppl.plots._style import COLOURS, FLAGGED, INK, axes_for, legend_above

__all__ = ["plot_inner_steps"]


def plot_inner_steps(
    inner_steps: Any, loss: Any, tolerance: float, *, axes: Any = None
) -> np.ndarray:
    """Inner steps, and final loss against the tolerance, of every draw: ``(chains, draws)``.

    Steps of different chains are set a little apart, so that none is hidden. Losses above the
    tolerance are marked and counted. On the logarithmic axis a loss of zero lies at the lower edge,
    one that is not finite at the upper. Returns both axes ``(2,)``. Raises a ``ValueError`` for arrays of
    two shapes.

    Examples:
        >>> from bilo_ppl.plots import plot_inner_steps
        >>> steps, losses = np.array([[0, 1, 2]]), np.array([[1e-8, 1e-7, 1e-7]])  # (chains, draws)
        >>> [ax.get_ylabel() for ax in plot_inner_steps(steps, losses, tolerance=1e-6)]
        ['inner steps', 'final loss']
    """
    steps = of_chains(inner_steps, "plot_inner_steps: inner_steps")
    loss = of_chains(loss, "plot_inner_steps: loss")
    if steps.shape != loss.shape:
        raise ValueError(
            f"plot_inner_steps: inner_steps has shape {steps.shape}, but loss {loss.shape}."
        )
    drawn = axes_for(axes, (2, 1), "plot_inner_steps", (6.4, 5.0), sharex=True)[:, 0]
    top, bottom = drawn
    number, placed = np.arange(steps.shape[1]), _on_log_axis(loss, tolerance)
    apart = np.linspace(-0.15, 0.15, len(steps)) if len(steps) > 1 else np.zeros(1)
    for chain in range(len(steps)):
        style = {"s": 9, "color": COLOURS[chain % len(COLOURS)], "alpha": 0.6, "linewidths": 0}
        label = f"chain {chain}" if chain < len(COLOURS) else None
        top.scatter(number, steps[chain] + apart[chain], label=label, **style)
        bottom.scatter(number, placed[chain], **style)
    plural = "" if steps.mean() == 1 else "s"
    none = f"; none for {np.mean(steps == 0):.0%}" if np.any(steps == 0) else ""
    several = len(steps) > 1
    apart_note = " (chains drawn apart)" if several else ""
    share = f"{steps.mean():.3g} inner step{plural} per draw{none}{apart_note}"
    top.set_title(share, fontsize="medium", loc="left", pad=22 if several else None)
    if several:
        legend_above(top, columns=5)
    top.set_ylabel("inner steps")
    # Room for whole numbers, also where all steps are the same.
    top.set_ylim(steps.min() - 0.5, max(steps.max(), steps.min() + 1) + 0.5)
    for axis in (top.xaxis, top.yaxis):
        axis.get_major_locator().set_params(integer=True)
    bottom.axhline(
        tolerance, color=INK, linestyle="--", linewidth=1.4, label=f"tolerance {tolerance:.3g}"
    )
    missed = ~(loss <= tolerance)
    if missed.any():
        label = f"above tolerance: {missed.sum()} of {loss.size}"
        where = np.broadcast_to(number, loss.shape)[missed]
        bottom.scatter(where, placed[missed], marker="x", s=28, color=FLAGGED, label=label)
    bottom.set(xlabel="draw", ylabel="final loss", yscale="log")
    legend_above(bottom, columns=2)
    return drawn


def _on_log_axis(loss: np.ndarray, tolerance: float) -> np.ndarray:
    """Losses with zeros and values that are not finite put at the edges."""
    inside = np.append(loss[np.isfinite(loss) & (loss > 0)], tolerance)
    high = np.where(np.isfinite(loss), loss, 10 * inside.max())
    return np.where(high > 0, high, inside.min() / 10)
