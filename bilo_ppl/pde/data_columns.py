"""What the columns of a data file are, by their names."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from bilo_ppl.pde.domain import Box

__all__ = [
    "EXPERIMENT",
    "SIGMA",
    "Columns",
    "check_names",
    "find_columns",
    "is_number",
    "reserved_names",
]

VALUE, SIGMA, EXPERIMENT = "y", "sigma", "experiment"


@dataclasses.dataclass(frozen=True)
class Columns:
    """The meaning of the columns of a header."""

    components: int
    of_system: bool
    """Whether each value is that of a component by name: y is then ``(n, components)``."""
    coordinates: list[str]
    """The columns of the coordinates, in the order of the domain."""
    values: dict[int, str]
    """The column of each observed component."""
    sigmas: dict[int, str]
    """The columns with the noise of single components."""
    sigma_of_all: bool
    """Whether there is a column with the noise of all components."""
    sigma_choices: dict[int, str]
    """What the column with the noise of an observed component would be called."""

    @property
    def value_names(self) -> list[str]:
        """A name for each column of y."""
        if not self.of_system:
            return list(self.values.values())
        return [self.values.get(i, f"{VALUE}{i + 1}") for i in range(self.components)]

    @property
    def sigma_names(self) -> list[str]:
        """A name for the noise of each column of y."""
        if self.sigma_of_all or not self.of_system:
            return [self.sigmas.get(0, SIGMA)] * (self.components if self.of_system else 1)
        names = self.sigmas | {i: n for i, n in self.sigma_choices.items() if i not in self.sigmas}
        return [names.get(i, f"{SIGMA}{i + 1}") for i in range(self.components)]


def find_columns(
    header: list[str], place: str, domain: Box, components: int, component_names: Sequence[str]
) -> Columns:
    """The meaning of the columns; raises a ``ValueError`` for a header that does not fit.

    ``place`` says in the message where the header stands.
    """
    if all(is_number(name) for name in header):
        raise ValueError(
            f"{place} is {','.join(header)}; the first line must name the columns, such as x,y."
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        raise ValueError(
            f"{place}: every column needs a name of its own; the header is {','.join(header)}."
        )
    known = _value_names(components, component_names)
    values = _by_component(header, known, place)
    of_system = components > 1 and bool(values)
    if not values and VALUE in header:
        values = {0: VALUE}
    if not values:
        wanted = " or ".join(known)
        raise ValueError(
            f"{place}: there is no column {wanted} for the observed values; the columns are {header} "
            "(separated by commas?). Name at least one of them so."
        )
    noise = {n: s for n, s in _sigma_names(components, component_names).items() if s != SIGMA}
    named = of_system or values[0] in component_names
    sigmas = _by_component(header, {s: known[n] for n, s in noise.items()}, place)
    choices = {i: noise[n] for i, n in values.items()} if named else {}
    _check_sigmas(header, sigmas, choices, list(values.values()), place)
    used = {*values.values(), *sigmas.values(), SIGMA, EXPERIMENT}
    rest = [name for name in header if name not in used]
    return Columns(
        components,
        of_system,
        _coordinates(rest, used, place, domain),
        values,
        sigmas,
        SIGMA in header,
        choices,
    )


def reserved_names(domain: Box, components: int) -> set[str]:
    """Names that a component cannot have, since a column so named is something else."""
    numbered = {f"{VALUE}{i}" for i in range(1, components + 1)}
    return {SIGMA, EXPERIMENT, *domain.coordinates, *_numbered(domain), *numbered}


def check_names(names: Any, domain: Box, what: str) -> None:
    """Raise a ``ValueError``, which begins with ``what``, for names that columns of y cannot have."""
    taken = reserved_names(domain, len(names))
    named = not isinstance(names, str) and all(isinstance(n, str) and n.strip() for n in names)
    if not named or len(set(names)) != len(names) or taken & set(names):
        raise ValueError(
            f"{what} is {names!r}; it must be a tuple of different names for the columns of y in a file, "
            f"none of them one of {', '.join(sorted(taken))}."
        )


def is_number(text: str) -> bool:
    """Whether a text is a number, NaN and infinity included."""
    try:
        float(text)
    except ValueError:
        return False
    # Python's own "1_000" is a number in no table.
    return "_" not in text


def _value_names(components: int, names: Sequence[str]) -> dict[str, int]:
    """The component that a column of this name holds."""
    numbered = [f"{VALUE}{i}" for i in range(1, components + 1)] if components > 1 else [VALUE]
    return {name: i for group in (numbered, names) for i, name in enumerate(group)}


def _sigma_names(components: int, names: Sequence[str]) -> dict[str, str]:
    """The column with the noise of a column of values: sigma1 beside y1, sigma_NAME beside NAME."""
    numbered = {f"{VALUE}{i}": f"{SIGMA}{i}" for i in range(1, components + 1)}
    return (
        {VALUE: SIGMA} | (numbered if components > 1 else {}) | {n: f"{SIGMA}_{n}" for n in names}
    )


def _by_component(header: list[str], known: dict[str, int], place: str) -> dict[int, str]:
    """The columns of known names, by component; raises a ``ValueError`` for two of one component."""
    found: dict[int, str] = {}
    for name in header:
        component = known.get(name)
        if component is None:
            continue
        if component in found:
            raise ValueError(
                f"{place}: the columns {found[component]} and {name} are the same component; leave "
                "one of them out."
            )
        found[component] = name
    return dict(sorted(found.items()))


def _check_sigmas(
    header: list[str],
    sigmas: dict[int, str],
    choices: dict[int, str],
    values: list[str],
    place: str,
) -> None:
    unknown = [n for n in header if n.startswith(SIGMA) and n not in {SIGMA, *sigmas.values()}]
    unknown += [name for i, name in sigmas.items() if i not in choices]
    if unknown:
        raise ValueError(
            f"{place}: column {unknown[0]} is the noise of none of the observed columns "
            f"{', '.join(values)}; call it {' or '.join([SIGMA, *choices.values()])}, or add the column "
            "that it belongs to."
        )
    if sigmas and SIGMA in header:
        raise ValueError(
            f"{place}: there are columns {SIGMA} and {', '.join(sigmas.values())}; give either one for "
            "all values, or one for each component."
        )


def _numbered(domain: Box) -> list[str]:
    """Other names of the coordinates, for where y is the observed value: x1, x2, ..., and t."""
    numbers = iter(range(1, domain.dimension + 1))
    return ["t" if i == domain.time else f"x{next(numbers)}" for i in range(domain.dimension)]


def _coordinates(rest: list[str], used: set[str], place: str, domain: Box) -> list[str]:
    """The columns of the coordinates in the order of the domain."""
    ways = [way for way in (list(domain.coordinates), _numbered(domain)) if not {*way} & used]
    expected = " or ".join(dict.fromkeys(",".join(way) for way in ways))
    if len(rest) != domain.dimension:
        raise ValueError(
            f"{place}: {len(rest)} coordinate columns {rest}, but the problem has {domain.dimension}; "
            f"every column other than those of y, {SIGMA} and {EXPERIMENT} is a coordinate: call them "
            f"{expected}."
        )
    for way in ways:
        if set(rest) == set(way):
            return way
    known = [n for n in rest if n in {*domain.coordinates, *_numbered(domain)}]
    if known:
        raise ValueError(
            f"{place}: the columns {', '.join(rest)} must be the coordinates, and of these only "
            f"{', '.join(known)} has a name that the problem knows. Call them {expected}, in any order, "
            "or use none of these names."
        )
    return rest
