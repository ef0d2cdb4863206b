r"""Training of sparse Bayesian networks: the loss, its annealing and the optimiser.

Li, Miao, Qiu & Zhang 2024 (arXiv 2402.11025). On N rows, with c the annealing of epoch e of E,

.. math:: \mathcal L = \frac1B \sum_{i \in \text{batch}} -\ln p(y_i \mid x_i)
          + c\,\frac{\kappa}{N}\,\mathrm{KL}, \qquad c = \min(2e/E,\, 1),

where :math:`\kappa < 1` makes the posterior colder than Bayes' (0.01 in the official code). SGD
with momentum steps inside the support, which moves as `understudy.nn.sparse_subspace` says; the
learning rate falls along a cosine. Weight decay pulls at the means as the prior does already: the
official code has both, and so has this by default.

The same loop trains what the method is compared with: dense variational inference (density 1), a
static support (alpha 0), and without noise and prior the deterministic sparse training of RigL
(Evci et al. 2020, arXiv 1911.11134).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.errors import UserError
from understudy.core.loop import Event, Outcome, Settings, Trainer, cosine, shuffled_batches
from understudy.nn.sparse_bayesian import kl_divergence, sparse_layers
from understudy.nn.sparse_subspace import SubspaceScheduler

Likelihood = Callable[[Tensor, Tensor], Tensor]
"""Maps outputs and targets to the mean negative log likelihood, () or (networks,)."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log likelihood of labels (*networks, n) by logits (*networks, n, c)."""
    flat = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return flat.reshape(labels.shape).mean(-1)


