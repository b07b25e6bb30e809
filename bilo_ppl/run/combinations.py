"""Options that cannot be combined: one of them would be without effect, or contradict the other."""

from typing import Any

from bilo_ppl.run.options import default_of

__all__ = ["check_together"]


def check_together(settings: Any) -> None:
    """Raise a ``ValueError`` for options of a `CommonSettings` that do not go together."""
    if settings.resume and settings.overwrite:
        raise ValueError(
            "--resume goes on with a run, and --overwrite replaces it: give one of them."
        )
    sizes = [*settings.architecture, *(["points"] if settings.points is not None else [])]
    if sizes and not settings.pretrains:
        raise ValueError(
            f"--{' and --'.join(sizes)} would shape a network to pretrain, and there is "
            "none: the operator is numerical, or comes from a file."
        )
    if settings.devices != 1 and not (settings.pretrains or settings.adapts):
        raise ValueError(
            "--devices would spread pretraining and adaptation, and there is neither: the operator "
            "is numerical, or comes from a file."
        )
    if settings.data is not None and settings.data_seed != default_of(settings, "data_seed"):
        raise ValueError(
            "--data-seed is that of synthetic data, and --data brings data of its own: leave one of "
            "them out."
        )
    if settings.output_layer:
        _check_output_layer(settings)
    elif not settings.fine_tuned:
        _check_numerical(settings)


def _check_output_layer(settings: Any) -> None:
    others = {
        "depth": settings.depth,
        "fourier": settings.fourier,
        "operator-file": settings.operator_file,
        "rank": None if settings.rank == default_of(settings, "rank") else settings.rank,
    }
    if given := [name for name, value in others.items() if value is not None]:
        raise ValueError(
            f"--fine-tune output-layer takes one layer of random features; --{given[0]} cannot be "
            "combined with it, --width is their number."
        )
    if settings.chosen_inner != "lm" or not settings.fine_tuned or settings.sensitivity != "auto":
        raise ValueError(
            "--fine-tune output-layer solves in one least-squares step and has a derivative of its "
            "own: leave --operator, --inner and --sensitivity as they are."
        )


OF_A_NETWORK = ("operator_file", "tol", "rank", "inner", "max_inner_steps", "sensitivity")
"""Options of a network that is fine-tuned."""


def _check_numerical(settings: Any) -> None:
    for name in OF_A_NETWORK:
        if getattr(settings, name) != default_of(settings, name):
            raise ValueError(
                f"--{name.replace('_', '-')} is an option of the fine-tuned network, and --operator "
                "numerical has none: leave one of them out."
            )
