"""The one training loop: steps until a budget, a schedule or the validation score says stop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

Schedule = Callable[[float], float]
"""Learning-rate factor as a function of progress in [0, 1]."""


class Optimizer(Protocol):
    """What the loop asks of an optimiser; those of `torch.optim` have it."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any:
        """Update the parameters from their gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors of every parameter by its number, and the groups."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


def constant(progress: float) -> float:
    """Keep the learning rate as it is."""
    return 1.0


def cosine(warmup: float = 0.0, flat: float = 0.0, floor: float = 0.0) -> Schedule:
    """Rise linearly, stay, then fall along half a cosine (Loshchilov & Hutter 2017, 1608.03983).

    Parameters
    ----------
    warmup, flat : float in [0, 1)
        Shares of the run spent rising from 0 and staying at 1; their sum below 1.
    floor : float in [0, 1]
        Factor at the end.
    """

    def factor(progress: float) -> float:
        if progress < warmup:
            return max(progress / warmup, 1e-3)
        fall = min(max(progress - warmup - flat, 0.0) / (1.0 - warmup - flat), 1.0)
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * fall))

    return factor


def shuffled_batches(
    rows: int, batch_size: int, seed: int = 0, networks: int | None = None
) -> Callable[[int], Tensor]:
    """Mini-batches by step number, so that a resumed run sees the batches it would have seen.

    Parameters
    ----------
    rows : int
        Number of rows to choose from; every epoch visits each once (a last part batch is left out).
    networks : int, optional
        Number of networks, each with a shuffle of its own.

    Returns
    -------
    callable (step) -> LongTensor (batch_size,) or (networks, batch_size)
    """
    size = min(batch_size, rows)
    per_epoch = rows // size
    drawn: dict[int, Tensor] = {}

    def batch(step: int) -> Tensor:
        epoch, at = divmod(step, per_epoch)
        if epoch not in drawn:
            drawn.clear()
            generator = torch.Generator().manual_seed(hash((seed, epoch)) & 0x7FFFFFFF)
            noise = torch.rand((networks or 1), rows, generator=generator)
            drawn[epoch] = noise.argsort(dim=1) if networks else noise.argsort(dim=1)[0]
        return drawn[epoch][..., at * size : (at + 1) * size]

    return batch


@dataclass(frozen=True)
class Settings:
    """How a network is trained.

    Parameters
    ----------
    max_steps : int
        Optimiser steps at most.
    max_seconds : float, optional
        Wall time at most. Progress, which drives the schedule, is the larger of the two shares,
        so a run cut by time has still annealed its learning rate.
    schedule : callable
        Learning-rate factor by progress.
    clip_norm : float, optional
        Largest gradient norm; of each network by itself where there are several.
    ema_decay : float, optional
        Decay of the moving average of the weights; the average is what is validated and kept.
    validate_every : int
        Steps between validations.
    patience : int, optional
        Validations without improvement after which the run stops.
    networks : int, optional
        Number of independent networks stacked along the first dimension of every parameter.
        Their scores, best weights and gradient norms are kept apart.
    interrupt : {"raise", "return"}
        After Ctrl-C the best weights are restored; then the interrupt goes on, or the run returns.
    checkpoint : Path, optional
        File that holds the state; written every `checkpoint_seconds` and at the end.
    device, precision : str
        Anything but ``"cpu"`` and ``"32-true"`` is left to Lightning Fabric. It scales no losses
        for optimisers that are not of `torch.optim`, which rules out ``"16-mixed"`` for them.
    """

    max_steps: int
    max_seconds: float | None = None
    schedule: Schedule = constant
    clip_norm: float | None = None
    ema_decay: float | None = None
    validate_every: int = 50
    patience: int | None = None
    networks: int | None = None
    interrupt: Literal["raise", "return"] = "raise"
    checkpoint: Path | None = None
    checkpoint_seconds: float = 60.0
    device: str = "cpu"
    precision: str = "32-true"


@dataclass(frozen=True)
class Event:
    """What a callback sees: step, progress in [0, 1], seconds so far and the last score."""

    step: int
    progress: float
    seconds: float
    score: Tensor | None


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Parameters
    ----------
    reason : str
        ``"steps"``, ``"seconds"``, ``"patience"`` or ``"interrupt"``.
    score : Tensor () or (networks,), optional
        Best validation score.
    best_step : Tensor, of the same shape, optional
        Step at which it was reached.
    """

    reason: str
    steps: int
    seconds: float
    score: Tensor | None = None
    best_step: Tensor | None = None


