"""How a command fails: its input cannot be used, or a stage has not reached what the next one needs."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["BadInputError", "RunFailedError", "refusing"]


class BadInputError(ValueError):
    """The arguments, the model file or the data cannot be used; nothing was computed or written."""


class RunFailedError(Exception):
    """A stage did not reach what the next one needs; the message says what to do."""


@contextmanager
def refusing() -> Iterator[None]:
    """Make a `BadInputError` of what a check finds wrong, or cannot read."""
    try:
        yield
    except (ValueError, NotImplementedError) as error:
        raise BadInputError(str(error)) from error
    except OSError as error:
        if error.filename is None:
            raise BadInputError(str(error)) from error
        raise BadInputError(
            f"cannot read {error.filename} ({error.strerror}); mend that, or give another file."
        ) from error
