"""Where the documentation says more than a message can."""

__all__ = ["see"]


def see(heading: str, page: str = "verdicts") -> str:
    """A pointer to a heading of a page of the documentation."""
    return f'See "{heading}" in docs/{page}.md.'
