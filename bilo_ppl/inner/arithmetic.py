"""What a Levenberg-Marquardt step costs: of one that was timed, the seconds of another follow."""

__all__ = ["CORRECTED", "LOOKED_AT", "STEP_OF_A_FIT", "step_arithmetic"]

STEP_OF_A_FIT = "step of a fit"
"""The kind of work, for `bilo_ppl._expected.Work`."""

OVERHEAD = 1e5
"""Of a step that has nearly nothing to do."""

FACTORING = 1 / 600
"""Of a product in the normal matrix, next to a weight's part in a row and its derivatives."""

LOOKED_AT, CORRECTED = 0.06, 0.4
"""What a weight costs at one row where a solution is only looked at, and where it is corrected by chord
steps in double precision; in the same unit, as measured in ``benchmarks/results/defaults.json``."""


def step_arithmetic(rows: int, trained: int, parameters: int) -> float:
    """Arithmetic of a step; the unit is what one weight of the network costs at one row.

    A row costs a pass through all ``parameters`` of the network and back, for its derivatives, its entry
    of the Jacobian, and trials of a few dampings, also where few of them are ``trained``. The normal
    matrix of k x k entries, each of m products, is formed and factored: k is the smaller, m the larger
    one of ``rows`` and ``trained``.

    Measured on steps of 51 to 2 599 rows and 1 100 to 17 000 weights: 19 to 45 ns a unit, half of them
    between 24 and 32; the derivatives in the residual make most of the difference.
    """
    k, m = sorted((rows, trained))
    return OVERHEAD + rows * parameters + FACTORING * k**2 * m
