r"""Training while an ensemble of runs streams its time steps (Meyer et al. 2023, 2306.16133).

.. code-block:: text

    solvers:  for p in sampler: for t, u in solver(p): buffer.put((p, t, u))   # waits if full
    trainer:  while batch := buffer.get(B):
                  step along the gradient of mean loss(network, batch)
                  every n batches: validate

There are no epochs, and nothing but checkpoints is written to disk: what is learned from is as
large as all runs, what is held is as large as the buffer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.core.loop import Event, Optimizer, Settings, Trainer
from understudy.simulate.stream import checkpoint as files
from understudy.simulate.stream.buffers import Buffer
from understudy.simulate.stream.ensemble import Ensemble
from understudy.simulate.stream.ledger import Ledger
from understudy.simulate.stream.losses import SampleLoss
from understudy.simulate.stream.reports import Listener, OnlineProgress, OnlineReport, Score
from understudy.simulate.stream.samplers import ParameterSampler
from understudy.simulate.stream.samples import Batch, Sample
from understudy.simulate.stream.settings import OnlineSettings
from understudy.simulate.stream.solver import StreamingSolver
from understudy.simulate.stream.virtual import VirtualEnsemble

Validation: TypeAlias = Batch | Callable[[nn.Module], Tensor]
"""Samples of fixed runs, or a score to minimise."""

_ENDLESS = 10**9
_CHUNK = 1024
_FOLLOW = 0.02  # share of the newest batch in the loss that is shown


class _DrainedError(Exception):
    """All runs have finished and all samples were used."""


class _Loop(Trainer):
    """The training loop, whose checkpoint is that of the study."""

    study: OnlineTrainer

    def _steps(self, *arguments: Any) -> str:
        try:
            self.study._await_samples()  # time is counted from here on
            return super()._steps(*arguments)
        except _DrainedError:
            return "drained"

    def save(self, path: Path) -> None:
        """Write the study; a disk that does not take it is no reason to end."""
        self.study._checkpoint(path)


class OnlineTrainer:
    """Trains a network on runs that are computed meanwhile.

    Parameters
    ----------
    model : nn.Module
    simulator : StreamingSolver
        Such as any `understudy.core.simulator.FieldSimulator`, or an
        `understudy.simulate.stream.external.ExternalSolver`.
    sampler : ParameterSampler
        Of the parameters of runs, over the simulator's space.
    buffer : Buffer
        Empty.
    optimizer : Optimizer, optional
        By default Adam of rate 1e-3, as in the heat study. Its weight decay of 1e-4 is left out:
        for fields scaled to [0, 1] it bounds what a network reaches.
    loss : callable (model, Batch) -> Tensor (B,)
        See `understudy.simulate.stream.losses`.
    max_simulations : int
        Runs that are to finish.
    workers : int
        Solver processes, of one thread each.
    settings : OnlineSettings, optional
    listener : callable (OnlineProgress), optional
    """

    def __init__(
        self,
        model: nn.Module,
        simulator: StreamingSolver,
        sampler: ParameterSampler,
        buffer: Buffer[Sample],
        optimizer: Optimizer | None = None,
        *,
        loss: SampleLoss,
        max_simulations: int = 1000,
        workers: int = 1,
        settings: OnlineSettings | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.settings = settings or OnlineSettings()
        if max_simulations < 1 or workers < 1:
            raise UserError(
                "max_simulations and workers must be at least 1, "
                f"found {max_simulations} and {workers}"
            )
        if not 1 <= self.settings.batch_size <= buffer.capacity:
            raise UserError(
                f"batch_size must be between 1 and the buffer's capacity {buffer.capacity}, "
                f"found {self.settings.batch_size}"
            )
        self.model, self.simulator, self.sampler, self.buffer = model, simulator, sampler, buffer
        self.loss, self.workers, self.listener = loss, workers, listener
        self.ledger = Ledger(max_simulations, max(20, 2 * workers * self.settings.runs_per_job))
        adam = optimizer or torch.optim.Adam(model.parameters(), lr=1e-3)
        self._loop = _Loop(model, adam, self._loop_settings())
        self._loop.study = self
        self._ensemble = self._source()
        self._history: list[Score] = []
        self._warnings: list[str] = []
        self._samples = 0
        self._shown, self._since, self._batches_since = math.nan, 0.0, 0
        self._validation: float | None = None
        self._started = self._began = self._told = 0.0
        self._startup = self._earlier = 0.0
        self._waited = (0.0, 0.0)
        self._first: list[Sample] = []

    @property
    def progress(self) -> float:
        """Share in [0, 1] of the batches or the seconds that the settings allow, what is larger."""
        return self._loop._progress()

    def run(self, validation: Validation | None = None) -> OnlineReport:
        """Train until all runs have finished and the buffer is empty, or the settings say stop.

        The best weights by validation are left in the model. Ctrl-C ends the study in order: a
        checkpoint is written, and the report says what was done.

        Parameters
        ----------
        validation : Batch or callable (model) -> Tensor (), optional
            Samples of fixed runs, see `validation_batch`, or a score.
        """
        self._started = time.perf_counter()
        reason = "interrupt"
        try:
            self._ensemble.start()
            outcome = self._loop.run(
                lambda _: self._train_loss(), self._validator(validation), self._tell
            )
            reason = outcome.reason
        except KeyboardInterrupt:  # before the first batch, or while the loop was finishing
            pass
        finally:
            self._ensemble.close()
        if self.listener is not None:
            with suppress(KeyboardInterrupt):  # there is nothing left to end
                self.listener(self._progress())
        return self._report(reason)

    def resume(self, path: str | Path) -> None:
        """Go on from a checkpoint of a study with the same settings, before `run`."""
        record, tensors = files.read(path)
        self._expect(record["study"], path)
        self.sampler.load_state_dict(record["sampler"])
        self.ledger.load_state_dict(record["ledger"])
        items = files.unpack(tensors)
        self.buffer.load_state_dict(record["buffer"] | {"items": items})
        self._ensemble.load_state_dict(record["ensemble"])
        prefix = "loop."
        self._loop.load_state(
            {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
        )
        torch.set_rng_state(tensors["torch_rng"])
        progress = record["progress"]
        self._history = [Score(**score) for score in progress["history"]]
        self._samples, self._earlier = progress["samples"], progress["seconds"]
        self._startup, self._waited = progress["startup"], tuple(progress["waited"])
        self._since, self._batches_since = progress["since"], progress["batches_since"]

    # -- the loop ---------------------------------------------------------------------------------

    def _loop_settings(self) -> Settings:
        mine = self.settings
        most = mine.max_batches or _ENDLESS
        schedule = mine.schedule
        return Settings(
            max_steps=most,
            max_seconds=mine.max_seconds,
            schedule=(lambda _: 1.0) if schedule is None else (lambda _: schedule(self._loop.step)),
            clip_norm=mine.clip_norm,
            ema_decay=mine.ema_decay,
            validate_every=mine.validate_every,
            patience=mine.patience,
            interrupt="return",
            checkpoint=None if mine.checkpoint is None else Path(mine.checkpoint),
            checkpoint_seconds=mine.checkpoint_seconds,
            device=mine.device,
            precision=mine.precision,
        )

    def _source(self) -> Ensemble | VirtualEnsemble:
        mine = self.settings
        parts = (self.simulator, self.sampler, self.buffer, self.ledger, mine.windows)
        if mine.clock is not None:
            return VirtualEnsemble(mine.clock, *parts, self.workers, mine.runs_per_job)
        more = (self.workers, mine.runs_per_job, mine.restarts, mine.executor)
        return Ensemble(*parts, *more)

    def _await_samples(self) -> None:
        """Wait until solvers run and there is a batch to learn from."""
        self._first = self._next_samples()
        self._began = self._told = time.perf_counter()
        self._startup += self._began - self._started
        if not self._loop.step:
            self._waited = self._ensemble.waits

    def _next_samples(self) -> list[Sample]:
        samples = self._ensemble.next_batch(self.settings.batch_size)
        if not samples:
            raise _DrainedError
        return samples

    def _train_loss(self) -> Tensor:
        samples, self._first = self._first or self._next_samples(), []
        batch = Batch.of(samples, self.settings.windows)
        each = self.loss(self._loop.model, batch.to(self._device))
        self.sampler.observe(batch.runs, batch.codes, each.detach())
        self._samples += len(samples)
        mean = each.mean()
        self._note(float(mean.detach()))
        return mean

    @property
    def _device(self) -> torch.device:
        return next(self._loop.model.parameters()).device

    def _note(self, loss: float) -> None:
        shown = loss if math.isnan(self._shown) else self._shown
        self._shown = shown + _FOLLOW * (loss - shown)
        self._since += loss
        self._batches_since += 1

    def _validator(self, validation: Validation | None) -> Callable[[], Tensor] | None:
        if validation is None:
            return None
        if isinstance(validation, Batch):
            return lambda: self._scored(self._mean_loss(validation))
        return lambda: self._scored(validation(self._loop.model))

    def _mean_loss(self, batch: Batch) -> Tensor:
        model = self._loop.model
        training = model.training
        model.eval()
        total = sum(
            self.loss(model, part.to(self._device)).double().sum() for part in batch.chunks(_CHUNK)
        )
        model.train(training)
        return torch.as_tensor(total) / len(batch)

    def _scored(self, score: Tensor) -> Tensor:
        self._validation = float(score)
        mean = self._since / max(self._batches_since, 1)
        moment = Score(self._loop.step, self._seconds, mean, self._validation)
        self._history.append(moment)
        self._since, self._batches_since = 0.0, 0
        return score

    # -- what is told -----------------------------------------------------------------------------

    @property
    def _seconds(self) -> float:
        return self._earlier + (time.perf_counter() - self._began if self._began else 0.0)

    def _tell(self, event: Event) -> None:
        now = time.perf_counter()
        if self.listener is None or now - self._told < self.settings.progress_seconds:
            return
        self._told = now
        self.listener(self._progress())

    def _waits(self) -> tuple[float, float]:
        solver, trainer = self._ensemble.waits
        return solver - self._waited[0], trainer - self._waited[1]

    def _progress(self) -> OnlineProgress:
        seconds = self._seconds
        solver_wait, trainer_wait = self._waits()
        with self.buffer.lock:
            return OnlineProgress(
                batch=self._loop.step,
                samples=self._samples,
                seconds=seconds,
                loss=self._shown,
                validation=self._validation,
                samples_per_second=self._samples / max(seconds, 1e-9),
                solver_wait=solver_wait,
                trainer_wait=trainer_wait,
                population=len(self.buffer),
                unseen=self.buffer.unseen,
                capacity=self.buffer.capacity,
                finished=self.ledger.finished,
                running=len(self.ledger.runs),
                simulations=self.ledger.simulations,
                frames=self.ledger.frames,
                bytes_streamed=self.ledger.bytes,
                dropped=len(self.ledger.dropped),
                restarts=self.ledger.restarts,
                processes=tuple(self._ensemble.processes()),
            )

    def _report(self, reason: str) -> OnlineReport:
        solver_wait, trainer_wait = self._waits()
        return OnlineReport(
            reason=reason,
            history=tuple(self._history),
            repetitions=self.buffer.uses(),
            batches=self._loop.step,
            samples=self._samples,
            seconds=self._seconds,
            startup_seconds=self._startup,
            solver_wait=solver_wait,
            trainer_wait=trainer_wait,
            frames=self.ledger.frames,
            bytes_streamed=self.ledger.bytes,
            finished=self.ledger.finished,
            restarts=self.ledger.restarts,
            dropped=tuple(self.ledger.dropped),
            warnings=tuple(self._warnings),
        )

    # -- checkpoints ------------------------------------------------------------------------------

    def _checkpoint(self, path: Path) -> None:
        with self.buffer.lock:
            state = self.buffer.state_dict()
            tensors = files.pack(state.pop("items"))
            record = {
                "study": self._identity(),
                "sampler": self.sampler.state_dict(),
                "ledger": self.ledger.state_dict(),
                "ensemble": self._ensemble.state_dict(),
                "buffer": state,
                "progress": {
                    "history": [asdict(score) for score in self._history],
                    "samples": self._samples,
                    "seconds": self._seconds,
                    "startup": self._startup,
                    "waited": self._waited,
                    "since": self._since,
                    "batches_since": self._batches_since,
                },
            }
        tensors |= {f"loop.{name}": tensor for name, tensor in self._loop.state().items()}
        tensors["torch_rng"] = torch.get_rng_state()
        try:
            files.write(path, record, tensors)
        except files.CheckpointError as error:
            self._warnings.append(str(error))

    def _identity(self) -> dict[str, Any]:
        """What has to be the same for a study to go on."""
        return {
            "inputs": self.sampler.space.names,
            "batch_size": self.settings.batch_size,
            "windows": asdict(self.settings.windows),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "virtual": self.settings.clock is not None,
        }

    def _expect(self, found: dict[str, Any], path: str | Path) -> None:
        mine = self._identity()
        for name, value in mine.items():
            if found.get(name) != value:
                raise UserError(
                    f"{path} is of another study: its {name} is {found.get(name)}, here {value}"
                )
