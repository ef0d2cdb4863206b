"""Learnt parts of solvers: directions for linear systems, and priors for inverse problems."""
