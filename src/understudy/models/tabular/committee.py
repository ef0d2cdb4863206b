r"""Networks on one table trained together: members on all rows, and others that miss a fold.

Every network is a multilayer perceptron beside a straight line, with a mean and a variance head,

.. math:: \mu(x) = A^\top x + \mathrm{MLP}_\mu(x), \qquad
          \sigma^2(x) = \mathrm{softplus}(\mathrm{MLP}_\sigma(x)) + \epsilon,

trained on the :math:`\beta`-NLL with :math:`\beta = 1` (Seitzer et al. 2022, arXiv 2203.09168),

.. math:: \tfrac12\, \mathrm{sg}[\sigma^2]^{\beta}
          \big(\log\sigma^2 + (y - \mu)^2/\sigma^2\big),

whose gradient in the mean is that of the squared error. All networks are one batched product a
layer and take the same number of steps. The networks that miss a fold predict it: their error,
averaged over folds, says at which step to stop. It stops the members too, which thus learn from
every row, and it is the cross-validation of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.loop import Settings, Trainer, cosine, shuffled_batches
from understudy.nn.mlp import BatchedMLP
from understudy.nn.soap import SOAP

_LEAST_VARIANCE = 1e-6


class Regressor(nn.Module):
    """A stack of networks with a mean and a variance for every output.

    Parameters
    ----------
    networks, inputs, outputs : int
    width, depth : int
        Of the hidden layers.
    activation : str
    gain : float
        Of the initial weights; below 1 the first guess is a smooth function.
    """

    def __init__(
        self,
        networks: int,
        inputs: int,
        outputs: int,
        width: int = 64,
        depth: int = 2,
        activation: str = "silu",
        gain: float = 0.7,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = (inputs, *[width] * depth, 2 * outputs)
        self.outputs = outputs
        self.mlp = BatchedMLP(networks, sizes, activation, gain, seed=seed)
        self.line = nn.Parameter(torch.zeros(networks, inputs, outputs))
        with torch.no_grad():  # begin with a variance of 0.1 everywhere
            self.mlp.weights[-1][..., outputs:] *= 0.1
            self.mlp.biases[-1][..., outputs:] = math.log(math.expm1(0.1))

    def forward(self, x: Tensor, which: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Means and variances (B, n, m) at x (n, d) or (B, n, d)."""
        line = self.line[which]
        both = self.mlp(x, which)
        x = x.expand(len(line), *x.shape) if x.ndim == 2 else x
        mean = torch.baddbmm(both[..., : self.outputs], x, line)
        return mean, F.softplus(both[..., self.outputs :]) + _LEAST_VARIANCE

    def pick(self, which: slice) -> Regressor:
        """Return a copy of some of the networks, without gradients."""
        part = deepcopy(self).requires_grad_(False)
        for parameter in part.parameters():
            parameter.data = parameter.data[which].clone()
        return part


