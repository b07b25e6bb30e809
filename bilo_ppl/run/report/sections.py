"""What a page says of a run, section by section, from the content of its run.json."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bilo_ppl._units import labelled
from bilo_ppl.run.report.comparison import chosen, compared, ended, spent
from bilo_ppl.run.report.estimates import certified, estimated
from bilo_ppl.run.report.html import figure, number, page, prose, section, table, text

__all__ = ["run_page"]

CAPTIONS = {
    "posterior": "Draws of every unknown, beside the prior, and the exact posterior where there is one.",
    "posteriors": "Posteriors by every method, of the first data, with medians and 5 to 95 % below; "
    "vertical lines are estimates.",
    "solution": "The solution at the draws or the estimate, and the data.",
    "residual": "What is left of the equation over the domain: root mean square over draws, or of the "
    "estimate, in the units of the residual.",
    "predictive": "Data, over the intervals that the model predicts for them, noise included.",
    "pair": "Unknowns against each other; dotted: 5 to 95 %.",
    "trace": "The chains, draw by draw: they should look alike and have no trend.",
    "descent": "U and the gradient along the descents.",
    "inner_steps": "Steps of the inner solver at the draws, and what is left of the loss.",
}

ARROW = "→"


def run_page(content: Mapping[str, Any], folder: Path, estimates: Mapping[str, Any] | None) -> str:
    """The page of a run whose run.json has this content and whose figures lie in a folder.

    ``estimates`` is the content of map.json, of a run of ``bilo-ppl map``.
    """
    arguments = content.get("arguments", {})
    name = Path(str(arguments.get("model", "run"))).stem
    problem, methods = content.get("problem", {}), content.get("methods")
    body = "".join(
        [
            f"<h1>{text(problem.get('title') or name)}</h1>\n",
            f'<p class="soft">{text(name)} · {text(content.get("started", ""))} · bilo_ppl '
            f"{text(content.get('versions', {}).get('bilo-ppl', ''))}</p>\n",
            _verdict(content) if methods is None else ended(methods, content["status"]),
            _problem(problem),
            "" if methods is None else compared(methods, content.get("legend", ())),
            _draws(content),
            estimated(estimates, problem.get("units")),
            _figures(content, folder, estimates),
            _exact(content),
            _certificates(content),
            _solves(content),
            _settings(content) if methods is None else chosen(content),
            # Methods run in processes of their own.
            _time(content) if methods is None else spent(content),
            _again(content),
        ]
    )
    state = "none" if methods is None else "comparison"
    state = content.get("verdict", {}).get("state", state)
    return page(f"{name}: {state}", body, {"generator": "bilo_ppl"})


def _verdict(content: Mapping[str, Any]) -> str:
    verdict = content.get("verdict")
    if verdict is None:
        said = f"No verdict: the run is {content.get('status', 'of unknown status')}."
        return f'<div class="verdict none"><strong>{text(said)}</strong></div>\n'
    parts = [f"<strong>{text(verdict['text'])}</strong>"]
    warnings = [*content.get("alarms", ())]
    parts += [f"<p>{text(warning)}</p>" for warning in warnings]
    if advice := verdict.get("advice"):
        items = "".join(f"<li>{text(one)}</li>" for one in advice)
        parts.append(f"<p>What to do:</p><ul>{items}</ul>")
    return f'<div class="verdict {text(verdict["state"])}">{"".join(parts)}</div>\n'


def _problem(problem: Mapping[str, Any]) -> str:
    body = prose(problem["text"]) if problem.get("text") else ""
    unknowns = (labelled(name, problem.get("units")) for name in problem.get("unknowns", ()))
    lines = [("Unknown", ", ".join(unknowns)), ("Data", problem.get("data"))]
    said = "".join(f"<p>{name}: {text(value)}</p>" for name, value in lines if value)
    return section("Problem", body, said)


def _draws(content: Mapping[str, Any]) -> str:
    rows, units = content.get("summary") or {}, content.get("problem", {}).get("units")
    heads = list(next(iter(rows.values()), {}))
    named = [[labelled(name, units), *row.values()] for name, row in rows.items()]
    return section("Posterior", table(["", *heads], named)) if rows else ""


def _figures(content: Mapping[str, Any], folder: Path, estimates: Mapping[str, Any] | None) -> str:
    shown, last = [], len(CAPTIONS) - 1
    of_data = _first_data(content, estimates)
    order = {stem: place for place, stem in enumerate(CAPTIONS)} | {"inner_steps": last + 1}
    names = [name for name in content.get("files", ()) if name.startswith("figures/")]
    for name in sorted(names, key=lambda name: order.get(Path(name).stem, last)):
        path = folder / name
        if path.suffix == ".png" and path.is_file():
            caption = CAPTIONS.get(path.stem) or path.stem.replace("_", " ")
            shown.append(figure(path, f"{caption.removesuffix('.')}{of_data}"))
    return section("Figures", f'<div class="figures">{"".join(shown)}</div>') if shown else ""


def _first_data(content: Mapping[str, Any], estimates: Mapping[str, Any] | None) -> str:
    """The end of a caption: of several estimates, figures are of the first."""
    seeds = (estimates or {}).get("seeds")
    if not seeds:
        return "."
    data = content.get("arguments", {}).get("data")
    return f"; from {Path(data).name}." if data else f"; data seed {seeds[0]}."


def _exact(content: Mapping[str, Any]) -> str:
    rows = [
        [
            k,
            v["exact_mean"],
            v["mean"],
            v["mean_error"],
            v["exact_sd"],
            v["sd"],
            v["total_variation"],
        ]
        for k, v in (content.get("distances") or {}).items()
    ]
    heads = ["", "exact mean", "mean", "off by (MC errors)", "exact sd", "sd", "total variation"]
    return section("Against the exact posterior", table(heads, rows)) if rows else ""


def _certificates(content: Mapping[str, Any]) -> str:
    parts = []
    for name, found in (content.get("certificates") or {}).items():
        rows = [
            [k, f"{number(a)} {ARROW} {number(b)}", *_moved(found.get("sds", {}).get(k))]
            for k, (a, b) in found.get("means", {}).items()
        ]
        parts += [
            f"<p><strong>{text(name)}</strong>: {text(found.get('verdict', ''))} "
            f"({found.get('draws')} draws, KL {number(found.get('kl_divergence'), 2)}, "
            f"k-hat {number(found.get('pareto_k'), 2)})</p>",
            table(["", "mean, corrected", "sd, corrected"], rows),
        ]
    parts.append(certified(content.get("certificate") or {}, content.get("no_certificate")))
    return section("Certificates: a better solution of the equation", *parts)


def _moved(pair: Any) -> Iterator[str]:
    if pair:
        yield f"{number(pair[0])} {ARROW} {number(pair[1])}"


def _solves(content: Mapping[str, Any]) -> str:
    said = [*content.get("inner_report", ())]
    said += [str(content["solves_on_all_points"])] if "solves_on_all_points" in content else []
    fits = [
        [name, fit["chi_square"], fit["p_value"], fit["data"]]
        for name, fit in (content.get("fit") or {}).items()
    ]
    return section(
        "Solves and fit" if fits else "Solves",
        "".join(f"<p>{text(line)}</p>" for line in said),
        table(["data", "chi-square per datum", "p-value", "number"], fits) if fits else "",
    )


def _settings(content: Mapping[str, Any]) -> str:
    sizes = [
        [name, found.get("value"), found.get("origin")]
        for name, found in (content.get("sizes") or {}).items()
    ]
    tolerances = [
        [title, content[name]["loss"], content[name].get("measured_at")]
        for title, name in (("first guess", "tolerance"), ("point estimate", "tolerance_at_mode"))
        if isinstance(content.get(name), Mapping)
    ]
    return section(
        "Settings that were chosen",
        table(["", "value", "origin"], sizes) if sizes else "",
        table(["tolerance at the", "loss", "loss reached"], tolerances) if tolerances else "",
    )


def _time(content: Mapping[str, Any]) -> str:
    cpu, compiled = content.get("cpu_seconds") or {}, content.get("compile_seconds") or {}
    rows = [[name, seconds, compiled.get(name)] for name, seconds in cpu.items()]
    total = ["in all", sum(cpu.values()), sum(compiled.values())]
    heads = ["stage", "CPU seconds", "compilation (wall seconds)"]
    return section("Time", table(heads, [*rows, total])) if rows else ""


def _again(content: Mapping[str, Any]) -> str:
    command = content.get("command_line") or []
    inputs = [
        [name, found.get("path"), found.get("sha256", "")[:16]]
        for name, found in (content.get("inputs") or {}).items()
    ]
    versions = [f"{name} {value}" for name, value in (content.get("versions") or {}).items()]
    platform = content.get("platform") or {}
    shown = ["bilo-ppl", *command[1:]] if command else []
    return section(
        "How to do it again",
        f"<pre>{text(shlex.join(map(str, shown)))}</pre>" if shown else "",
        table(["input", "path", "SHA-256"], inputs) if inputs else "",
        f'<p class="soft">{text(", ".join(versions))}; {text(platform.get("system", ""))}, '
        f"{text(platform.get('backend', ''))}.</p>",
    )
