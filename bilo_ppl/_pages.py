"""Where the documentation says more than a message can."""

import pathlib

__all__ = ["see"]

INSTALLED = pathlib.Path(__file__).with_name("docs")
"""The pages that messages point to, in an installed package; in a clone they lie in ``docs``."""


def see(heading: str, page: str = "verdicts") -> str:
    """A pointer to a heading of a page of the documentation."""
    path = INSTALLED / f"{page}.md"
    return f'See "{heading}" in {path if path.is_file() else f"docs/{page}.md"}.'
