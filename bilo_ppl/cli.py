"""The command ``bilo-ppl``."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import TypeVar

import jax
from threadpoolctl import threadpool_limits

from bilo_ppl.run.map.settings import METHODS, OPTIMIZERS, MapSettings
from bilo_ppl.run.record import version
from bilo_ppl.run.settings import SAMPLERS, BadInputError, RunFailedError, RunSettings

__all__ = ["main"]

S = TypeVar("S", RunSettings, MapSettings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; exit status 0, 1 (a stage failed), 2 (bad input) or 130 (Ctrl-C)."""
    arguments = _parser().parse_args(argv)
    # An application may choose: numerics and statistics in double precision, networks in their own.
    jax.config.update("jax_enable_x64", True)
    _compile_faster()
    # The matrices are small: threads of LAPACK only wait for each other, at full load.
    threadpool_limits(limits=1, user_api="blas")
    try:
        if arguments.command == "map":
            from bilo_ppl.run.map.pipeline import estimate_model

            return estimate_model(_settings(arguments, MapSettings))
        from bilo_ppl.run import run

        return run(_settings(arguments, RunSettings))
    except BadInputError as error:
        return _stop(error, 2)
    except RunFailedError as error:
        return _stop(error, 1)
    except KeyboardInterrupt:
        return _stop("interrupted", 130)


def _compile_faster() -> None:
    """XLA flags that halve the time of compilation on CPUs and cost no speed here, unless given."""
    flags = os.environ.get("XLA_FLAGS", "")
    for name, value in (
        ("xla_cpu_use_fusion_emitters", "false"),
        ("xla_backend_optimization_level", "1"),
    ):
        if name not in flags:
            flags = f"{flags} --{name}={value}".strip()
    os.environ["XLA_FLAGS"] = flags


def _stop(reason: object, status: int) -> int:
    print(f"bilo-ppl: error: {reason}", file=sys.stderr)
    return status


def _settings(arguments: argparse.Namespace, kind: type[S]) -> S:
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{k: v for k, v in vars(arguments).items() if k in names})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bilo-ppl",
        description="Posteriors of PDE parameters by bilevel local operator learning.",
    )
    parser.add_argument("--version", action="version", version=f"bilo-ppl {version('bilo-ppl')}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="posterior of a model file: pretrain, adapt, sample, check, write",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_model(run)
    _add_sampler(run)
    _add_operator(run, ("partial", "implicit", "residual-gradient"))
    _add_output(run, "MODEL-SAMPLER")
    _add_run_only(run)
    estimate = commands.add_parser(
        "map",
        help="point estimates for several noise seeds: pretrain, descend, compare, write",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_model(estimate)
    _add_estimate(estimate)
    _add_operator(estimate, ("implicit", "residual-gradient"))
    _add_output(estimate, "MODEL-map-METHOD")
    # The inner solver follows from the method unless it is asked for.
    estimate.set_defaults(inner=None)
    return parser


def _add_model(run: argparse.ArgumentParser) -> None:
    run.add_argument("model", help="path of a model file, or short name such as nonlinear_poisson")
    run.add_argument(
        "--data",
        metavar="FILE",
        help="CSV file with columns for the coordinates, y, and optionally sigma; "
        "without it, the model's synthetic data",
    )
    run.add_argument("--data-seed", type=int, default=0, help="seed of the synthetic data")


def _add_sampler(run: argparse.ArgumentParser) -> None:
    group = run.add_argument_group("sampling")
    group.add_argument(
        "--sampler",
        choices=SAMPLERS,
        default="nuts",
        help="nuts and hmc are NumPyro's; bilo- ones carry the weights along the trajectory",
    )
    group.add_argument("--chains", type=int, default=4, help="number of chains")
    group.add_argument(
        "--chain-method", choices=("sequential", "vectorized", "parallel"), default="sequential",
        help="side by side, one after another, or one on each device",
    )  # fmt: skip
    group.add_argument("--warmup", type=int, default=500, help="warm-up transitions of each chain")
    group.add_argument("--samples", type=int, default=1000, help="draws of each chain")
    group.add_argument("--seed", type=int, default=0, help="seed of everything but the data")
    group.add_argument(
        "--init",
        choices=("start", "prior"),
        default="start",
        help="where chains start: near the pretrained theta, or at a draw from the prior",
    )
    group.add_argument(
        "--accept-unconverged",
        action="store_true",
        help="let solves that miss the tolerance stand instead of rejecting the proposal",
    )


def _add_estimate(estimate: argparse.ArgumentParser) -> None:
    group = estimate.add_argument_group("point estimate")
    group.add_argument("--seeds", type=int, default=5, help="number of synthetic data sets")
    group.add_argument(
        "--noise", type=float, help="noise sd of the synthetic data (default: the model's own)"
    )
    group.add_argument(
        "--method", choices=METHODS, default="nested",
        help="solve the PDE to its tolerance at every step, or descend on weights and theta together",
    )  # fmt: skip
    group.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        help="of theta (default: lbfgs for nested, adam for simultaneous)",
    )
    group.add_argument(
        "--learning-rate", type=float, default=1e-2, help="of adam or sgd, in unconstrained space"
    )
    group.add_argument(
        "--steps", type=int, help="limit (default: 500 for nested, 5000 for simultaneous)"
    )
    group.add_argument("--seed", type=int, default=0, help="seed of everything but the data")


def _add_operator(run: argparse.ArgumentParser, sensitivities: Sequence[str]) -> None:
    group = run.add_argument_group("solution operator")
    group.add_argument(
        "--operator", choices=("fine-tuned", "numerical"), default="fine-tuned",
        help="a fine-tuned network, or the model file's numerical solver",
    )  # fmt: skip
    group.add_argument(
        "--operator-file", metavar="FILE", help="load this operator instead of pretraining one"
    )
    group.add_argument("--tol", type=float, default=1e-6, help="tolerance on the PDE loss")
    group.add_argument(
        "--rank", type=int, default=4, help="rank of the fine-tuned increments; 0: all weights"
    )
    group.add_argument(
        "--inner",
        choices=("lm", "adam"),
        default="lm",
        help="inner solver: Levenberg-Marquardt or Adam",
    )
    group.add_argument(
        "--max-inner-steps",
        type=int,
        help="limit of one solve (default: 20 for lm, 6 once adapted, 2000 for adam)",
    )
    group.add_argument(
        "--sensitivity", choices=("auto", *sensitivities),
        default="auto", help="how the solution is differentiated with respect to theta",
    )  # fmt: skip


def _add_run_only(run: argparse.ArgumentParser) -> None:
    group = run.add_argument_group("stages")
    group.add_argument(
        "--no-adapt", dest="adapt", action="store_false", default=True,
        help="do not adapt the operator to the posterior (bilo- samplers never do)",
    )  # fmt: skip
    group.add_argument(
        "--no-certify", dest="certify", action="store_false", default=True,
        help="do not check a subset of the draws at a tighter tolerance",
    )  # fmt: skip


def _add_output(run: argparse.ArgumentParser, default: str) -> None:
    group = run.add_argument_group("results")
    group.add_argument(
        "--out", metavar="DIR", help=f"folder of the results (default: runs/{default})"
    )
    group.add_argument(
        "--overwrite", action="store_true", help="replace the results of an earlier run there"
    )
    group.add_argument("--quiet", action="store_true", help="print warnings and errors only")
