"""Sparse Bayesian networks of digits: setting, what SSVI is compared with, foreign inputs."""
