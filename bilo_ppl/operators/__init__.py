"""From theta to the PDE solution: what `bilo_ppl.solution` may be given."""

from bilo_ppl.operators.base import AbstractSolutionOperator, SolveInfo
from bilo_ppl.operators.black_box import BlackBox
from bilo_ppl.operators.closed_form import ClosedForm
from bilo_ppl.operators.fine_tuned import FineTuned
from bilo_ppl.operators.one_step import OneStep

__all__ = [
    "AbstractSolutionOperator",
    "BlackBox",
    "ClosedForm",
    "FineTuned",
    "OneStep",
    "SolveInfo",
]
