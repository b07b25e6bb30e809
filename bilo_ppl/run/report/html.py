"""Pieces of an HTML page: text is escaped, figures are within it, nothing is loaded from elsewhere."""

import base64
import html
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["figure", "number", "page", "prose", "section", "table", "text"]

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #ffffff; --line: #d0d7de;
  --field: #f6f8fa; --good: #1a7f37; --doubt: #9a6700; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b3; --paper: #0d1117;
  --line: #30363d; --field: #161b22; --good: #56d364; --doubt: #e3b341; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.25rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; margin: 0.5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; }
p, li { max-width: 46rem; } .soft { color: var(--soft); }
.verdict { border-left: 0.4rem solid var(--tone); background: var(--field); padding: 0.75rem 1rem;
  margin: 1rem 0; } .verdict strong { color: var(--tone); }
.RIGHT { --tone: var(--good); } .DOUBTFUL { --tone: var(--doubt); } .FAILED, .none { --tone: var(--bad); }
.wide { overflow-x: auto; } .wide + .wide { margin-top: 1rem; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.75rem 0.25rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
pre { background: var(--field); padding: 0.75rem; overflow-x: auto; font-size: 0.85rem;
  white-space: pre-wrap; }
.figures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
figure:only-child:not(.broad) { max-width: 46rem; }
.broad { grid-column: 1 / -1; overflow-x: auto; } .broad img { min-width: 44rem; }
figure { margin: 0; min-width: 0; }
figure img { width: 100%; background: #fff; border: 1px solid var(--line); }
figcaption { color: var(--soft); font-size: 0.85rem; }
"""

KEPT = re.compile(r"^(\s|[-*+] |\d+\. )", re.MULTILINE)
"""A line that would lose its meaning within a paragraph."""

BROAD = 1100
"""Pixels of a figure, above which one column is too narrow. One panel has 960, in whatever height."""


def text(value: Any) -> str:
    """Text of a page: nothing in it is markup."""
    return html.escape(str(value))


def number(value: Any, digits: int = 4) -> str:
    """A number for a table; what is none stays as it is, and nothing is a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float) and 10**digits <= abs(value) < 10**7:
        return f"{value:.0f}"
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return text(value)


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; the first column is of names."""
    head = "".join(f"<th>{text(name)}</th>" for name in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{number(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def prose(value: str) -> str:
    """Paragraphs of a docstring; one with indented lines, as formulas, or with items keeps its lines."""
    return "".join(
        f"<pre>{text(textwrap.dedent(part))}</pre>" if KEPT.search(part) else f"<p>{text(part)}</p>"
        for part in re.split(r"\n(?:[ \t]*\n)+", value.strip("\n"))
    )


def figure(path: Path, caption: str) -> str:
    """An image (PNG), within the page; one of several panels in a row is as broad as the page."""
    content = path.read_bytes()
    width = int.from_bytes(content[16:20], "big")
    data = base64.b64encode(content).decode()
    image = f'<img alt="{text(caption)}" src="data:image/png;base64,{data}">'
    start = '<figure class="broad">' if width > BROAD else "<figure>"
    return f"{start}{image}<figcaption>{text(caption)}</figcaption></figure>"


def section(title: str, *parts: str) -> str:
    """A section; none where there is nothing to say."""
    content = "\n".join(filter(None, parts))
    return f"<section><h2>{text(title)}</h2>\n{content}</section>\n" if content else ""


def page(title: str, body: str, properties: Mapping[str, str] | None = None) -> str:
    """A whole page."""
    named = "".join(
        f'<meta name="{text(name)}" content="{text(value)}">\n'
        for name, value in (properties or {}).items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{named}<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )
