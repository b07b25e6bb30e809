"""What a function at a point makes of the point alone, computed once.

A residual at a collocation point is evaluated for theta after theta, and much of it follows from the
point alone: forcing terms, basis functions of an unknown field, images and their derivatives, the factors
of a lift. The function is traced and its equations are sorted by what they follow from: those that follow
from the point are evaluated beforehand, and what the others take of them is kept.
"""

import enum
import hashlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

__all__ = ["PointFunction"]

CALLS = ("jit", "pjit")
"""Equations that are a function of their own, whose equations are sorted as well."""


class _From(enum.IntEnum):
    """What a value follows from."""

    NOTHING = 0
    POINT = 1
    MORE = 2


class _Value(NamedTuple):
    value: Any
    """None where this pass does not need it."""
    origin: _From


class PointFunction:
    """A function ``f(x, more, constants)`` of a point and of two pytrees of arrays.

    It is traced for their shapes. The constants are those of the function: what follows from them alone
    follows from nothing.
    """

    def __init__(self, f: Callable[[Any, Any, Any], Any], x: Any, more: Any, constants: Any):
        shapes = jax.tree.map(_shape, (x, more, constants))
        self.traced, self.shape = jax.make_jaxpr(f, return_shape=True)(*shapes)
        self.constants = jax.tree.leaves(constants)

    @property
    def name(self) -> str:
        """The same for functions with the same equations."""
        text = re.sub(r" at 0x[0-9a-f]+", "", str(self.traced.jaxpr))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def is_pure(self) -> bool:
        """Whether it may be evaluated in parts."""
        return not self.traced.effects

    def known(self, x: Any) -> list[Any]:
        """What it takes of the point."""
        kept: list[Any] = []

        def keep(value: Any) -> Any:
            kept.append(value)
            return value

        nothing = [None] * (len(self.traced.jaxpr.invars) - 1 - len(self.constants))
        _Pass(_From.POINT, keep).through(self.traced, self._arguments(x, nothing), whole=True)
        return kept

    def finish(self, known: list[Any], more: Any) -> Any:
        """Its value, from what is `known` of the point."""
        given = iter(known)
        rest = _Pass(_From.MORE, lambda _: next(given))
        arguments = self._arguments(None, jax.tree.leaves(more))
        found = rest.through(self.traced, arguments, whole=True)
        return jax.tree.unflatten(jax.tree.structure(self.shape), [each.value for each in found])

    def _arguments(self, x: Any, more: list[Any]) -> list[_Value]:
        rest = (_Value(leaf, _From.MORE) for leaf in more)
        constants = (_Value(leaf, _From.NOTHING) for leaf in self.constants)
        return [_Value(x, _From.POINT), *rest, *constants]


def _shape(array: Any) -> jax.ShapeDtypeStruct:
    """Whether it is a number of Python or of an array, a tracer or not, is nobody's business."""
    return jax.ShapeDtypeStruct(array.shape, jax.dtypes.canonicalize_dtype(array.dtype))


class _Pass(NamedTuple):
    """One pass through all equations, of which those of one origin are evaluated."""

    wanted: _From
    hand_over: Callable[[Any], Any]
    """Of values of the point that something else needs, in an order that is that of all passes."""

    def through(
        self, closed: ClosedJaxpr, arguments: list[_Value], *, whole: bool = False
    ) -> list[_Value]:
        """The results of a traced function; of a ``whole`` one all are needed."""
        jaxpr = closed.jaxpr
        frame = dict(zip(jaxpr.invars, arguments, strict=True))
        for variable, constant in zip(jaxpr.constvars, closed.consts, strict=True):
            frame[variable] = _Value(constant, _From.NOTHING)
        handed: set[Any] = set()

        def read(atom: Any, needed: bool) -> _Value:
            if isinstance(atom, Literal):
                return _Value(atom.val, _From.NOTHING)
            found = frame[atom]
            if needed and found.origin is _From.POINT and atom not in handed:
                handed.add(atom)
                frame[atom] = found = _Value(self.hand_over(found.value), _From.POINT)
            return found

        for equation in jaxpr.eqns:
            results = self._results(equation, read)
            frame |= zip(equation.outvars, results, strict=True)
        return [read(atom, whole) for atom in jaxpr.outvars]

    def _results(self, equation: JaxprEqn, read: Callable[[Any, bool], _Value]) -> list[_Value]:
        origin = max((read(a, False).origin for a in equation.invars), default=_From.NOTHING)
        if origin is _From.MORE and equation.primitive.name in CALLS:
            inner = [read(atom, False) for atom in equation.invars]
            return self.through(equation.params["jaxpr"], inner)
        values = [read(atom, origin is _From.MORE).value for atom in equation.invars]
        if origin not in (_From.NOTHING, self.wanted):
            return [_Value(None, origin) for _ in equation.outvars]
        primitive = equation.primitive
        found = primitive.bind(*values, **primitive.get_bind_params(equation.params))
        found = found if primitive.multiple_results else [found]
        return [_Value(each, origin) for each in found]
