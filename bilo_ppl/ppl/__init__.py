"""The PDE in a NumPyro model: the effect ``solution``, its handlers, and the potential energy."""
