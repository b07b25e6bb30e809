"""The local operator u(x, theta; W): network, embedding of theta, low-rank increments, file."""
