"""What goes wrong in a user's function, told in a line: whose fault it is, where, and why."""

import contextlib
import pathlib
import sysconfig
import traceback
from collections.abc import Iterator
from types import TracebackType

import jax

__all__ = ["blaming", "told", "where"]

SHOWN = 300
"""Characters of a message that are shown at most."""

_TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
_OWN = pathlib.Path(__file__).resolve().parent
_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))


@contextlib.contextmanager
def blaming(what: str) -> Iterator[None]:
    """Make a ``ValueError`` that names ``what`` of whatever a user's function raises.

    A ``NotImplementedError``, of a method that is not there, says so itself.
    """
    try:
        yield
    except NotImplementedError:
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what} fails{where(error.__traceback__)}: {told(error)}") from error


def told(error: BaseException) -> str:
    """An error in a line, without the advice that JAX has for those who know it."""
    if isinstance(error, SystemExit):
        return "it ends the process (sys.exit, exit or quit); raise an error in the place of that"
    if isinstance(error, _TRACED):
        return (
            "it asks for the value of a number that JAX knows only by its shape, as `if`, float() and "
            "functions of math or numpy do. Write jnp.where(condition, a, b) for a choice, and take "
            "functions of jax.numpy"
        )
    kind, text = type(error).__name__, " ".join(str(error).split())
    if isinstance(error, KeyError):
        return f"{kind}: there is no entry {text}"
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."
    if isinstance(error, TypeError) and "operand" in text and "'function'" in text:
        # The mistake of those who are new to it: no point behind the derivative.
        shown += ". A derivative is a function of a point too: bilo_ppl.laplacian(u)(x)"
    return f"{kind}: {shown}" if shown else kind


def where(trace: TracebackType | None) -> str:
    """The last line of a user's file that an error went through; empty if it is in none."""
    for frame in reversed(traceback.extract_tb(trace)):
        path = pathlib.Path(frame.filename)
        own = _OWN in path.resolve().parents or frame.filename.startswith(_LIBRARIES)
        if not own and not frame.filename.startswith("<"):
            return f" ({frame.filename}, line {frame.lineno})"
    return ""
