from bilo_ppl.calculus import divergence, grad, laplacian, partial
from bilo_ppl.domain import Box, interval, masked, space_time
from bilo_ppl.problem import Problem
from bilo_ppl.operator import LocalOperator
from bilo_ppl.lower_level import LowerLevel
from bilo_ppl.sensitivity import ImplicitDifferentiation, ResidualGradient
from bilo_ppl.solvers import *
from bilo_ppl.solution_operators import FineTuned
from bilo_ppl.effects import solution
from bilo_ppl.potential import StatefulPotential
from bilo_ppl.pretrain import pretrain
from bilo_ppl.checkpoint import load_operator, save_operator
