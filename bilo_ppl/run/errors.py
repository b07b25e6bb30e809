"""How a command fails: its input cannot be used, or a stage has not reached what the next one needs."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["BadInputError", "RunFailedError", "refusing"]


class BadInputError(ValueError):
    """The arguments, the model file or the data cannot be used; nothing was computed or written.

    Examples:
        >>> from bilo_ppl.run import SampleSettings
        >>> SampleSettings("poisson", sampler="gibbs")
        Traceback (most recent call last):
            ...
        bilo_ppl.run.errors.BadInputError: sampler is 'gibbs'; it must be one of nuts, hmc, ...
    """


class RunFailedError(Exception):
    """A stage did not reach what the next one needs; the message says what to do.

    Examples:
        >>> from bilo_ppl.run import BadInputError, RunFailedError
        >>> issubclass(BadInputError, ValueError), issubclass(RunFailedError, ValueError)
        (True, False)
    """


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
