"""What a page says of point estimates: values, what solved for them, how far they may be off."""

from collections.abc import Mapping
from typing import Any

from bilo_ppl._units import labelled
from bilo_ppl.run.report.html import section, table, text

__all__ = ["certified", "estimated"]


def estimated(estimates: Mapping[str, Any] | None, units: Mapping[str, str] | None) -> str:
    """A row for each data set, with what its descent has taken, and the errors over all of them.

    ``estimates`` is the content of map.json.
    """
    if not estimates:
        return ""
    thetas = [{k: v for k, v in theta.items() if _plain(v)} for theta in estimates.get("theta", ())]
    names = list(thetas[0]) if thetas else []
    seeds = estimates.get("seeds", ())
    unknown = [None] * len(seeds)
    columns = {
        "steps": estimates["steps"],
        "inner steps": estimates.get("inner_steps") or unknown,
        "PDE loss": (estimates.get("inner_loss") or {}).get("values") or unknown,
        "end": estimates["status"],
    }
    rows = [
        [f"data seed {seed}", *(theta.get(name) for name in names), *rest]
        for seed, theta, *rest in zip(seeds, thetas, *columns.values(), strict=False)
    ]
    errors = estimates.get("relative_error") or {}
    if of_u := estimates.get("u_relative_error"):
        errors = {**errors, "u, against the numerical solution there": of_u}
    mean = [[k, _percent(v["mean"]), _percent(v["sd"])] for k, v in errors.items()]
    return section(
        "Point estimates",
        table(["", *(labelled(name, units) for name in names), *columns], rows),
        table(["relative error", "mean", "sd"], mean) if mean else "",
    )


def certified(certificate: Mapping[str, Any], missing: str | None) -> str:
    """What a tighter solve would change in an estimate: as it was said, and by unknown; or why that is
    ``missing``.
    """
    said, shifts = certificate.get("text", missing), certificate.get("shifts")
    return (f"<p>{text(said)}</p>" if said else "") + (
        table(["estimate of", "a tighter solve moves it by (sd)"], shifts.items()) if shifts else ""
    )


def _percent(value: float | None) -> str | None:
    """One data set has no standard deviation."""
    return None if value is None else f"{100 * value:.3g} %"


def _plain(value: Any) -> bool:
    return isinstance(value, (int, float))
