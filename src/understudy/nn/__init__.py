"""Layers, kernels and blocks that more than one model uses."""
