"""Options that cannot be combined: one of them would be without effect, or contradict the other."""

from typing import Any

__all__ = ["check_together"]


def check_together(settings: Any) -> None:
    """Raise a ``ValueError`` for options of a `CommonSettings` that do not go together."""
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
    if settings.output_layer:
        _check_output_layer(settings)


def _check_output_layer(settings: Any) -> None:
    others = {
        "depth": settings.depth,
        "fourier": settings.fourier,
        "operator-file": settings.operator_file,
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
