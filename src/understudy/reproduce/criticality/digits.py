"""Training of batches of perceptrons on scikit-learn's digits by plain gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from understudy.nn.critical_initialisation import equivalent_rates
from understudy.nn.criticality import find_critical_point
from understudy.nn.gaussian_expectation import activation
from understudy.nn.signal_propagation import LearningRates
from understudy.reproduce.criticality.networks import Networks
from understudy.reproduce.criticality.setting import Budget

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of outputs (B, m, 10) and labels (m,), one value a network (B,)."""

_RATES = (0.05, 0.25, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Digits:
    """Images (m, 64) and labels (m,), to train on and to test."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def load_centred() -> Digits:
    """scikit-learn's digits, centred, each of mean square 1; a fifth is held out."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    X = torch.tensor(pixels, dtype=torch.float32)
    X = X - X.mean(0)
    X = X / X.square().mean(1, keepdim=True).sqrt()
    y = torch.tensor(labels)
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    held = len(X) // 5
    train, test = order[held:], order[:held]
    return Digits((X[train], y[train]), (X[test], y[test]))


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """Mean over images of each network (B,)."""
    losses = F.cross_entropy(z.mT, y.expand(len(z), -1), reduction="none")
    return losses.mean(1)


def square_loss(z: Tensor, y: Tensor) -> Tensor:
    """Half the squared distance from one-hot labels, mean over images of each network (B,)."""
    target = F.one_hot(y, z.shape[-1]).to(z)
    return 0.5 * (z - target).square().sum(-1).mean(1)


def train(
    networks: Networks, rates: Sequence[LearningRates], steps: int, loss: Loss, data: Digits
) -> None:
    """Plain gradient descent on batches of 64, each network at its own rates; in place.

    Parameters
    ----------
    networks : Networks
        B of them, which see the same batches.
    rates : sequence of LearningRates (B,)
    steps : int
    loss : callable
    data : Digits
    """
    X, y = data.train
    depth = len(networks.weights)
    lam_b, lam_W = (
        torch.tensor(v) for v in zip(*(rate.layers(depth) for rate in rates), strict=True)
    )
    generator = torch.Generator().manual_seed(0)
    parameters = [*networks.weights, *networks.biases]
    steps_of = [(lam_W[:, l] / W.shape[1]).view(-1, 1, 1) for l, W in enumerate(networks.weights)]
    steps_of += [lam_b[:, l].view(-1, 1, 1) for l in range(depth)]
    for _ in range(steps):
        rows = torch.randint(len(X), (64,), generator=generator)
        value = loss(networks.preactivations(X[rows])[-1], y[rows]).sum()
        gradients = torch.autograd.grad(value, parameters)
        with torch.no_grad():
            for parameter, step, gradient in zip(parameters, steps_of, gradients, strict=True):
                parameter.sub_(step * gradient)


@torch.no_grad()
def accuracy(networks: Networks, data: Digits) -> Tensor:
    """Share of the test images that each network names right (B,)."""
    X, y = data.test
    return (networks.preactivations(X)[-1].argmax(-1) == y).float().mean(1)


def best_accuracies(
    name: str, factors: Sequence[float], budget: Budget, seeds: Sequence[int], data: Digits
) -> dict[float, list[float]]:
    """Test accuracy of deep networks of each seed, each at the best of six learning rates.

    Parameters
    ----------
    name : str
        Of an activation.
    factors : sequence of float
        C_W over its critical value.
    budget : Budget
    seeds : sequence of int
    data : Digits
    """
    point = find_critical_point(name)
    runs = list(product(factors, seeds, _RATES))
    networks = Networks.draw(
        activation(name).function,
        [64, *[100] * (budget.deep - 1), 10],
        [0.0] * len(runs),
        [point.C_W * factor for factor, _, _ in runs],
        [seed for _, seed, _ in runs],
    )
    train(
        networks,
        [equivalent_rates(point, budget.deep, rate, rate) for _, _, rate in runs],
        budget.training_steps,
        cross_entropy,
        data,
    )
    shape = (len(factors), len(seeds), len(_RATES))
    best = accuracy(networks, data).view(shape).amax(-1)
    return dict(zip(factors, best.tolist(), strict=True))
