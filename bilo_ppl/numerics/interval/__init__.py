"""Two-point boundary value problems."""
