r"""Training of a PROSE: batches of noisy trajectories, guesses of their equations, both losses.

.. math:: L = 6\, \mathop{\mathrm{mean}}_b \frac{\|\hat u - u\|^2}{\|u\|^2 + 10^{-5}}
    + \text{cross-entropy of the tokens},

norms over the output times and components (Liu, Zhang & Schaeffer 2023, arXiv 2309.16816). Noise
of the input is :math:`0.02\, \|u\|\, n / \|n\|` with n normal: exactly 2 % of its norm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.loop import Outcome, Schedule, Settings, Trainer, cosine, shuffled_batches
from understudy.data.trajectories import TrajectorySet
from understudy.models.operators.equation_guesses import GuessSampler
from understudy.models.operators.prose_network import Fused
from understudy.models.operators.training import Listener
from understudy.nn.soap import SOAP

if TYPE_CHECKING:
    from understudy.models.operators.prose import PROSE


@dataclass(frozen=True)
class PROSETraining:
    """How a PROSE is trained; unless given as in the paper's code.

    Parameters
    ----------
    steps, batch_size : int
        160,000 and 512 in the paper.
    learning_rate : float
        After rising for `warmup` steps.
    decay : {"inverse-sqrt", "cosine"}
        How it falls then; along a cosine in runs that are short.
    optimizer : {"adam", "soap"}
        SOAP takes fewer steps (:mod:`understudy.nn.soap`); the paper has Adam.
    weight_decay : float
        With Adam coupled, an L2 term of the gradient.
    start : {"paper", "ordered"}
        How weights begin. ``"ordered"`` tells the network the order of times and of numbers:
        requests begin centred on the output times, and mantissas on a circle, the neighbours of
        each at its sides (:meth:`PROSENetwork.centre_queries`, :func:`mantissa_circle`).
    clip_norm : float
    data_weight : float
        Of the error of the solution beside the cross-entropy.
    noise : float
        Norm of the noise of the input over that of the input.
    noisy_targets : bool
        Whether the solution that is learnt has the same noise, as in the paper's code.
    add, delete : float
        Shares of guesses with a term too many and a term too few.
    query_points : int, optional
        Output times of a step, drawn at random; all of them unless given.
    device : {"cpu", "cuda"}
    checkpoint : Path, optional
        File from which a run that was cut off goes on.
    """

    steps: int = 160_000
    batch_size: int = 512
    learning_rate: float = 1e-4
    warmup: int = 20_000
    decay: Literal["inverse-sqrt", "cosine"] = "inverse-sqrt"
    optimizer: Literal["adam", "soap"] = "adam"
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    data_weight: float = 6.0
    noise: float = 0.02
    noisy_targets: bool = False
    add: float = 0.15
    delete: float = 0.15
    query_points: int | None = None
    start: Literal["paper", "ordered"] = "paper"
    seed: int = 0
    device: str = "cpu"
    checkpoint: Path | None = None
    interrupt: Literal["raise", "return"] = "raise"

    @property
    def schedule(self) -> Schedule:
        """Factor of the learning rate by progress."""
        start = self.warmup / self.steps
        if self.decay == "cosine":
            return cosine(warmup=min(start, 0.99), floor=0.01)
        return lambda progress: (
            max(progress / start, 1e-3) if progress < start else math.sqrt(start / progress)
        )


def train(
    model: PROSE, data: TrajectorySet, plan: PROSETraining, listener: Listener | None = None
) -> Outcome:
    """Train a model that is prepared for the data; see :meth:`PROSE.fit`."""
    network, device = model.network, torch.device(plan.device)
    resumed = plan.checkpoint is not None and plan.checkpoint.exists()
    if plan.start == "ordered" and not resumed:
        _order(model, data)
    network.to(device)
    settings = Settings(
        max_steps=plan.steps,
        schedule=plan.schedule,
        clip_norm=plan.clip_norm,
        checkpoint=plan.checkpoint,
        interrupt=plan.interrupt,
    )
    trainer = Trainer(network, _optimizer(network, plan), settings)
    if resumed and plan.checkpoint is not None:
        trainer.resume(plan.checkpoint)
    network.train()
    outcome = trainer.run(_Loss(model, data, plan, device), None, listener)
    network.eval()
    return outcome


def _optimizer(network: torch.nn.Module, plan: PROSETraining) -> Any:
    if plan.optimizer == "soap":
        return SOAP(network.parameters(), plan.learning_rate, weight_decay=plan.weight_decay)
    return torch.optim.Adam(
        network.parameters(),
        plan.learning_rate,
        weight_decay=plan.weight_decay,
        foreach=True,
    )


@torch.no_grad()
def _order(model: PROSE, data: TrajectorySet) -> None:
    """Let weights begin with the order of output times and of mantissas."""
    network, tokenizer = model.network, model.tokenizer
    sizes = network.architecture
    if sizes.writes_data:
        network.centre_queries(float(data.t[max(model.given)]), float(data.t[-1]))
    ids, values = tokenizer.mantissas
    rows = mantissa_circle(values, sizes.width)
    if sizes.writes_symbols:
        network.written.embedding.weight[ids] = rows
    if sizes.reads_symbols and model.guess == "numbers":
        network.symbols.embedding.weight[ids] = rows


def mantissa_circle(mantissas: Tensor, width: int) -> Tensor:
    r"""Vectors of unit length in which mantissas are neighbours that are so as numbers.

    .. math:: (\sin, \cos)(2 \pi n_j \log_{10} m), \qquad n_j \approx 1.165^j

    with whole numbers :math:`n_j`, so that 999 is beside 100.

    Parameters
    ----------
    mantissas : Tensor (M,)
        Positive.
    width : int

    Returns
    -------
    Tensor (M, width)
    """
    turns = [1]
    while len(turns) < -(-width // 2):
        turns.append(max(turns[-1] + 1, round(1.165 * turns[-1])))
    phase = 2.0 * math.pi * mantissas.double().log10()[:, None] * torch.tensor(turns)
    rows = torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(1)[:, :width]
    return F.normalize(rows, dim=1).float()


class _Loss:
    """Loss of a step: a batch, its noise, its guesses and its output times."""

    def __init__(
        self, model: PROSE, data: TrajectorySet, plan: PROSETraining, device: torch.device
    ) -> None:
        self.model, self.data, self.plan, self.device = model, data, plan, device
        self.sizes = model.network.architecture
        self.batches = shuffled_batches(len(data), plan.batch_size, plan.seed)
        self.first = max(model.given)
        tokenizer = model.tokenizer
        if self.sizes.writes_symbols:
            self.targets = tokenizer.encode_set(data)
            _check_length(self.targets, self.sizes.max_tokens)
        if self.sizes.reads_symbols:
            self.guesses = GuessSampler(
                tokenizer, data.skeletons, model.guess == "skeleton", seed=plan.seed
            )

    def __call__(self, step: int) -> Tensor:
        plan, data = self.plan, self.data
        seed = hash((plan.seed, step)) & 0x7FFFFFFF
        generator = torch.Generator().manual_seed(seed)
        rows = self.batches(step)
        given = self.model.given[step % len(self.model.given)]
        u, mask = data.u[rows], data.mask[rows]
        # the whole trajectory is perturbed, its beginning by exactly its share
        noisy = add_noise(u, mask, plan.noise, generator, given)
        guess = None
        if self.sizes.reads_symbols:
            guess = self.guesses.draw(
                data.which[rows], data.numbers[rows], generator, plan.add, plan.delete
            ).to(self.device)
        scaled = (noisy[:, :given] / self.model.scale).to(self.device)
        fused = self.model.network.encode(data.t[:given].to(self.device), scaled, guess)
        loss = torch.zeros((), device=self.device)
        if self.sizes.writes_data:
            units = self.model.units_of(noisy[:, :given], mask).to(self.device)
            truth = noisy if plan.noisy_targets else u
            loss = plan.data_weight * self._error(fused, units, truth, mask, generator)
        if self.sizes.writes_symbols:
            loss = loss + self._cross_entropy(fused, self.targets[rows])
        return loss

    def _error(
        self,
        fused: Fused,
        units: Tensor,
        u: Tensor,
        mask: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Mean over the batch of the squared relative error of the solution."""
        times = torch.arange(self.first, len(self.data.t))
        if self.plan.query_points is not None and self.plan.query_points < len(times):
            order = torch.randperm(len(times), generator=generator)
            times = times[order[: self.plan.query_points]]
        said = units * self.model.network.solution(fused, self.data.t[times])
        truth = u[:, times].to(self.device)
        error = (said - truth) * mask[:, None].to(self.device)
        return (error.square().sum((1, 2)) / (truth.square().sum((1, 2)) + 1e-5)).mean()

    def _cross_entropy(self, fused: Fused, targets: Tensor) -> Tensor:
        tokenizer = self.model.tokenizer
        length = int((targets != tokenizer.pad).sum(1).max())
        before = F.pad(targets[:, :length], (1, 0), value=tokenizer.bos)
        after = F.pad(targets[:, :length], (0, 1), value=tokenizer.pad)
        ends = (after != tokenizer.pad).sum(1, keepdim=True)
        after = after.scatter(1, ends, tokenizer.eos).to(self.device)
        real = after != tokenizer.pad
        logits = self.model.network.logits(fused, before.to(self.device), real)
        return F.cross_entropy(logits, after[real])


def add_noise(
    u: Tensor, mask: Tensor, share: float, generator: torch.Generator, given: int | None = None
) -> Tensor:
    """Trajectories with normal noise whose norm is a share of theirs.

    Parameters
    ----------
    u : Tensor (B, T, d)
    mask : Tensor (B, d)
        Components that are real; others stay zero.
    share : float
    generator : torch.Generator
    given : int, optional
        Points of which both norms are taken; all unless given.
    """
    if share < 0:
        raise UserError(f"the share of noise must be at least 0, found {share}")
    noise = torch.randn(u.shape, generator=generator) * mask[:, None]
    size = u[:, :given].flatten(1).norm(dim=1) / noise[:, :given].flatten(1).norm(dim=1)
    return u + share * size[:, None, None] * noise


def _check_length(tokens: Tensor, longest: int) -> None:
    if tokens.shape[1] > longest:
        raise UserError(
            f"an equation has {tokens.shape[1]} tokens, the network is made for {longest}"
        )
