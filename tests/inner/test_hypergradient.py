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
    [("poisson", 1e-3, 1e-3), ("nonlinear_poisson", 5e-2, 1e-2), ("expansion", 2e-3, 2e-3)],
)
def test_implicit_gradient_converges_to_the_discrete_adjoint(name, bound, bound_sensitivity):
    study = Study(CASES[name], nodes=801, width=32, sensitivity=bilo.PartialDerivative())
    errors = worst(study, Method(bilo.ImplicitDifferentiation(), FOURIER), (1e-1, 1e-6))
    loose, tight = errors["error_gradient"]
    assert tight < loose / 3
    assert tight < bound
    assert errors["error_sensitivity"][1] < bound_sensitivity


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bound"),
    [("poisson", 5e-4), ("nonlinear_poisson", 2e-3), ("expansion", 1e-3), ("network", 1e-3)],
)
def test_sensitivity_of_the_full_network_at_a_tight_tolerance(name, bound):
    study = Study(CASES[name], nodes=1601)
    errors = worst(study, Method(bilo.ImplicitDifferentiation(), FOURIER), (1e-6,))
    assert errors["error_sensitivity"][0] < bound


@pytest.mark.slow
def test_residual_gradient_is_right_for_scalars_and_only_near_for_fields():
    method = Method(bilo.ResidualGradient(), FOURIER)
    scalar, field = (
        worst(Study(CASES[name], nodes=801), method, (1e-6,))["error_sensitivity"][0]
        for name in ("poisson", "network")
    )
    assert scalar < 5e-4
    assert field > 0.1
