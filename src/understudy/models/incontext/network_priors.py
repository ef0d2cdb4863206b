r"""Priors of random networks, for classes and for real outcomes.

All networks of a batch are evaluated at once: widths differ by masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from understudy.models.incontext.draws import beta, gamma, happens, integers, normal, uniform
from understudy.models.incontext.task import TaskBatch


@dataclass(frozen=True)
class BNNClassification:
    """Labels from a Bayesian network of one hidden layer with N(0, 1) weights (arXiv 2112.10510).

    x is standard normal; two logits give a binary label. The paper's small network has 3 inputs
    and 5 units, its big one 8 and 64. Its code has no activation between the two maps; ``None``
    reproduces that.

    Parameters
    ----------
    features, width : int
    activation : {"tanh", None}
    """

    features: int = 3
    width: int = 5
    activation: Literal["tanh"] | None = "tanh"

    def sample(self, batch: int, rows: int, generator: torch.Generator) -> TaskBatch:
        """Draw data sets of ``rows`` rows."""
        x = normal(generator, batch, rows, self.features)
        chance = self.logit(x, self.weights(batch, generator)).sigmoid()
        y = (uniform(generator, batch, rows) < chance).to(x.dtype)
        return TaskBatch(x, y, y)

    @property
    def size(self) -> int:
        """Number of weights and biases."""
        return (self.features + 1) * self.width + (self.width + 1) * 2

    def weights(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw weights (B, size)."""
        return normal(generator, batch, self.size)

    def logit(self, x: Tensor, weights: Tensor) -> Tensor:
        """Log odds of label 1, (B, N), of inputs (B, N, features) by weights (B, size)."""
        d, w = self.features, self.width
        inner, a, outer, b = weights.split([d * w, w, 2 * w, 2], dim=-1)
        hidden = x @ inner.unflatten(-1, (d, w)) + a.unsqueeze(-2)
        hidden = hidden.tanh() if self.activation == "tanh" else hidden
        logits = hidden @ outer.unflatten(-1, (w, 2)) + b.unsqueeze(-2)
        return logits[..., 1] - logits[..., 0]


@dataclass(frozen=True)
class TabularBNN:
    r"""Binary labels from networks of random size, weights and noise: the tabular prior.

    Three layers of tanh units, hidden width :math:`2 + 148\,\mathrm{Beta}(2, 4)`, standard
    deviation of the weights :math:`\mathrm{Gamma}(3.6188, 0.06774)` and of the noise of every unit
    :math:`\mathrm{Gamma}(1.8663, 0.05275)` (shape, scale), :math:`2 + 58\,\mathrm{Beta}(1, 1.6)`
    inputs used (arXiv 2112.10510). Outcomes are split at a quantile: at their median, as in the
    paper, or, for a share of the data sets, at a random one, because real labels are seldom
    balanced. For a share inputs are correlated and some of them take few values, which the
    paper's are not; 0 for both shares gives the paper's prior.

    Parameters
    ----------
    features : int
    unbalanced, correlated : float in [0, 1]
        Shares of the data sets.
    """

    features: int = 60
    unbalanced: float = 0.5
    correlated: float = 0.5
    depth: int = 3

    def sample(self, batch: int, rows: int, generator: torch.Generator) -> TaskBatch:
        """Draw data sets of ``rows`` rows."""
        used = (2 + (self.features - 2) * beta(generator, batch, a=1.0, b=1.6)).round().long()
        mask = torch.arange(self.features, device=used.device) < used.unsqueeze(1)
        x = normal(generator, batch, rows, self.features)
        some = happens(generator, batch, 1, 1, chance=self.correlated)
        x = torch.where(some, _mixed(x, generator), x)
        x = _standard(x) * mask.unsqueeze(1)
        score = self._network(x, generator)
        level = uniform(generator, batch, low=0.1, high=0.9)
        level = torch.where(
            happens(generator, batch, chance=self.unbalanced), level, torch.full_like(level, 0.5)
        )
        at = (level * (rows - 1)).round().long().clamp(1, rows - 2)
        threshold = score.sort(1).values.gather(1, at.unsqueeze(1))
        y = (score > threshold).to(x.dtype)
        flip = happens(generator, batch, 1, chance=0.5)  # which class is called 1
        y = torch.where(flip, 1.0 - y, y)
        return TaskBatch(x, y, y, used)

    def _network(self, x: Tensor, generator: torch.Generator) -> Tensor:
        batch, rows = x.shape[:2]
        widest = 150
        width = (2 + (widest - 2) * beta(generator, batch, 1, a=2.0, b=4.0)).round()
        units = torch.arange(widest, device=x.device) < width
        weight_sd = gamma(generator, batch, 1, 1, concentration=3.6188, rate=1.0 / 0.06774)
        noise_sd = gamma(generator, batch, 1, widest, concentration=1.8663, rate=1.0 / 0.05275)
        hidden = x
        for _ in range(self.depth - 1):
            weights = weight_sd * normal(generator, batch, hidden.shape[-1], widest)
            noise = noise_sd * normal(generator, batch, rows, widest)
            hidden = (hidden @ weights + noise).tanh() * units.unsqueeze(1)
        last = weight_sd * normal(generator, batch, widest, 1)
        noise = noise_sd[..., :1] * normal(generator, batch, rows, 1)
        return (hidden @ last + noise).squeeze(-1)


