"""Equations as MathML, when the site is built: a reader needs neither a script nor a network."""

import html
import re

from latex2mathml.converter import convert

_DISPLAY = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)


def on_page_content(content: str, **kwargs) -> str:
    """Called by mkdocs with the HTML of a page."""
    content = _DISPLAY.sub(lambda found: _mathml(found, "block"), content)
    return _INLINE.sub(lambda found: _mathml(found, "inline"), content)


def _mathml(found: re.Match, display: str) -> str:
    return convert(html.unescape(found.group(1)).strip(), display=display)
