r"""The prior of the shipped regression network: responses of simulators and experiments.

A data set has 1 to ``features`` inputs in the unit cube. Its function is a Gaussian process (RBF,
Matérn-5/2 or Matérn-3/2; length scales about a common level; half the time plus a linear trend), or
a random network. Outcomes may be skewed by :math:`(e^{a f} - 1) / a` and carry noise whose share
runs from none to half of the spread. Inputs are uniform, skewed, on few levels or of two values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from understudy.models.incontext.draws import happens, integers, normal, uniform
from understudy.models.incontext.gp_priors import Kernel, draw_functions, unused
from understudy.models.incontext.network_priors import RandomNetworks
from understudy.models.incontext.task import TaskBatch

_SHARES: tuple[tuple[Kernel, float], ...] = (
    ("rbf", 0.25),
    ("matern-5/2", 0.3),
    ("matern-3/2", 0.1),
)


@dataclass(frozen=True)
class ResponsePrior:
    """Smooth responses with trends, interactions, skew and noise.

    Parameters
    ----------
    features : int
        Inputs at most.
    """

    features: int = 10
    networks: RandomNetworks = field(default_factory=RandomNetworks)

    def sample(self, batch: int, rows: int, generator: torch.Generator) -> TaskBatch:
        """Draw data sets of ``rows`` rows."""
        used = integers(generator, batch, low=1, high=self.features)
        mask = torch.arange(self.features, device=used.device) < used.unsqueeze(1)
        x = self._inputs(batch, rows, generator) * mask.unsqueeze(1)
        f = self._functions(x, used, mask, generator)
        f = _skewed(f, generator)
        quiet = happens(generator, batch, 1, chance=0.5)
        low = uniform(generator, batch, 1, low=math.log(1e-4), high=math.log(1e-2))
        high = uniform(generator, batch, 1, low=math.log(1e-2), high=math.log(1.0))
        noise = torch.where(quiet, low, high).exp()
        y = f + noise * normal(generator, batch, rows)
        return TaskBatch(x, y, y, used)

    def _inputs(self, batch: int, rows: int, generator: torch.Generator) -> Tensor:
        shape = (batch, rows, self.features)
        x, kind = uniform(generator, *shape), uniform(generator, batch, 1, self.features)
        power = normal(generator, batch, 1, self.features, sd=0.7).exp()
        x = torch.where((kind > 0.55) & (kind < 0.75), x.pow(power), x)
        levels = integers(generator, batch, 1, self.features, low=2, high=8).to(x.dtype)
        few = (x * levels).floor() / (levels - 1.0)
        x = torch.where((kind >= 0.75) & (kind < 0.9), few.clamp(max=1.0), x)
        share = uniform(generator, batch, 1, self.features, low=0.1, high=0.9)
        return torch.where(kind >= 0.9, (x < share).to(x.dtype), x)

    def _functions(
        self, x: Tensor, used: Tensor, mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        batch, d = len(x), self.features
        level = uniform(generator, batch, 1, low=math.log(0.2), high=math.log(1.5))
        scale = level + 0.5 * used.unsqueeze(1).log() + normal(generator, batch, d, sd=0.7)
        scale = unused(scale.exp().clamp_min(0.02), 0.2, generator)
        parts, start = [], 0
        for kernel, share in _SHARES:
            stop = start + round(share * batch)
            parts.append(draw_functions(x[start:stop], scale[start:stop], kernel, generator))
            start = stop
        f = torch.cat(parts)
        slope = normal(generator, start, d, 1) * mask[:start].unsqueeze(-1)
        weight = happens(generator, start, 1, chance=0.5) * normal(generator, start, 1).abs()
        trend = math.sqrt(12.0) * ((x[:start] - 0.5) @ slope).squeeze(-1)
        f = f + weight * trend / used[:start].unsqueeze(1).sqrt()
        f = f / (1.0 + weight.square()).sqrt()
        rest = self.networks.values(x[start:], used[start:], generator)
        return torch.cat([f, rest])


def _skewed(f: Tensor, generator: torch.Generator) -> Tensor:
    """Outcomes bent by an exponential, for a third of the data sets."""
    bend = uniform(generator, len(f), 1, low=-1.2, high=1.2)
    bend = torch.where(bend.abs() < 0.05, torch.full_like(bend, 0.05), bend)
    bent = torch.expm1(bend * f.clamp(-4.0, 4.0)) / bend
    some = happens(generator, len(f), 1, chance=0.33)
    return torch.where(some, bent, f)
