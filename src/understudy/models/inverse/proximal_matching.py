r"""Proximal matching (2310.14344): the loss whose minimiser is a proximal operator.

With clean :math:`x`, noisy :math:`y = x + \sigma \epsilon` and a gradient :math:`f` of a convex
network, of n values,

.. math::

   L_\gamma = \mathbb E\, m_\gamma(|f(y) - x|), \qquad m_\gamma(d) = 1 - \exp(-d^2 / \gamma^2)

(the constant factor :math:`(\pi\gamma^2)^{-n/2}` is left out). As :math:`\gamma \to 0` the
minimiser tends to :math:`\arg\max_x p(x \mid y)`, which is the proximal operator of
:math:`-\sigma^2 \log p`; squared error gives the mean of the posterior and absolute error its
median, neither of which is.

Far from the truth the loss is flat, so training starts with absolute error and :math:`\gamma` falls
in stages. Distances grow with :math:`\sqrt n`, and :math:`\gamma` has to as well.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.core.loop import Event, Outcome, Settings, Trainer
from understudy.models.inverse.icnn import ConvexNetwork
from understudy.models.inverse.lpn import LearnedProximalNetwork

CleanSampler = Callable[[int, torch.Generator], Tensor]
"""Count and generator to so many clean values ``(count, *shape)``."""

NoiseSampler = Callable[[Tensor, torch.Generator], Tensor]
"""Clean values and generator to noise of unit deviation and of their shape."""

IMAGE_GAMMA = 0.08
"""Last gamma of images over the root of the number of their values; values are in [0, 1]."""

_FLAT = 1e-6
_VALIDATION_SEED = 7919


class ProximalMatchingLoss(nn.Module):
    r"""Mean over samples of :math:`1 - \exp(-|f(y) - x|^2 / \gamma^2)`.

    Parameters
    ----------
    gamma : float, positive
        In the units of the norm over all values of a sample.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        if not 0.0 < gamma < math.inf:
            raise UserError(f"gamma must be positive, found {gamma}")
        self.gamma = gamma

    def forward(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Loss ``()`` of predictions ``(B, *shape)``."""
        squared = (predicted - true).flatten(1).square().sum(1)
        return 1.0 - torch.exp(-squared / self.gamma**2).mean()

    def extra_repr(self) -> str:
        """Gamma."""
        return f"gamma={self.gamma:g}"


@dataclass(frozen=True)
class Stage:
    """A part of a training.

    Parameters
    ----------
    loss : callable (predicted, true) -> Tensor ()
    steps : int
    learning_rate : float
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    steps: int
    learning_rate: float


def image_schedule(
    values: int, warm_up: int = 20_000, matching: int = 20_000, gamma: float | None = None
) -> tuple[Stage, ...]:
    r"""Stages of the paper for images with values in [0, 1].

    Absolute error at a rate of 1e-3, then proximal matching at 1e-4 in four equal stages with
    :math:`\gamma = \gamma_0 \{8, 4, 2, 1\}`.

    Parameters
    ----------
    values : int
        Of an image: channels times height times width.
    warm_up, matching : int
        Steps of absolute error, and of proximal matching in all.
    gamma : float, positive, optional
        The last; :math:`0.08\sqrt{\mathrm{values}}` by default.
    """
    gamma = IMAGE_GAMMA * math.sqrt(values) if gamma is None else gamma
    quarters = [matching * (k + 1) // 4 - matching * k // 4 for k in range(4)]
    stages = [Stage(nn.L1Loss(), warm_up, 1e-3)] + [
        Stage(ProximalMatchingLoss(gamma * factor), steps, 1e-4)
        for factor, steps in zip((8, 4, 2, 1), quarters, strict=True)
    ]
    return tuple(stage for stage in stages if stage.steps)


def number_warm_up(
    share: float = 1.0, loss: Callable[[Tensor, Tensor], Tensor] | None = None
) -> tuple[Stage, ...]:
    """Stages of the paper for numbers before proximal matching: absolute error, or another.

    Parameters
    ----------
    share : float, positive
        Of the paper's 20,000 steps.
    loss : callable, optional
    """
    loss = loss or nn.L1Loss()
    return tuple(Stage(loss, _share(10_000, share), rate) for rate in (1e-3, 1e-4))


def number_matching(share: float = 1.0, sigma: float = 1.0) -> tuple[Stage, ...]:
    """Stages of the paper for numbers, of proximal matching.

    Parameters
    ----------
    share : float, positive
        Of the paper's 24,000 steps.
    sigma : float, positive
        Deviation of the noise, to which gamma is proportional; 1 in the paper.
    """
    plan = (
        *((0.5, 2000, 1e-3), (0.5, 2000, 1e-4), (0.4, 4000, 1e-4), (0.3, 4000, 1e-4)),
        *((0.2, 4000, 1e-5), (0.1, 4000, 1e-5), (0.1, 4000, 1e-6)),
    )
    return tuple(
        Stage(ProximalMatchingLoss(gamma * sigma), _share(steps, share), rate)
        for gamma, steps, rate in plan
    )


def _share(steps: int, share: float) -> int:
    return max(1, round(steps * share))


class ProjectedAdam(torch.optim.Adam):
    """Adam after each step of which a network is made convex again.

    Parameters
    ----------
    network : ConvexNetwork
    learning_rate : float
    """

    def __init__(self, network: ConvexNetwork, learning_rate: float) -> None:
        super().__init__(network.parameters(), learning_rate, fused=True)
        self._network = network

    def step(self, closure: Any = None) -> Any:
        """Update, then project."""
        result = super().step(closure)
        self._network.project()
        return result


def white_noise(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Independent standard normals of the shape of the clean values."""
    return torch.randn(clean.shape, generator=generator).to(clean)


def fit_lpn(
    lpn: LearnedProximalNetwork,
    sampler: CleanSampler,
    schedule: Sequence[Stage],
    *,
    batch_size: int = 200,
    seed: int = 0,
    noise: NoiseSampler = white_noise,
    validation: Tensor | None = None,
    validate_every: int = 100,
    checkpoint: Path | None = None,
    device: str = "cpu",
    interrupt: Literal["raise", "return"] = "raise",
    listener: Callable[[Event], None] | None = None,
) -> Outcome:
    """Train a network to be the proximal operator of what clean values are like.

    Parameters
    ----------
    lpn : LearnedProximalNetwork
        It knows the deviation of the noise. It is left with the last weights, or with the best.
    sampler : callable (count, generator) -> Tensor (count, *shape)
        Clean values.
    schedule : sequence of Stage
        In order, by one optimiser.
    batch_size : int
    seed : int
        Of the samples and the noise of each step, so that a run that goes on sees what it would
        have seen.
    noise : callable (clean, generator) -> Tensor (B, *shape)
        Noise of unit deviation. Independent unless given.
    validation : Tensor (n, *shape), optional
        Clean values by which the best weights are chosen, with the loss of the last stage.
    checkpoint : Path, optional
        File of the state; a run goes on from one that exists.
    device : str
        ``"cpu"`` or ``"cuda"``.
    interrupt : {"raise", "return"}
        What Ctrl-C does once the weights are restored.
    listener : callable (Event) -> None, optional

    Warns
    -----
    UserWarning
        If a gamma is so small that the loss is flat where its stage starts.
    """
    if not schedule:
        raise UserError("the schedule of the training has no stage")
    lpn.to(device).train()
    ends = list(accumulate(stage.steps for stage in schedule))

    def stage_at(step: int) -> int:
        return next((k for k, end in enumerate(ends) if step < end), len(ends) - 1)

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(hash((seed, step)) & 0x7FFFFFFF)
        clean = lpn.checked(sampler(batch_size, generator))
        k = stage_at(step)
        noisy = clean + lpn.sigma * noise(clean, generator)
        value = schedule[k].loss(lpn(noisy), clean)
        if step in (0, ends[k - 1] if k else 0):
            _warn_if_flat(schedule[k].loss, value)
        return value

    optimizer = ProjectedAdam(lpn.network, schedule[0].learning_rate)
    settings = Settings(
        max_steps=ends[-1],
        schedule=lambda progress: (
            schedule[stage_at(round(progress * ends[-1]))].learning_rate / schedule[0].learning_rate
        ),
        validate_every=validate_every,
        interrupt=interrupt,
        checkpoint=checkpoint,
    )
    trainer = Trainer(lpn.network, optimizer, settings)
    if checkpoint is not None and checkpoint.exists():
        trainer.resume(checkpoint)
    validate = None
    if validation is not None:
        clean = lpn.checked(validation)
        draws = torch.Generator().manual_seed(_VALIDATION_SEED)
        noisy = clean + lpn.sigma * white_noise(clean, draws)

        def validate() -> Tensor:
            return schedule[-1].loss(lpn.in_parts(noisy), clean).detach()

    outcome = trainer.run(loss, validate, listener)
    lpn.eval()
    return outcome


def _warn_if_flat(loss: object, value: Tensor) -> None:
    if isinstance(loss, ProximalMatchingLoss) and 1.0 - float(value.detach()) < _FLAT:
        warnings.warn(
            f"gamma {loss.gamma:g} is far below the distance of the network from clean values: the "
            "loss is flat and nothing is learnt; start with absolute error, or with a larger gamma",
            stacklevel=2,
        )
