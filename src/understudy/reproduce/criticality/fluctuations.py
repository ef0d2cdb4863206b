"""Fluctuations over an ensemble of signals and of tangent kernels, and how they grow with depth."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from understudy.nn.criticality import find_critical_point
from understudy.nn.gaussian_expectation import activation
from understudy.nn.random_networks import Ensemble, layers, pair_covariance, tangent_layers
from understudy.nn.signal_propagation import SignalPropagation


def deviations_of(ensemble: Ensemble, networks: int, seed: int) -> Tensor:
    """V / (n K^2) of every layer (depth,), measured on so many networks."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for z in layers(ensemble, networks, generator):
        squares = z.double().square()
        found.append(pair_covariance(squares, squares) / float(squares.mean()) ** 2)
    return torch.tensor(found)


def slope_of(deviations: Mapping[int, Tensor]) -> float:
    """Fit of n V / (n K^2) = a + nu l + c l^2 / n over widths n and layers 2 on.

    Weighted by 1/l, as the error is proportional to the value; from a quarter of the layers on, as
    tanh nears its slope from below, and up to l = 0.15 n or 3.
    """
    rows, values = [], []
    for n, deviation in deviations.items():
        for l in range(max(1, len(deviation) // 4), len(deviation)):
            if l > max(3.0, 0.15 * n):
                continue
            rows.append([1.0 / l, 1.0, l / n])
            values.append(n * float(deviation[l]) / l)
    return float(np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0][1])


def collapse(deviations: Mapping[int, Tensor]) -> float:
    """Relative range over widths of V / (n K^2) at one depth over width."""
    least = min(deviations)
    at = [float(d[2 * n // least]) for n, d in deviations.items() if 2 * n // least < len(d)]
    return (max(at) - min(at)) / fmean(at)


def residual_deviation(
    name: str, gamma: float, width: int, depth: int, networks: int, seed: int
) -> float:
    """V / (n K^2) of the last layer of critical networks with residual connections, measured.

    Parameters
    ----------
    name : str
        Of an activation.
    gamma : float
        Of the connections.
    width, depth, networks, seed : int
    """
    C_W = find_critical_point(name, gamma).C_W
    ensemble = Ensemble(activation(name), 0.0, C_W, width, depth, 1.0, gamma)
    return float(deviations_of(ensemble, networks, seed)[-1])


def closed_vertex(slope: float, gamma: float, depth: int) -> float:
    """V / K^2 of the last layer by the closed form, from the slope of gamma = 0."""
    keep = 1.0 - gamma**2
    return keep * (keep * slope + 4.0 * gamma**2) * (depth - 1)


def full_vertex(name: str, gamma: float, depth: int) -> float:
    """V of the last layer by the full recursion, from K = 1."""
    C_W = find_critical_point(name, gamma).C_W
    return float(SignalPropagation(name, 0.0, C_W, gamma).vertex(1.0, depth, 100_000)[-1])


def tangent_statistics(width: int, networks: int, seed: int) -> dict[str, float]:
    """V, Theta, D, F, A and B of the fourth layer of ReLU networks, in chunks of 500."""
    generator = torch.Generator().manual_seed(seed)
    ensemble = Ensemble(activation("relu"), 0.0, 2.0, width, 4)
    z2, own, F_sum, B_sum = [], [], 0.0, 0.0
    for start in range(0, networks, 500):
        chunk = min(500, networks - start)
        for z, H in tangent_layers(ensemble, chunk, generator, squared_input=1.0):
            last = z, H
        z, H = last
        diagonal = H.diagonal(dim1=1, dim2=2)
        off = H - torch.diag_embed(diagonal)
        F_sum += float(torch.bmm(off, z.unsqueeze(-1)).squeeze(-1).mul(z).double().sum())
        B_sum += float(off.double().square().sum())
        z2.append(z.double().square())
        own.append(diagonal.double())
    squares, diagonals = torch.cat(z2), torch.cat(own)
    pairs = networks * (width - 1)
    return {
        "V": width * pair_covariance(squares, squares),
        "Theta": float(diagonals.mean()),
        "D": width * pair_covariance(diagonals, squares),
        "F": F_sum / pairs,
        "A": width * pair_covariance(diagonals, diagonals),
        "B": B_sum / pairs,
    }
