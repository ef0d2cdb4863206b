"""Best learning rates of networks of different depths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch

from understudy.nn.critical_initialisation import equivalent_rates
from understudy.nn.criticality import find_critical_point
from understudy.nn.gaussian_expectation import activation
from understudy.nn.signal_propagation import LearningRates
from understudy.reproduce.criticality.digits import Digits, square_loss, train
from understudy.reproduce.criticality.networks import Networks
from understudy.reproduce.criticality.setting import Budget

Rule = Callable[[int, float], LearningRates]
"""Learning rates of networks of a depth, at a global rate."""


def rules_of(name: str) -> dict[str, Rule]:
    """Equivalent layers for an activation, and one rate for all layers."""
    point = find_critical_point(name)
    return {
        "equivalent": lambda depth, rate: equivalent_rates(point, depth, rate, rate),
        "naive": lambda depth, rate: LearningRates([rate] * depth, [rate] * depth),
    }


def best_log_rates(
    name: str,
    depth: int,
    rule: Rule,
    budget: Budget,
    seeds: Sequence[int],
    data: Digits,
) -> dict[int, float]:
    """log2 of the global rate with the least training loss, of each seed.

    Parameters
    ----------
    name : str
        Of an activation.
    depth : int
    rule : callable
    budget : Budget
    seeds : sequence of int
    data : Digits
    """
    grid = [2.0**k for k in range(-5, 4)]
    runs = list(product(seeds, grid))
    networks = Networks.draw(
        activation(name).function,
        [64, *[budget.rate_width] * (depth - 1), 10],
        [0.0] * len(runs),
        [find_critical_point(name).C_W] * len(runs),
        [seed for seed, _ in runs],
    )
    rates = [rule(depth, rate) for _, rate in runs]
    train(networks, rates, budget.rate_steps, square_loss, data)
    X, y = data.train
    with torch.no_grad():
        losses = square_loss(networks.preactivations(X)[-1], y).view(len(seeds), len(grid))
    logarithms = losses.log().nan_to_num(math.inf, posinf=math.inf).tolist()
    return {s: math.log2(grid[0]) + valley(row) for s, row in zip(seeds, logarithms, strict=True)}


def valley(values: Sequence[float]) -> float:
    """Position of the least value, between its neighbours by a parabola."""
    k = min(range(len(values)), key=values.__getitem__)
    if k in (0, len(values) - 1) or not math.isfinite(values[k + 1]):
        return float(k)
    left, right = values[k - 1] - values[k], values[k + 1] - values[k]
    return k + 0.5 * (left - right) / max(left + right, 1e-12)
