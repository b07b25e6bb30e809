"""Sizes of a run: what an option gives, else what the model file states, else what is usual."""

import dataclasses
from typing import Any, NamedTuple

from bilo_ppl.pde.collocation import completed, resized, scattered, with_points
from bilo_ppl.pde.sizes import POINTS_FOR_FEATURES, unknowns_in, usual_features, usual_sizes
from bilo_ppl.run.model_file import ModelFile
from bilo_ppl.run.settings import CommonSettings

__all__ = ["USUAL", "Chosen", "described", "sized"]

NETWORK = ("width", "depth", "fourier")

LEAST_ALONG_AXIS = 4
"""Collocation points along an axis, at least: between fewer, anything solves an equation."""

OPTION, FILE, USUAL = "as asked for", "of the model file", "usual"
ENOUGH = "as many as features should have"


class Chosen(NamedTuple):
    """A size, and where it is from."""

    value: int
    origin: str

    @property
    def stated(self) -> bool:
        """Whether the model file states it."""
        return self.origin == FILE


def sized(file: ModelFile, settings: CommonSettings) -> tuple[ModelFile, dict[str, Chosen]]:
    """The model file with all sizes filled in, and these by name: points, width, depth, fourier.

    A network of the file's own has no sizes to choose. Raises a ``ValueError`` for sizes that cannot be.
    """
    if settings.architecture and "network" in file.architecture:
        raise ValueError(
            f"{file.path} brings a network of its own, which --{' and --'.join(settings.architecture)} "
            "cannot shape."
        )
    file, points = _at_points(file, settings.points)
    chosen = {"points": points}
    if "network" in file.architecture:
        return file, chosen
    usual = usual_sizes(file.problem.domain, unknowns_in(file.start))
    if settings.output_layer:
        # The model file's shape is one to train; here the features are one hidden layer.
        file, points = _enough_for_features(file, points)
        chosen["points"] = points
        width = usual_features(file.problem.domain, points.value)
        usual = usual._replace(width=width, depth=1)
        file = dataclasses.replace(file, architecture={})
    for name in NETWORK:
        ways = (settings.architecture, OPTION), (file.architecture, FILE), (usual._asdict(), USUAL)
        chosen[name] = next(Chosen(given[name], origin) for given, origin in ways if name in given)
    shape: dict[str, Any] = {name: chosen[name].value for name in NETWORK}
    return dataclasses.replace(file, architecture={**file.architecture, **shape}), chosen


def _at_points(file: ModelFile, count: int | None) -> tuple[ModelFile, Chosen]:
    problem = file.problem
    domain, stated = problem.domain, hasattr(problem, "points")
    if count is None:
        problem = completed(problem, file.start)
        found = Chosen(len(problem.points), FILE if stated else USUAL)
    else:
        least = LEAST_ALONG_AXIS**domain.dimension
        if count < least:
            raise ValueError(
                f"--points {count} are too few for {domain.dimension} "
                f"dimension{'s' * (domain.dimension > 1)}: give at least {least}."
            )
        try:
            points = resized(problem.points, domain, count) if stated else scattered(domain, count)
        except ValueError as error:
            raise ValueError(f"--points {count}: {error}") from error
        problem, found = with_points(problem, points), Chosen(count, OPTION)
    return dataclasses.replace(file, problem=problem), found


def _enough_for_features(file: ModelFile, points: Chosen) -> tuple[ModelFile, Chosen]:
    """With further points between those of the file, where these are few and nobody has said how many."""
    problem = file.problem
    if points.origin == OPTION or points.value >= POINTS_FOR_FEATURES:
        return file, points
    try:
        more = resized(problem.points, problem.domain, POINTS_FOR_FEATURES)
    except ValueError:
        # No room: a mask has left a small part of the domain.
        return file, points
    file = dataclasses.replace(file, problem=with_points(problem, more))
    return file, Chosen(len(more), ENOUGH)


def described(sizes: dict[str, Chosen], file: ModelFile) -> str:
    """What was chosen and why, in a line."""
    dimension, unknowns = file.problem.domain.dimension, unknowns_in(file.start)
    names = {"points": "collocation points", "fourier": "Fourier features"}
    groups: dict[str, list[str]] = {}
    for name, size in sizes.items():
        text = f"{size.value} {names[name]}" if name in names else f"{name} {size.value}"
        groups.setdefault(size.origin, []).append(text)
    if USUAL in groups:
        why = f"usual for {_counted(dimension, 'dimension')} and {_counted(unknowns, 'unknown')}"
        groups[why] = groups.pop(USUAL)
    parts = [f"{', '.join(texts)} ({origin})" for origin, texts in groups.items()]
    own = [] if "width" in sizes else ["a network of the model file's own"]
    return f"Sizes: {'; '.join([*parts, *own])}."


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
