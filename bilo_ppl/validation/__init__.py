"""How far results can be from the exact ones: certificates, grid posteriors, distances."""
