"""Ways to differentiate u(x, theta; W(theta)) with respect to theta, one interface.

`ResidualGradient` (the papers'): the lower level also drives dr/dtheta to zero at fixed weights, so
that the partial derivative of u at fixed weights is the derivative of the solution.
`ImplicitDifferentiation` (a neural adjoint): the lower level has the residual rows only, and

    dW/dtheta = -J^+ dr/dtheta,    J = d rows / dW,

the Gauss-Newton form of the implicit function theorem; one linear solve a gradient in reverse mode.
`PartialDerivative` has the residual rows only and leaves dW/dtheta out: free, and right where the
operator was fitted to a region of thetas (`bilo_ppl.adaptation.adapting`).
"""

from bilo_ppl.inner.sensitivity.implicit import ImplicitDifferentiation
from bilo_ppl.inner.sensitivity.partial_derivative import PartialDerivative
from bilo_ppl.inner.sensitivity.residual_gradient import ResidualGradient

__all__ = ["ImplicitDifferentiation", "PartialDerivative", "ResidualGradient"]
