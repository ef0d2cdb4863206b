"""Training for as many steps on the same clips, and the errors that it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.compress.a_priori import rebuilt
from understudy.core.cost import count_parameters
from understudy.core.field_metrics import relative_l2
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.one_step import OneStepModel
from understudy.models.operators.training import Training
from understudy.nn.one_way_network import OneWayPlan
from understudy.reproduce.waves.setting import Runs, Size

_RATES = {"dense": 3e-3, "narrow": 1e-2, "one-way": 1e-2}
"""Learning rates."""


@dataclass(frozen=True)
class Fit:
    """A trained network and its relative errors of the displacement, means over fields.

    Parameters
    ----------
    model : OneStepModel
    one, rolled : float
        On the test runs, after a step and after a rollout.
    train_one, held_one : float
        After a step, on as many training runs as `few` says and on those that were held.
    """

    model: OneStepModel
    one: float
    rolled: float
    train_one: float
    held_one: float

    @property
    def weights(self) -> int:
        """Of the network."""
        return count_parameters(self.model.network)


Fits = Mapping[int, Fit]
"""One of each seed."""


class Bench:
    """Trains networks for as many steps on the runs of each seed.

    Parameters
    ----------
    size : Size
    runs : mapping of seed to Runs
    """

    def __init__(self, size: Size, runs: Mapping[int, Runs]) -> None:
        self.size, self.runs = size, runs

    def fits(self, kind: str, make: Callable[[], FieldNetwork], few: bool = False) -> Fits:
        """Train a network on the runs of each seed, or on few of them and to the last step.

        Parameters
        ----------
        kind : {"dense", "narrow", "one-way"}
            Says the learning rate.
        make : callable
            Makes an untrained network.
        few : bool
            Whether on few runs, without validation.
        """
        return {seed: self._fit(kind, make, seed, few) for seed in self.runs}

    def _fit(self, kind: str, make: Callable[[], FieldNetwork], seed: int, few: bool) -> Fit:
        runs, size = self.runs[seed], self.size
        torch.manual_seed(seed)
        train = runs.train[: size.few] if few else runs.train
        model = OneStepModel(make()).fit(
            train,
            dt=runs.simulator.duration / size.frames,
            grid=runs.simulator.grid,
            channels=runs.simulator.channels,
            validation=None if few else (runs.held, None),
            training=Training(
                steps=size.steps,
                batch_size=size.batch_size,
                learning_rate=_RATES[kind],
                warmup=0.05,
                ema_decay=None,
                validate_every=max(size.steps // 4, 1),
                seed=seed,
                device=size.device,
                interrupt="raise",
            ),
        )
        return self._measured(model, runs, train)

    def truncated(self, model: OneStepModel, rank: int, seed: int) -> Fit:
        """Network whose dense kernels are cut to a rank after training, and nothing more."""
        small, _ = rebuilt(model, OneWayPlan(rank), "truncated")
        return self._measured(small, self.runs[seed], self.runs[seed].train)

    def _measured(self, model: OneStepModel, runs: Runs, train: Tensor) -> Fit:
        steps = min(self.size.rolled, runs.test.shape[1] - 1)
        path = model.rollout(runs.test[:, 0], steps)[:, 0, -1]
        return Fit(
            model=model,
            one=step_error(model, runs.test),
            rolled=float(relative_l2(path[:, :1], runs.test[:, steps, :1]).mean()),
            train_one=step_error(model, train[: self.size.few]),
            held_one=step_error(model, runs.held),
        )


def step_error(model: OneStepModel, fields: Tensor) -> float:
    """Relative error of the displacement after a step from each true field, mean."""
    given, true = fields[:, :-1].flatten(0, 1), fields[:, 1:].flatten(0, 1)
    return float(relative_l2(model.predict(given)[:, :1], true[:, :1]).mean())
