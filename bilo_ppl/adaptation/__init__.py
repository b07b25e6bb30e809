"""The operator fitted to the posterior region before sampling."""