class GaussianNoise(nn.Module):
    """Gaussian likelihood with a learnt noise variance of each output.

    Parameters
    ----------
    outputs : int
    networks : int, optional
    variance : float
        To begin with.
    """

    def __init__(self, outputs: int, networks: int | None = None, variance: float = 0.1) -> None:
        super().__init__()
        stack = () if networks is None else (networks,)
        self.log_variance = nn.Parameter(torch.full((*stack, outputs), math.log(variance)))

    @property
    def variance(self) -> Tensor:
        """Noise variance (*networks, m), not below 1e-6."""
        return self.log_variance.exp().clamp_min(1e-6)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Negative log likelihood of targets (*networks, n, m), summed over outputs."""
        variance = self.variance.unsqueeze(-2)
        each = (targets - outputs).square() / variance + variance.log() + math.log(2.0 * math.pi)
        return 0.5 * each.sum(-1).mean(-1)


@contextmanager
def without_noise(model: nn.Module) -> Iterator[None]:
    """Make the sparse layers of a model their mean networks for a while, whatever its mode."""
    modes = {layer: layer.training for layer in sparse_layers(model).values()}
    for layer in modes:
        layer.training = False
    try:
        yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode


@dataclass(frozen=True)
class SparseSubspaceInference:
    """Settings of the training; the defaults are the official code's for CIFAR.

    Parameters
    ----------
    epochs, batch_size : int
    optimizer : {"sgd", "adam"}
        SGD with momentum as in the paper, or Adam with its usual decays.
    learning_rate, momentum : float
    likelihood_rate : float
        Learning rate of the likelihood's parameters, in units of the other.
    weight_decay : float
        Of means, biases and normalisation; raw deviations have none.
    kl_scale : float
        Temperature of the prior's pull; 0 leaves it out.
    delta, alpha, removal, addition, accumulation
        As of `SubspaceScheduler`.
    t_end : float in [0, 1]
        Share of the steps after which the support stays.
    mean_gradient : bool
        Whether new weights are chosen by the gradient of the mean network rather than a noisy one.
    noise : bool
        Whether weights are random; without noise and `kl_scale` training is deterministic.
    max_seconds : float, optional
        Wall time at most.
    seed : int
        Of batches, noise and the support.
    """

    epochs: int = 200
    batch_size: int = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    likelihood_rate: float = 1.0
    weight_decay: float = 5e-4
    kl_scale: float = 0.01
    delta: int = 100
    alpha: float = 0.3
    t_end: float = 0.75
    removal: str = "snr_abs"
    addition: str = "grad"
    accumulation: int = 1
    mean_gradient: bool = False
    noise: bool = True
    max_seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError(
                f"epochs and batch_size must be at least 1, got {self.epochs}, {self.batch_size}"
            )
        if self.optimizer not in ("sgd", "adam"):
            raise UserError(f"optimizer must be 'sgd' or 'adam', got {self.optimizer!r}")
        for name in ("learning_rate", "likelihood_rate"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be positive, got {getattr(self, name)!r}")
        if not 0.0 <= self.t_end <= 1.0:
            raise UserError(f"t_end is a share of the steps, from 0 to 1, got {self.t_end!r}")
        if not 0.0 <= self.kl_scale < math.inf:
            raise UserError(f"kl_scale must be at least 0, got {self.kl_scale!r}")

    def fit(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        likelihood: Likelihood = cross_entropy,
        inside: Tensor | None = None,
        on_step: Callable[[Event], None] | None = None,
        interrupt: Literal["raise", "return"] = "raise",
    ) -> Outcome:
        """Train a model with sparse Bayesian layers, and leave it in evaluation mode.

        Parameters
        ----------
        model : nn.Module
        x : Tensor (n, ...) or, of stacked networks with rows of their own, (networks, n, d)
        y : Tensor (n, ...) or (networks, n, ...)
        likelihood : callable or nn.Module
            Parameters of a module are learnt too.
        inside : BoolTensor (networks, n), optional
            Rows that each stacked network learns from; by default all.
        on_step : callable (Event) -> None, optional
        interrupt : {"raise", "return"}
            After Ctrl-C; as of `understudy.core.loop.Settings`.
        """
        networks = next(iter(sparse_layers(model).values())).networks
        rows = _Rows(x, y, networks, inside, self.batch_size, self.seed)
        steps = self.epochs * rows.per_epoch
        parts = [model, *([likelihood] if isinstance(likelihood, nn.Module) else [])]
        optimizer = SubspaceScheduler(
            model,
            self._optimizer(parts),
            t_end=int(self.t_end * steps),
            delta=self.delta,
            alpha=self.alpha,
            removal=self.removal,
            addition=self.addition,
            accumulation=self.accumulation,
            seed=self.seed,
        )
        settings = Settings(
            max_steps=steps,
            max_seconds=self.max_seconds,
            schedule=cosine(),
            networks=networks,
            interrupt=interrupt,
        )

        def loss(step: int) -> Tensor:
            # the noise depends on seed and step alone, so that a resumed run sees the same
            torch.manual_seed(hash((self.seed, step)) & 0x7FFFFFFF)
            quiet = not self.noise or (self.mean_gradient and optimizer.update_is_due)
            with without_noise(model) if quiet else nullcontext():
                batch_x, batch_y = rows(step)
                misfit = likelihood(model(batch_x), batch_y)
            annealing = min(2.0 * (step // rows.per_epoch) / self.epochs, 1.0)
            if self.kl_scale * annealing == 0.0:
                return misfit.sum()
            pull = self.kl_scale * annealing * kl_divergence(model) / rows.counts
            return (misfit + pull).sum()

        model.train()
        with torch.random.fork_rng(devices=[]):
            outcome = Trainer(nn.ModuleList(parts), optimizer, settings).run(loss, on_step=on_step)
        model.eval()
        return outcome

    def _optimizer(self, parts: list[nn.Module]) -> torch.optim.Optimizer:
        raw = [layer.rho for layer in sparse_layers(parts[0]).values()]
        ids = {id(p) for p in raw}
        rest = [p for p in parts[0].parameters() if id(p) not in ids]
        of_likelihood = [p for part in parts[1:] for p in part.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": rest, "weight_decay": self.weight_decay},
            {"params": raw},
        ]
        if of_likelihood:
            rate = self.likelihood_rate * self.learning_rate
            groups.append({"params": of_likelihood, "lr": rate})
        if self.optimizer == "adam":
            return torch.optim.Adam(groups, lr=self.learning_rate)
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.momentum)


class _Rows:
    """Mini-batches by step number, for one network or a stack, each with rows of its own."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        networks: int | None,
        inside: Tensor | None,
        batch_size: int,
        seed: int,
    ) -> None:
        self.x, self.y, self.inside = x, y, inside
        self.stacked = networks is not None and x.ndim == 3
        n = x.shape[1] if self.stacked else len(x)
        if y.shape[: 1 + self.stacked] != x.shape[: 1 + self.stacked]:
            raise UserError(f"x and y differ in rows: {tuple(x.shape)} and {tuple(y.shape)}")
        if inside is not None and inside.shape != (networks, n):
            raise UserError(f"inside must be ({networks}, {n}), got {tuple(inside.shape)}")
        each = torch.full((networks or 1,), n) if inside is None else inside.sum(1)
        if int(each.min()) < 1:
            raise UserError("every network needs at least one row to learn from")
        self.counts = (each if networks is not None else each[0]).to(x.device)
        self.size = min(batch_size, int(each.min()))
        self.per_epoch = max(int(each.max()) // self.size, 1)
        self._networks, self._seed = networks, seed
        self._epoch, self._order = -1, torch.empty(0)
        self._batches = shuffled_batches(n, self.size, seed, networks)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of that step's batch."""
        index = self._batches(step) if self.inside is None else self._own_rows(step)
        if not self.stacked:
            return self.x[index], self.y[index]
        network = torch.arange(len(index)).unsqueeze(1)
        return self.x[network, index], self.y[network, index]

    def _own_rows(self, step: int) -> Tensor:
        """Rows (networks, size): each network goes round its own, shuffled anew every epoch."""
        assert self.inside is not None
        epoch, at = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(hash((self._seed, epoch)) & 0x7FFFFFFF)
            noise = torch.rand(self.inside.shape, generator=generator)
            self._order = noise.masked_fill(~self.inside, 2.0).argsort(1)
            self._epoch = epoch
        place = torch.arange(at * self.size, (at + 1) * self.size) % self.counts.unsqueeze(1)
        return self._order.gather(1, place)
