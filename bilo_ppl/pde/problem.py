"""The PDE problem: a residual at a point, exact boundary values, names of the parameters."""

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx

from bilo_ppl._types import Field, Point, Points, Rows, Theta
from bilo_ppl.pde.domain import Box

__all__ = ["Problem"]


class Problem(eqx.Module):
    """A PDE with unknown parameters, stated at a point.

    A subclass gives ``parameters``, ``domain`` and, unless the usual ones will do, ``points`` (as class
    attributes or as fields), `residual`, and `lift` where boundary or initial values are imposed exactly.
    In the methods,
    ``u`` is a function of a point of shape ``(d,)``; its value is a scalar, or ``(components,)``
    for a system. An entry ``theta[name]`` is a scalar, an array, or a field (a function of x).

    Examples:
        >>> class Cooling(bilo.Problem):  # u' = -k (u - 20), u(0) = 90
        ...     parameters, components = ("k",), 1
        ...     domain = bilo.time_interval(0.0, 5.0)
        ...     def residual(self, u, x, theta):
        ...         return bilo.partial(u, 0)(x) + theta["k"] * (u(x) - 20)
        ...     def lift(self, x, raw, theta):
        ...         return 90 + x[0] * raw
        >>> def temperature(t):
        ...     return 20 + 70 * jnp.exp(-0.3 * t[0])
        >>> residual = Cooling().residual(temperature, jnp.array([2.0]), {"k": 0.3})
        >>> abs(float(residual)) < 1e-12
        True
    """

    parameters: ClassVar[tuple[str, ...]]
    """Names of the entries of theta, in the order in which the network sees them."""

    domain: ClassVar[Box]
    """Where the solution is defined, and which coordinate is time; data outside it are refused."""

    points: ClassVar[Points]
    """Collocation points ``(n, d)`` at which the residual is driven to zero.

    Where they are not stated, an operator takes as many as is usual (`bilo_ppl.pde.sizes`), scattered.
    """

    components: ClassVar[int]
    """Number of components of u; with 1, ``u(x)`` is a scalar."""

    component_names: ClassVar[tuple[str, ...]] = ()
    """Optional names of the components, for columns of data and for figures."""

    positive: ClassVar[tuple[str, ...]] = ()
    """Names of those entries of theta, or of `fields`, that must be positive, as a permeability: a first
    guess where they are not is refused."""

    def residual(self, u: Field, x: Point, theta: Theta) -> Any:
        """PDE residual at x: a scalar, or ``(m,)`` for a system."""
        raise NotImplementedError(f"{type(self).__name__} must define residual(u, x, theta).")

    def lift(self, x: Point, raw: Any, theta: Theta) -> Any:
        """The solution from the raw network output at x, with the boundary values built in."""
        return raw

    def boundary(self, theta: Theta) -> tuple[Points, Any] | None:
        """Points ``(b, d)`` and values ``(b,)`` or ``(b, components)`` that `lift` must reproduce.

        Only used to check `lift`, whatever the network puts out. ``None``: nothing to check.
        """
        return None

    def conditions(self, u: Field, theta: Theta) -> Mapping[str, Rows]:
        """Further least-squares rows by name (jumps, soft boundary values), unscaled."""
        return {}

    def fields(self, theta: Theta) -> Mapping[str, Field]:
        """The unknown functions of x that theta stands for, by name: what figures show of it.

        By default those entries that are functions. A problem whose theta holds coefficients of a
        function gives that function.
        """
        return {name: theta[name] for name in self.parameters if callable(theta[name])}

    def observable(self, x: Point, u: Any, theta: Theta) -> Any:
        """What a value ``u`` of the solution at x stands for, such as a density of which it is the logit.

        Errors of u relative to its size are those of this; by default ``u`` itself.
        """
        return u

    def inputs(self, x: Point, theta: Theta) -> Any:
        """What the network sees of a point; by default the point, mapped to [-1, 1].

        Random features ask for it with an empty theta (`bilo_ppl.pde.inputs.fixed_inputs`).
        """
        return self.domain.normalise(x)
