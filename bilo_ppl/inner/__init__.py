"""The lower level: its rows, its solvers, the derivative of its solution, and pretraining."""
