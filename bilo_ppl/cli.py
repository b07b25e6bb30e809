"""The command ``bilo-ppl``."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from threadpoolctl import threadpool_limits

from bilo_ppl._output import put
from bilo_ppl.run import (
    BadInputError,
    CompareSettings,
    MapSettings,
    RunFailedError,
    SampleSettings,
    compare_methods,
    estimate_model,
    sample_model,
)
from bilo_ppl.run.compilation import cache_folder, set_up_compilation
from bilo_ppl.run.deadline import end_at_once, ending_in_time
from bilo_ppl.run.options import add_options
from bilo_ppl.run.record import version
from bilo_ppl.run.report import ReportSettings, report_run
from bilo_ppl.run.start import ListSettings, NewSettings, list_models, new_model

__all__ = ["main"]


class _Command(NamedTuple):
    settings_class: Any
    start: Callable[[Any], int]
    help: str
    compiles: bool = True
    """Whether there is something to compile, and to keep for the next time."""


COMMANDS = {
    "run": _Command(
        SampleSettings,
        sample_model,
        "posterior of a model file: pretrain, adapt, sample, check, write",
    ),
    "map": _Command(
        MapSettings,
        estimate_model,
        "point estimates for several noise seeds: pretrain, descend, compare, write",
    ),
    "compare": _Command(
        CompareSettings,
        compare_methods,
        "the same model by other methods, each in a process of its own: one table, one figure",
    ),
    "report": _Command(
        ReportSettings,
        report_run,
        "one HTML page on a run that is there: verdict, problem, figures, checks (runs write it too)",
        compiles=False,
    ),
    "list": _Command(
        ListSettings, list_models, "the models with a short name, a line each", compiles=False
    ),
    "new": _Command(
        NewSettings,
        new_model,
        "write a model file to change, which runs as it stands",
        compiles=False,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; exit status 0, 1 (a stage failed, or the verdict is FAILED), 2 (bad input), 3 (the
    verdict is DOUBTFUL, with --strict), 130 (Ctrl-C) or 143
    (SIGTERM).
    """
    try:
        arguments = vars(_parser().parse_args(argv))
    finally:
        # Of a help that is piped to `head` the rest is left here.
        put(sys.stdout, "", end="")
    # An application may choose: numerics and statistics in double precision, networks in their own.
    jax.config.update("jax_enable_x64", True)
    set_up_compilation(arguments.pop("cache", False))
    # The matrices are small: threads of LAPACK only wait for each other, at full load.
    threadpool_limits(limits=1, user_api="blas")
    command = COMMANDS[arguments.pop("command")]
    # Called from Python, the process is another's.
    in_time = ending_in_time() if argv is None else contextlib.nullcontext()
    try:
        with in_time:
            status = command.start(command.settings_class(**arguments))
    except BadInputError as error:
        return _stop(error, 2)
    except RunFailedError as error:
        return _stop(error, 1)
    except KeyboardInterrupt:
        return _stop("interrupted", 130)
    if argv is None and status > 128:
        end_at_once(status)
    return status


def _stop(reason: object, status: int) -> int:
    put(sys.stderr, f"bilo-ppl: error: {reason}")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bilo-ppl",
        description="Posteriors of PDE parameters by bilevel local operator learning.",
    )
    parser.add_argument("--version", action="version", version=f"bilo-ppl {version('bilo-ppl')}")
    commands = parser.add_subparsers(dest="command", required=True)
    folder = str(cache_folder()).replace("%", "%%")
    for name, command in COMMANDS.items():
        description = f"{command.help[0].upper()}{command.help[1:]}."
        added = commands.add_parser(name, help=command.help, description=description)
        add_options(added, command.settings_class)
        if not command.compiles:
            continue
        added.add_argument(
            "--no-cache",
            dest="cache",
            action="store_false",
            help=f"keep no compiled programs for the next run (else in {folder})",
        )
    return parser
