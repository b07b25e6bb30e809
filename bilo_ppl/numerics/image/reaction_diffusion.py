"""Reaction and diffusion on a masked image, differentiable in theta.

In steps of Strang's splitting (`bilo_ppl.numerics.image.strang`), of second order in time; the
diffusion conserves mass. Reverse mode is the discrete adjoint: it keeps the images at some times only
and computes those between them again.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bilo_ppl._replaced import replaced
from bilo_ppl._types import Scalar, Theta
from bilo_ppl.inner.stop_reason import StopReason
from bilo_ppl.numerics.conjugate_gradients import default_tolerance
from bilo_ppl.numerics.image.checks import (
    as_phase,
    as_times,
    check_image_evolution,
    check_images,
)
from bilo_ppl.numerics.image.diffusion import Diffusion
from bilo_ppl.numerics.image.image_series import ImageSeries, continued, nearest_inside
from bilo_ppl.numerics.image.reaction import Flow
from bilo_ppl.numerics.image.strang import Equation, Stepped, strang_step
from bilo_ppl.numerics.stencils import constant
from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.operators.closed_form import as_pytree
from bilo_ppl.pde.image import ImageDomain
from bilo_ppl.pde.problem import Problem
from bilo_ppl.pde.theta import admit

__all__ = ["ReactionDiffusion"]

FEWEST_STEPS = 32
"""Where not more are needed for positivity."""

UNDERSHOOT = 1e-6
"""How far below zero, in units of the largest value, values may be that must not be negative."""


class ReactionDiffusion(AbstractSolutionOperator):
    """``u_t = div(D grad u) + f(u)`` inside of a mask, without flux through its boundary.

    For scalar problems on a `space_time` of an `ImageDomain`, in two or three dimensions; D may vary
    from voxel to voxel. With a ``phase`` phi, a smoothed mask, it is the diffuse-domain equation
    ``phi u_t = div(phi D grad u) + phi f(u)``. The error is of second order in the spacing (where the
    boundary follows the voxels' faces, else of first) and in the time step. The mass, the sum of phi u,
    changes by the reaction only. Values stay nonnegative if a step is at most 2 / max of the
    diffusion matrix's diagonal (over phi); for smooth values much longer steps do. The solution can be
    called at points (x, t).

    Examples:
        >>> class Growth(bilo.Problem):  # u_t = D Laplace u + u (1 - u)
        ...     parameters, components = ("D",), 1
        ...     domain = bilo.space_time(bilo.image_domain(np.ones((4, 5))), 1.0)
        ...     def residual(self, u, x, theta):
        ...         spread = theta["D"] * bilo.laplacian(u, axes=self.domain.space)(x)
        ...         return bilo.partial(u, 2)(x) - spread - u(x) * (1 - u(x))
        >>> operator = bilo.ReactionDiffusion(
        ...     Growth(),
        ...     theta={"D": 0.1},
        ...     diffusivity=lambda theta: theta["D"],
        ...     initial=lambda theta: np.full((4, 5), 0.5),
        ...     flow=bilo.logistic_flow(lambda theta: 1.0),
        ...     steps=4,
        ... )
        >>> field, _, _ = eqx.filter_jit(operator.solve)({"D": 0.1}, operator.init_state())
        >>> round(float(field(jnp.array([1.0, 2.0, 1.0]))), 4)  # 1 / (1 + exp(-1))
        0.7311
    """

    problem: Problem
    diffusivity: Callable[[Any], Any]
    initial: Callable[[Any], Any]
    flow: Callable[[Any, Any, Any], Any]
    phase: Any
    nearest: Any
    times: tuple[float, ...] = eqx.field(static=True)
    """Those at which the solution is kept; between them it is interpolated."""
    steps: int = eqx.field(static=True)
    """Time steps between two of these times."""
    tolerance: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __init__(
        self,
        problem: Problem,
        *,
        theta: Theta,
        diffusivity: Callable[[Theta], Any],
        initial: Callable[[Theta], Any],
        flow: Flow,
        steps: int | None = None,
        times: int | Sequence[float] | None = None,
        phase: Any = None,
        tolerance: float | None = None,
        max_steps: int = 500,
    ):
        """Check the problem and its images.

        **Arguments**

        - ``problem``: gives the domain, and the names in theta. Its residual is the network's business:
          it is not looked at, and must state the same equation.
        - ``theta``: parameters at which everything is checked, and from which ``steps`` follow.
        - ``diffusivity``, ``initial``: D and the values at the beginning at a theta: images, of which
          only the part inside of the mask counts.
        - ``flow``: the reaction, ``flow(u, time, theta)``: `logistic_flow` or `runge_kutta`.
        - ``steps``: time steps in all; by default at least 32, and as many as keep any values positive
          at ``theta``.
        - ``times``: at which the solution is kept, or how many, the first one included; by default the
          square root of the number of steps, which in reverse mode needs least memory.
        - ``phase``: values of a smoothed mask at the voxels, in (0, 1] inside of the mask.
        - ``tolerance``: on the norm of a linear system's residual, relative to that of its right side.
        - ``max_steps``: iterations of conjugate gradients in one time step.

        Raises a ``ValueError`` where something does not fit.
        """
        dtype = jnp.result_type(float)
        domain = check_image_evolution(problem)
        theta = admit(problem, theta, dtype)
        if not (tolerance is None or 0 < tolerance < 1) or max_steps < 1 or (steps or 1) < 1:
            raise ValueError(
                "ReactionDiffusion: needs a tolerance between 0 and 1, at least 1 iteration and 1 step, "
                f"got tolerance={tolerance}, max_steps={max_steps}, steps={steps}."
            )
        self.problem, self.phase = problem, as_phase(phase, domain)
        self.diffusivity, self.initial = as_pytree(diffusivity), as_pytree(initial)
        self.flow = as_pytree(flow)
        self.tolerance = tolerance or default_tolerance(dtype)
        self.max_steps = max_steps
        self.nearest = nearest_inside(domain)
        start = self._image(self.initial(theta))
        after = self.flow(jnp.where(domain.mask, start, 0.0), 1e-3 * self._length, theta)
        check_images(self._image(self.diffusivity(theta)), start, after, domain)
        equation = self._equation(theta)
        fastest = float(jnp.max(equation.diffusion.diagonal / equation.capacity))
        steps = steps or max(FEWEST_STEPS, math.ceil(self._length * fastest / 2))
        self.times = as_times(times or max(5, round(math.sqrt(steps)) + 1), domain)
        self.steps = math.ceil(steps * max(self._gaps) / self._length - 1e-9)

    def init_state(self) -> tuple[()]:
        """Nothing is carried from one solve to the next."""
        return ()

    def refined(self) -> "ReactionDiffusion":
        """With time steps half as long; the voxels are those of the images."""
        return replaced(self, steps=2 * self.steps)

    def solve(self, theta: Theta, state: Any) -> tuple[ImageSeries, Any, SolveInfo]:
        """The solution at ``theta``; the loss is the mean square of the residual of the linear systems.

        ``steps`` counts iterations of conjugate gradients. ``converged`` is false where some system
        missed its tolerance, where a diffusivity is negative, and where values fall below zero that
        should not (time steps too long), that is with an initial value and a rate at u = 0 that are
        not negative.
        """
        images, info = self._values(admit(self.problem, theta, jnp.result_type(float)))
        domain = self._domain
        values = continued(images, self.nearest)
        return ImageSeries(values, self.times, domain.origin, domain.spacing), state, info

    @property
    def _domain(self) -> ImageDomain:
        domain = self.problem.domain
        assert isinstance(domain, ImageDomain)
        return domain

    @property
    def _length(self) -> float:
        return self._domain.upper[-1] - self._domain.lower[-1]

    @property
    def _gaps(self) -> tuple[float, ...]:
        """From each time that is kept to the next, the first one from the start."""
        gaps = np.diff([self._domain.lower[-1], *self.times])
        return tuple(gaps[gaps > 0].tolist())

    def _image(self, values: Any) -> Float[Array, "..."]:
        values = jnp.asarray(values, jnp.result_type(float))
        return jnp.broadcast_to(values, self._domain.mask.shape) if values.ndim == 0 else values

    def _equation(self, theta: Theta) -> Equation:
        D, mask = self._image(self.diffusivity(theta)), self._domain.mask
        one = jnp.ones((), D.dtype)
        phase = one if self.phase is None else jnp.asarray(self.phase, D.dtype)
        diffusion = Diffusion.of(D, mask, self.phase, self._domain.spacing)
        return Equation(diffusion, jnp.where(mask, phase, one), jnp.asarray(mask), theta)

    @eqx.filter_jit
    def _values(self, theta: Theta) -> tuple[Float[Array, "..."], SolveInfo]:
        mask, equation = self._domain.mask, self._equation(theta)
        first = self._image(self.initial(theta))
        first = jnp.where(mask, first, jnp.zeros_like(first))
        zero = jnp.zeros((), first.dtype)

        def advance(state: Stepped, gap: Scalar):
            dt = gap / self.steps
            step = partial(strang_step, equation, self.flow, dt, self.tolerance, self.max_steps)
            return jax.lax.scan(lambda s, _: (step(s), None), state, None, self.steps)[0]

        @jax.checkpoint  # reverse mode keeps an image for each time, and the steps of one gap
        def segment(state: Stepped, gap: Scalar):
            state = advance(state, gap)
            return state, state.u

        fixed = constant(first)
        start = Stepped(first, jnp.min(fixed), jnp.max(fixed), jnp.array(True), jnp.array(0), zero)
        gaps = jnp.asarray(self._gaps, first.dtype)
        end, images = jax.lax.scan(segment, start, gaps)
        if self.times[0] == self._domain.lower[-1]:
            images = jnp.concatenate([first[None], images])
        return images, self._info(fixed, constant(end), theta)

    def _info(self, first: Array, end: Stepped, theta: Theta) -> SolveInfo:
        mask, count = self._domain.mask, self.steps * len(self._gaps)
        D = jax.lax.stop_gradient(self._image(self.diffusivity(theta)))
        time = jnp.asarray(1e-3 * self._length, first.dtype)
        grows = jnp.min(jax.lax.stop_gradient(self.flow(0 * first, time, theta))) >= 0
        should = (jnp.min(first) >= 0) & grows
        positive = ~should | (end.lowest >= -UNDERSHOOT * end.highest)
        valid = positive & (jnp.min(jnp.where(mask, D, jnp.zeros_like(D))) >= 0)
        loss = end.squares / (count * mask.sum())
        finite = jnp.isfinite(loss) & jnp.isfinite(end.highest)
        otherwise = jnp.where(finite, StopReason.STEP_LIMIT, StopReason.NOT_FINITE)
        otherwise = jnp.where(valid, otherwise, StopReason.INVALID)
        return SolveInfo.of(end.steps, loss, end.converged & valid & finite, otherwise)