@dataclass
class Trainer:
    """Train a module: loss, gradient, step, until the settings say stop.

    Parameters
    ----------
    model : nn.Module
    optimizer : Optimizer
        Over the parameters of `model`.
    settings : Settings
    """

    model: nn.Module
    optimizer: Optimizer
    settings: Settings
    step: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._backward: Callable[[Tensor], None] = torch.Tensor.backward
        self._setup_fabric()
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        kept = self.model.state_dict()  # buffers such as the statistics of normalisations
        self._buffers = [b for name, b in self.model.named_buffers() if name in kept]
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        keep_average = self.settings.ema_decay is not None
        self._average = [p.detach().clone() for p in self._parameters] if keep_average else []
        self._best: list[Tensor] = []
        self._best_buffers: list[Tensor] = []
        self._score: Tensor | None = None
        self._best_step: Tensor | None = None
        self._waited = 0

    def run(
        self,
        loss: Callable[[int], Tensor],
        validate: Callable[[], Tensor] | None = None,
        on_step: Callable[[Event], None] | None = None,
    ) -> Outcome:
        """Train, and leave the best weights, and the buffers that go with them, in the model.

        Parameters
        ----------
        loss : callable (step) -> Tensor ()
            Scalar to minimise; the sum over networks where there are several.
        validate : callable () -> Tensor () or (networks,), optional
            Score to minimise, called without gradient on the weights that would be kept.
        on_step : callable (Event) -> None, optional
            Called after every step.

        Returns
        -------
        Outcome
        """
        reason = "interrupt"
        try:
            reason = self._steps(loss, validate, on_step)
        except KeyboardInterrupt:
            if self.settings.interrupt == "raise":
                raise
        finally:
            self._finish(validate if reason != "interrupt" else None)
        return Outcome(reason, self.step, self.seconds, self._score, self._best_step)

    def _steps(
        self,
        loss: Callable[[int], Tensor],
        validate: Callable[[], Tensor] | None,
        on_step: Callable[[Event], None] | None,
    ) -> str:
        settings, start, saved = self.settings, time.perf_counter() - self.seconds, self.seconds
        while self.step < settings.max_steps:
            self._update(loss(self.step), self._progress())
            self.step += 1
            self.seconds = time.perf_counter() - start
            if validate is not None and self.step % settings.validate_every == 0:
                self._validate(validate)
                if settings.patience is not None and self._waited >= settings.patience:
                    return "patience"
            if on_step is not None:
                on_step(Event(self.step, self._progress(), self.seconds, self._score))
            if settings.checkpoint and self.seconds - saved > settings.checkpoint_seconds:
                self.save(settings.checkpoint)
                saved = self.seconds
            if settings.max_seconds is not None and self.seconds >= settings.max_seconds:
                return "seconds"
        return "steps"

    def _progress(self) -> float:
        by_steps = self.step / self.settings.max_steps
        if self.settings.max_seconds is None:
            return by_steps
        return min(max(by_steps, self.seconds / max(self.settings.max_seconds, 1e-9)), 1.0)

    def _update(self, loss: Tensor, progress: float) -> None:
        factor = self.settings.schedule(progress)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        for parameter in self._parameters:
            parameter.grad = None
        self._backward(loss)
        if self.settings.clip_norm is not None:
            self._clip(self.settings.clip_norm)
        self.optimizer.step()
        if self.settings.ema_decay is not None:
            # early on the average follows faster, so that it forgets the initial weights
            decay = min(self.settings.ema_decay, (1.0 + self.step) / (10.0 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(self._average, list[Tensor](self._parameters), 1.0 - decay)

    @torch.no_grad()
    def _clip(self, largest: float) -> None:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if self.settings.networks is None:
            torch.nn.utils.clip_grad_norm_(self._parameters, largest)
            return
        squares = torch.stack([g.reshape(len(g), -1).square().sum(1) for g in gradients]).sum(0)
        factor = (largest / (squares.sqrt() + 1e-12)).clamp(max=1.0)
        for g in gradients:
            g.mul_(factor.reshape(-1, *[1] * (g.ndim - 1)))

    @torch.no_grad()
    def _validate(self, validate: Callable[[], Tensor]) -> None:
        with self._averaged():
            score = validate().detach().clone()
            if self._score is None or self._best_step is None:
                self._score = torch.full_like(score, math.inf)
                self._best_step = torch.zeros_like(score, dtype=torch.long)
                self._best = [p.detach().clone() for p in self._parameters]
            better = score < self._score
            if not better.ndim and (bool(better) or not self._best_buffers):
                self._best_buffers = [b.detach().clone() for b in self._buffers]
            self._waited = 0 if bool(better.any()) else self._waited + 1
            self._score = torch.where(better, score, self._score)
            self._best_step = torch.where(better, self.step, self._best_step)
            for best, now in zip(self._best, self._parameters, strict=True):
                chosen = better.reshape(-1, *[1] * (now.ndim - 1)) if better.ndim else better
                torch.where(chosen, now, best, out=best)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the averaged weights in the model for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for i, average in enumerate(self._average):
            parameter = self._parameters[i]
            self._average[i], parameter.data = parameter.data, average

    def _finish(self, validate: Callable[[], Tensor] | None) -> None:
        """Validate the last weights if that is due, write the checkpoint, restore the best."""
        if validate is not None and self.step % self.settings.validate_every:
            self._validate(validate)
        if self.settings.checkpoint is not None:
            self.save(self.settings.checkpoint)
        keep = self._best if self._best else self._average
        for parameter, value in zip(self._parameters, keep, strict=False):
            parameter.data.copy_(value)
        for buffer, value in zip(self._buffers, self._best_buffers, strict=False):
            buffer.copy_(value)

    # -- resumption ---------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Everything that a later run needs to go on, as named tensors."""
        state = {f"model.{i}": p.detach() for i, p in enumerate(self._parameters)}
        state |= {f"average.{i}": value for i, value in enumerate(self._average)}
        state |= {f"best.{i}": value for i, value in enumerate(self._best)}
        state |= {f"buffer.{i}": b.detach() for i, b in enumerate(self._buffers)}
        state |= {f"best_buffer.{i}": value for i, value in enumerate(self._best_buffers)}
        for i, slots in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{i}.{k}": v for k, v in slots.items() if isinstance(v, Tensor)}
        if self._score is not None and self._best_step is not None:
            state |= {"score": self._score, "best_step": self._best_step}
        clock = torch.tensor([self.step, self.seconds, self._waited], dtype=torch.float64)
        return {k: v.clone() for k, v in state.items()} | {"clock": clock}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        step, self.seconds, waited = state["clock"].tolist()
        self.step, self._waited = int(step), int(waited)
        for i, parameter in enumerate(self._parameters):
            parameter.data.copy_(state[f"model.{i}"])
        self._average = [state[f"average.{i}"].clone() for i in range(len(self._average))]
        for i, buffer in enumerate(self._buffers):
            buffer.copy_(state[f"buffer.{i}"])
        kept = [i for i in range(len(self._buffers)) if f"best_buffer.{i}" in state]
        self._best_buffers = [state[f"best_buffer.{i}"].clone() for i in kept]
        if "score" in state:
            self._score, self._best_step = state["score"].clone(), state["best_step"].clone()
            self._best = [state[f"best.{i}"].clone() for i in range(len(self._parameters))]
        slots: dict[int, dict[str, Any]] = {}
        for name, value in state.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".", 2)
                slots.setdefault(int(number), {})[key] = value.clone()
        groups = self.optimizer.state_dict()["param_groups"]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})

    def save(self, path: Path) -> None:
        """Write the state to a safetensors file, whole or not at all."""
        from safetensors.torch import save_file

        tensors = {k: v.contiguous().cpu() for k, v in self.state().items()}
        part = Path(f"{path}.part")
        save_file(tensors, part, metadata={"understudy": json.dumps({"kind": "training"})})
        part.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a file that `save` wrote."""
        from safetensors.torch import load_file

        self.load_state(load_file(path))

    # -- other devices ------------------------------------------------------------------------

    def _setup_fabric(self) -> None:
        if self.settings.device == "cpu" and self.settings.precision == "32-true":
            return
        from lightning_fabric import Fabric

        fabric = Fabric(
            accelerator=self.settings.device,
            devices=1,
            precision=self.settings.precision,  # type: ignore[arg-type]
        )
        if isinstance(self.optimizer, torch.optim.Optimizer):
            self.model, self.optimizer = fabric.setup(self.model, self.optimizer)
        else:
            self.model = fabric.setup_module(self.model)
        self._backward = fabric.backward