def _standard(x: Tensor) -> Tensor:
    """Columns with mean 0 and variance 1 in every data set; constant ones become 0."""
    centred = x - x.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).sqrt().clamp_min(1e-6)


def _mixed(x: Tensor, generator: torch.Generator) -> Tensor:
    """Correlated inputs, some of them skewed, with few values or of two values."""
    batch, _, d = x.shape
    causes = x[..., : max(d // 4, 1)]
    share = uniform(generator, batch, 1, 1)
    loads = normal(generator, batch, causes.shape[-1], d) / math.sqrt(causes.shape[-1])
    x = share.sqrt() * (causes @ loads) + (1.0 - share).sqrt() * x
    kind = uniform(generator, batch, 1, d)
    steps = integers(generator, batch, 1, d, low=1, high=4).to(x.dtype)
    cut = normal(generator, batch, 1, d)
    x = torch.where(kind < 0.15, x.clamp(max=4.0).exp(), x)
    x = torch.where((kind >= 0.15) & (kind < 0.4), (x * steps).round(), x)
    return torch.where(kind >= 0.7, (x > cut).to(x.dtype), x)


@dataclass(frozen=True)
class RandomNetworks:
    r"""Real functions of the unit cube by networks of random depth, width and activation.

    Weights are normal with variance :math:`s^2 / \text{fan-in}`, s log-uniform in 0.7 .. 3, so that
    functions run from nearly linear to rough; layers without effect are skipped, which gives
    depths of 1 to 3. Values are standardised over the rows.

    Parameters
    ----------
    width : int
        Units at most.
    """

    width: int = 64
    depth: int = 3

    def values(self, x: Tensor, used: Tensor, generator: torch.Generator) -> Tensor:
        """Values (B, N) at x (B, N, d), of which a data set uses the first ``used`` (B,)."""
        batch, _, d = x.shape
        spread = uniform(generator, batch, 1, 1, low=math.log(0.7), high=math.log(3.0)).exp()
        width = integers(generator, batch, 1, low=4, high=self.width)
        units = (torch.arange(self.width, device=x.device) < width).unsqueeze(1)
        activation = integers(generator, batch, 1, 1, low=0, high=3)
        depth = integers(generator, batch, 1, 1, low=1, high=self.depth)
        influence = beta(generator, batch, d, 1, a=0.5, b=1.0)  # few inputs matter much
        fan_in = (influence.square()).sum(1, keepdim=True).sqrt().clamp_min(1e-3)
        hidden = math.sqrt(12.0) * (x - 0.5)
        weights = spread * influence / fan_in * normal(generator, batch, d, self.width)
        first = hidden @ weights + normal(generator, batch, 1, self.width)
        hidden = _activate(first, activation) * units
        for layer in range(1, self.depth):
            root = width.unsqueeze(-1).to(x.dtype).sqrt()
            weights = spread / root * normal(generator, batch, self.width, self.width)
            deeper = hidden @ weights + 0.5 * normal(generator, batch, 1, self.width)
            hidden = torch.where(layer < depth, _activate(deeper, activation) * units, hidden)
        out = hidden @ normal(generator, batch, self.width, 1)
        return _standard(out).squeeze(-1)


def _activate(z: Tensor, kind: Tensor) -> Tensor:
    """One of four activations, chosen by data set."""
    value = torch.where(kind == 0, z.tanh(), z.relu())
    value = torch.where(kind == 2, z.sin(), value)
    return torch.where(kind == 3, torch.exp(-0.5 * z.square()), value)
