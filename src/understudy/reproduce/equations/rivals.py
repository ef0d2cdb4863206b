"""What forecasts are compared with: a DeepONet, SINDy, the nearest trajectory of the training."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from understudy.core.loop import Settings, Trainer, cosine, shuffled_batches
from understudy.data.trajectories import TrajectorySet
from understudy.models.operators.deeponet import PlainMLP
from understudy.models.operators.prose_training import add_noise
from understudy.nn.soap import SOAP
from understudy.reproduce.equations.regression import sparse_forecast
from understudy.reproduce.equations.scores import WINDOWS, finite_errors
from understudy.reproduce.equations.setting import Forecast, Size, Task

_THRESHOLDS = (0.05, 0.1, 0.2)
"""Of SINDy; of pairs with a window the one that forecasts the training best is taken."""


class _DeepONet(nn.Module):
    """Perceptrons of the samples and of the time; a solution is the product of both.

    Samples and solutions are in units of the size of the samples, which is an input as well.
    """

    def __init__(self, inputs: int, outputs: int, width: int, basis: int = 64) -> None:
        super().__init__()
        self.outputs, self.basis = outputs, basis
        self.branch = PlainMLP(inputs + 1, width, 3, basis * outputs, "gelu")
        self.trunk = PlainMLP(1, width, 3, basis, "gelu")

    def forward(self, u: Tensor, t: Tensor) -> Tensor:
        size = u.square().mean((1, 2), keepdim=True).sqrt() + 1e-6
        samples = torch.cat([(u / size).flatten(1), size.flatten(1).log()], dim=1)
        coefficients = self.branch(samples).unflatten(1, (self.outputs, self.basis))
        functions = self.trunk(t.to(u)[:, None] / 3.0 - 1.0)
        return size * torch.einsum("bck,qk->bqc", coefficients, functions)


def _new_deeponet(size: Size) -> _DeepONet:
    widest = max(family.dim for family in size.families)
    return _DeepONet(max(size.given) * widest, widest, 4 * size.width)


def fitted_deeponet(size: Size, train: TrajectorySet, seed: int, steps: int) -> nn.Module:
    """DeepONet of the same samples, noise, loss and batch size."""
    given, device = max(size.given), size.device
    network = _new_deeponet(size).to(device)
    batches = shuffled_batches(len(train), size.batch_size, seed)
    generator = torch.Generator().manual_seed(seed)
    truth, t = train.u.to(device), train.t[given:].to(device)

    def loss(step: int) -> Tensor:
        rows = batches(step)
        noisy = add_noise(train.u[rows, :given], train.mask[rows], 0.02, generator).to(device)
        said, wanted = network(noisy, t), truth[rows.to(device), given:]
        error = (said - wanted).square().sum((1, 2))
        return (error / (wanted.square().sum((1, 2)) + 1e-5)).mean()

    optimizer: Any = torch.optim.Adam(network.parameters(), size.rival_rate, foreach=True)
    if size.rival_optimizer == "soap":
        optimizer = SOAP(network.parameters(), size.rival_rate)
    schedule = cosine(warmup=0.05, floor=0.01)
    settings = Settings(max_steps=steps, schedule=schedule, clip_norm=1.0)
    Trainer(network, optimizer, settings).run(loss)
    return network.cpu()


def deeponet(size: Size, weights: Mapping[str, Tensor]) -> Forecast:
    """Forecast by a DeepONet with given weights."""
    network = _new_deeponet(size)
    network.load_state_dict(weights)
    given = max(size.given)

    @torch.no_grad()
    def forecast(test: Task) -> Tensor:
        return torch.as_tensor(network(test.inputs(given), test.at.t[given:]))

    return forecast


def sindy(size: Size, train: TrajectorySet) -> Forecast:
    """SINDy with the threshold and window that forecast trajectories of the training best."""
    given = max(size.given)

    def forecast(test: Task, threshold: float, window: int) -> Tensor:
        t = test.at.t
        return sparse_forecast(t[:given], test.inputs(given), t[given:], threshold, window)

    some = train[torch.arange(min(50, len(train)))]
    known = Task(some, some)
    scores = {
        pair: float(finite_errors(forecast(known, *pair), some.u[:, given:]).mean())
        for pair in product(_THRESHOLDS, WINDOWS)
    }
    best = min(scores, key=scores.__getitem__)
    return lambda test: forecast(test, *best)


def nearest(size: Size, train: TrajectorySet) -> Forecast:
    """Go on as the trajectory of the training did whose beginning is closest."""
    given = max(size.given)
    known = train.u[:, :given].flatten(1)

    def forecast(test: Task) -> Tensor:
        distance = torch.cdist(test.inputs(given).flatten(1), known)
        return train.u[distance.argmin(1), given:]

    return forecast
