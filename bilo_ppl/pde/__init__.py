"""The problem as its user states it: residual, domain, points, derivatives, data."""
