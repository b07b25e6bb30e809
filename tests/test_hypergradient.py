"""Gradients of a misfit through the inner solve against the discrete adjoint, by tolerance."""

import pytest

import bilo_ppl as bilo
from benchmarks.hypergradient import FOURIER, Method, Study
from benchmarks.hypergradient_cases import field_cases, scalar_cases

CASES = {case.name: case for case in (*scalar_cases(), *field_cases())}


def worst(study, method, tolerances):
    """Largest error over the thetas at each tolerance, by the kind of error."""
    records = list(study.records(method, tolerances))
    assert all(r["converged"] for r in records)
    return {
        name: [max(r[name] for r in records if r["tolerance"] == t) for t in tolerances]
        for name in ("error_sensitivity", "error_gradient")
    }


@pytest.mark.parametrize(
    ("name", "bound", "bound_sensitivity"),
    [("poisson", 1e-3, 1e-3), ("nonlinear_poisson", 5e-2, 1e-2), ("expansion", 5e-3, 5e-3)],
)
def test_implicit_gradient_converges_to_the_discrete_adjoint(name, bound, bound_sensitivity):
    study = Study(CASES[name], nodes=801, width=32)
    errors = worst(study, Method(bilo.ImplicitDifferentiation(), FOURIER), (1e-1, 1e-6))
    loose, tight = errors["error_gradient"]
    assert tight < loose / 3
    assert tight < bound
    assert errors["error_sensitivity"][1] < bound_sensitivity