def beta_nll(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """Negative log likelihood weighted by the variance, elementwise."""
    return 0.5 * variance.detach() * (variance.log() + (y - mean).square() / variance)


def squared_error(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """Half the squared error, elementwise; the variance is left alone."""
    return 0.5 * (y - mean).square()


@dataclass(frozen=True)
class Recipe:
    """How a committee is built and trained.

    Parameters
    ----------
    members : int
        Networks trained on all rows.
    fold_networks : int
        Networks that miss each fold; where folds are few, at least 2.
    activation, width, depth, gain
        Of each network.
    learning_rate, weight_decay : float
        Of SOAP; the decay is of weights, not of biases or the line.
    steps : int, optional
        At most; by default 300 for tables of one batch, up to 3,000 for long ones.
    batch : int
        Rows in a step.
    loss : callable
        `beta_nll` or `squared_error`.
    seconds : float, optional
        Wall time at most.
    """

    members: int = 5
    fold_networks: int = 1
    activation: str = "silu"
    width: int = 64
    depth: int = 2
    gain: float = 0.7
    learning_rate: float = 3e-2
    weight_decay: float = 0.3
    steps: int | None = None
    batch: int = 512
    loss: Callable[[Tensor, Tensor, Tensor], Tensor] = beta_nll
    seconds: float | None = None
    seed: int = 0

    def steps_for(self, rows: int) -> int:
        """Number of steps at most."""
        if self.steps is not None:
            return self.steps
        return 300 if rows <= self.batch else int(np.clip(60 * rows / self.batch, 400, 3_000))


@dataclass(frozen=True)
class Committee:
    """Networks trained by `train_committee`.

    Parameters
    ----------
    network : Regressor
        The members only.
    folded : Regressor
        The networks that missed a fold, r of each fold together.
    mean, variance : Tensor (r, n', m)
        Predictions of the n' rows with a fold, in their order, by r networks that missed it.
    interrupted : bool
        Whether training was cut by the user.
    """

    network: Regressor
    folded: Regressor
    mean: Tensor
    variance: Tensor
    interrupted: bool


@dataclass(frozen=True)
class Layout:
    """Which rows each network learns from, and which it is tested on.

    Parameters
    ----------
    train : LongTensor (B, n)
        Rows of each network, repeated up to n.
    weight : Tensor (B, n, 1)
        Weight of every row in each network's loss; sums to 1.
    test : LongTensor (f, l)
        Rows of the folds that the first f networks miss, repeated up to l.
    counted : BoolTensor (f, l)
        Which of those are no repetitions.
    order : LongTensor (n',)
        Where each row with a fold, in the order of the table, stands among those counted.
    repeats : int
        Networks that miss the same fold; those of one fold stand together.
    """

    train: Tensor
    weight: Tensor
    test: Tensor
    counted: Tensor
    order: Tensor
    repeats: int

    @classmethod
    def of(cls, folds: NDArray[np.int_], members: int, repeats: int) -> Layout:
        """Networks for every fold, then the members."""
        n = len(folds)
        held = [np.flatnonzero(folds == k) for k in np.unique(folds[folds >= 0])]
        kept = [np.setdiff1d(np.arange(n), rows) for rows in held for _ in range(repeats)]
        kept += [np.arange(n)] * members
        longest = max(map(len, held))
        weight = np.zeros((len(kept), n, 1), dtype=np.float32)
        for b, rows in enumerate(kept):
            weight[b, rows] = 1.0 / len(rows)
        test = np.stack([np.resize(rows, longest) for rows in held])
        counted = np.stack([np.arange(longest) < len(rows) for rows in held])
        return cls(
            torch.from_numpy(np.stack([np.resize(rows, n) for rows in kept])),
            torch.from_numpy(weight),
            torch.from_numpy(test),
            torch.from_numpy(counted),
            torch.from_numpy(np.argsort(np.concatenate(held))),
            repeats,
        )

    @property
    def tested(self) -> slice:
        """The networks that miss a fold."""
        return slice(0, len(self.test) * self.repeats)

    def held_out(self, values: Tensor) -> Tensor:
        """From (f r, l, m) to (r, n', m) in the order of the table."""
        by_fold = values.unflatten(0, (len(self.test), self.repeats)).transpose(0, 1)
        return by_fold[:, self.counted][:, self.order]


def train_committee(x: Tensor, Z: Tensor, folds: NDArray[np.int_], recipe: Recipe) -> Committee:
    """Train members and fold networks together on standardised x (n, d) and Z (n, m).

    Parameters
    ----------
    x, Z : Tensor
        Single precision.
    folds : int array (n,)
        Fold of each row; rows with -1 are in every network's training.
    recipe : Recipe
    """
    n, few = len(x), len(np.unique(folds[folds >= 0])) < 3
    layout = Layout.of(folds, recipe.members, max(recipe.fold_networks, 2 if few else 1))
    network = Regressor(
        len(layout.train),
        x.shape[1],
        Z.shape[1],
        recipe.width,
        recipe.depth,
        recipe.activation,
        recipe.gain,
        recipe.seed,
    )
    tested_x = x[layout.test].repeat_interleave(layout.repeats, dim=0)
    tested_z = Z[layout.test][layout.counted]

    def predict() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            mean, variance = network(tested_x, layout.tested)
        return mean, variance

    def validate() -> Tensor:
        by_fold = predict()[0].unflatten(0, (len(layout.test), layout.repeats)).mean(1)
        return (by_fold[layout.counted] - tested_z).square().mean()

    batches = shuffled_batches(n, recipe.batch, recipe.seed, networks=len(layout.train))

    def loss(step: int) -> Tensor:
        if n <= recipe.batch:
            mean, variance = network(x)
            return (layout.weight * recipe.loss(mean, variance, Z)).sum()
        rows = layout.train.gather(1, batches(step))
        mean, variance = network(x[rows])
        return recipe.loss(mean, variance, Z[rows]).sum() / rows.shape[1]

    steps = recipe.steps_for(n)
    settings = Settings(
        max_steps=steps,
        max_seconds=recipe.seconds,
        schedule=cosine(warmup=0.05, flat=0.25),
        clip_norm=None,
        validate_every=10 if n <= recipe.batch else 25,
        patience=max(10, steps // (25 if n <= recipe.batch else 60)),
        interrupt="return",
    )
    outcome = Trainer(network, _optimizer(network, recipe), settings).run(loss, validate)
    mean, variance = (layout.held_out(values) for values in predict())
    folded = network.pick(layout.tested)
    members = network.pick(slice(layout.tested.stop, None))
    return Committee(members, folded, mean, variance, outcome.reason == "interrupt")


def _optimizer(network: Regressor, recipe: Recipe) -> SOAP:
    groups = [
        {"params": list(network.mlp.weights), "weight_decay": recipe.weight_decay},
        {"params": [*network.mlp.biases, network.line], "weight_decay": 0.0},
    ]
    return SOAP(groups, lr=recipe.learning_rate, every=20)


def inner_folds(rows: int, seed: int) -> NDArray[np.int_]:
    """Folds for a fit that was given none: five, or one hold-out of long tables."""
    order = np.random.default_rng(seed).permutation(rows)
    if rows > 5_000:
        return np.where(order < min(rows // 5, 2_000), 0, -1)
    return order % min(5, rows)
