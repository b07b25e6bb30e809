"""Unknown functions: entries of theta that are callables of a point.

`KarhunenLoeve` is an expansion with independent standard normal coefficients, `NetworkField` a small
network, `PiecewiseLinear` has values at nodes. `fit_field` gives a field the shape of a first guess;
`mean_squared_gradient` and `total_variation` are the roughness penalties of Tikhonov and of Rudin, Osher
and Fatemi (1992).
"""

from bilo_ppl.fields.fitting import fit_field
from bilo_ppl.fields.karhunen_loeve import KarhunenLoeve
from bilo_ppl.fields.network_field import NetworkField, zero_output
from bilo_ppl.fields.piecewise_linear import PiecewiseLinear
from bilo_ppl.fields.roughness import gradients, mean_squared_gradient, total_variation
from bilo_ppl.fields.weights import field_weights, with_field_weights

__all__ = [
    "KarhunenLoeve",
    "NetworkField",
    "PiecewiseLinear",
    "field_weights",
    "fit_field",
    "gradients",
    "mean_squared_gradient",
    "total_variation",
    "with_field_weights",
    "zero_output",
]
