"""How the sound operator is trained (Borrel-Jensen et al. 2024, arXiv 2308.05141)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.loop import Outcome, Settings, Trainer
from understudy.models.operators.sound_network import PulseNetwork, StackedNetworks
from understudy.models.operators.training import Listener
from understudy.nn.soap import SOAP


@dataclass(frozen=True)
class SoundTraining:
    """How a sound operator is trained; defaults are the paper's.

    Parameters
    ----------
    steps : int
        60,000 to 80,000 in the paper, 40,000 after transfer.
    sources, points : int
        Of a batch. (The paper draws 200 to 1000 points for each source.)
    learning_rate : float
        Of the optimiser, times `decay` every `decay_steps`, continuously. Where `max_seconds` are
        given it falls by as much in that time, however few steps it allows.
    weight_decay : float
        Decoupled.
    clip_norm : float
        Largest norm of a gradient.
    validate_every : int
        Steps between validations, which choose the weights that are kept.
    device : {"cpu", "cuda"}
    optimizer : {"adamw", "soap"}
        The paper's, or :class:`~understudy.nn.soap.SOAP`, which gets as far in fewer steps, at
        larger learning rates.
    max_seconds : float, optional
        Time of training at most.
    interrupt : {"raise", "return"}
        After Ctrl-C the best weights are kept; then the interrupt goes on, or training returns.
    """

    steps: int = 60_000
    sources: int = 64
    points: int = 2000
    learning_rate: float = 1e-3
    decay: float = 0.9
    decay_steps: float = 2000.0
    weight_decay: float = 1e-4
    clip_norm: float = 0.01
    validate_every: int = 500
    seed: int = 0
    device: str = "cpu"
    optimizer: Literal["adamw", "soap"] = "adamw"
    max_seconds: float | None = None
    interrupt: Literal["raise", "return"] = "raise"

    def __post_init__(self) -> None:
        if min(self.steps, self.sources, self.points, self.validate_every) < 1:
            raise UserError("steps, sources, points and validate_every must be at least 1")
        rates = {"learning_rate": self.learning_rate, "decay_steps": self.decay_steps}
        for name, value in {**rates, "decay": self.decay, "clip_norm": self.clip_norm}.items():
            if not value > 0.0:
                raise UserError(f"{name} must be positive, found {value}")
        if self.optimizer not in ("adamw", "soap"):
            raise UserError(f"optimizer must be adamw or soap, found {self.optimizer!r}")

    def schedule(self, progress: float) -> float:
        """Factor of the learning rate."""
        return float(self.decay ** (progress * self.steps / self.decay_steps))

    def over(self, parameters: Sequence[Tensor]) -> Any:
        """Optimiser of these parameters."""
        if self.optimizer == "soap":
            return SOAP(parameters, self.learning_rate, weight_decay=self.weight_decay)
        return torch.optim.AdamW(
            parameters, self.learning_rate, weight_decay=self.weight_decay, fused=True
        )


Batch = tuple[Tensor, Tensor, Tensor]
"""Pulses ``(B, S)``, scaled points ``(R, M, 3)`` of R parts, and pressure ``(R, B, M)``."""


class PulseExamples:
    """Pressure of N pulses at T times and M points, from which batches are drawn by step number.

    Parameters
    ----------
    pulses : Tensor (N, S)
        At the sensors, in Pa.
    at : Tensor (T, M, 3)
        Scaled points.
    pressure : Tensor (N, T, M)
        In Pa.
    part : Tensor (M,), long
        In which part of the room each point lies.
    count : int
        Parts R.
    """

    def __init__(
        self, pulses: Tensor, at: Tensor, pressure: Tensor, part: Tensor, count: int
    ) -> None:
        self.times, self.points = at.shape[:2]
        self.pulses = pulses
        self.at = at.flatten(0, 1)
        # a point's row has all pulses, so that a batch reads few lines of memory
        self.pressure = pressure.flatten(1).T.contiguous()
        self.members = [(part == r).nonzero().flatten() for r in range(count)]
        for r, members in enumerate(self.members):
            if not len(members):
                raise UserError(f"part {r + 1} of the room holds no point of the data")

    def to(self, device: torch.device) -> PulseExamples:
        """Put everything but numbers of points on a device."""
        self.pulses, self.at = self.pulses.to(device), self.at.to(device)
        self.pressure = self.pressure.to(device)
        return self

    def draw(self, step: int, plan: SoundTraining) -> Batch:
        """Some pulses at some points, the same for the same step and seed."""
        generator = torch.Generator().manual_seed(hash((plan.seed, step)) & 0x7FFFFFFF)
        rows = torch.randperm(len(self.pulses), generator=generator)[: plan.sources]
        return self._taken(rows, self._chosen(plan.points, generator))

    def fixed(self, plan: SoundTraining) -> Batch:
        """All pulses at some points that are always the same."""
        generator = torch.Generator().manual_seed(plan.seed)
        chosen = self._chosen(2 * plan.points, generator)
        return self._taken(torch.arange(len(self.pulses)), chosen)

    def _chosen(self, count: int, generator: torch.Generator) -> Tensor:
        """Flat numbers ``(R, count)`` of times and points, points of each part."""
        t = torch.randint(self.times, (len(self.members), count), generator=generator)
        at = [m[torch.randint(len(m), (count,), generator=generator)] for m in self.members]
        return t * self.points + torch.stack(at)

    def _taken(self, rows: Tensor, chosen: Tensor) -> Batch:
        rows, chosen = rows.to(self.pulses.device), chosen.to(self.pulses.device)
        pressure = self.pressure[chosen][..., rows].mT
        return self.pulses[rows], self.at[chosen], pressure


def train_networks(
    networks: Sequence[PulseNetwork],
    data: PulseExamples,
    validation: PulseExamples | None,
    plan: SoundTraining,
    freeze: Sequence[str] = (),
    listener: Listener | None = None,
) -> Outcome:
    """Minimise the mean squared error of the networks of all parts, side by side.

    Parameters
    ----------
    networks : sequence of PulseNetwork, R
        They get the trained weights.
    data, validation : PulseExamples
        The validation chooses the weights that are kept, for each part by itself.
    plan : SoundTraining
    freeze : sequence of str
        Parameters whose names begin so stay as they are.
    listener : callable (Event) -> None, optional
    """
    device = torch.device(plan.device)
    parts = StackedNetworks(networks).to(device)
    parts.freeze(freeze)
    data.to(device)

    def squares(batch: Batch) -> Tensor:
        u, y, p = batch
        return (parts(u, y) - p).square().mean((1, 2))

    validate = None
    if validation is not None:
        held = validation.to(device).fixed(plan)

        def validate() -> Tensor:
            return squares(held)

    trained = [v for v in parts.values if v.requires_grad]
    settings = Settings(
        max_steps=plan.steps,
        max_seconds=plan.max_seconds,
        interrupt=plan.interrupt,
        schedule=plan.schedule,
        clip_norm=plan.clip_norm,
        validate_every=plan.validate_every,
        networks=len(networks),
    )
    trainer = Trainer(parts, plan.over(trained), settings)
    outcome = trainer.run(lambda step: squares(data.draw(step, plan)).sum(), validate, listener)
    for network, weights in zip(networks, parts.unstack(), strict=True):
        network.load_state_dict(weights)
        network.to("cpu").eval()
    return outcome
