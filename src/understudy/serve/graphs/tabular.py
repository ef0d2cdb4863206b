r"""A fitted surrogate as one graph: from codes to means, deviations and calibrated intervals.

With the members' mixtures :math:`\sum_k w_k N(\mu_k, \sigma_k^2)` of (transformed) outputs, spread
by the fitted factor, means and deviations are exact, or by the quadrature of
`understudy.core.warp.WarpedPredictive`; the ends of intervals are the mixture's quantiles at the
calibrated levels, by Newton's method inside a bracket, in a loop of the graph.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.core.predictive import Predictive
from understudy.core.space import LOG_FLOOR, Categorical, Continuous, Space, nearest
from understudy.core.warp import WarpedPredictive
from understudy.models.tabular.conformal import LEVELS
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.serve.graphs.members import member_graph
from understudy.serve.graphs.onnx_file import Graph, difference, run

_ITERATIONS = 60
_CLOSE = 1e-10  # of the distribution function, as in Predictive.quantile


class Features(nn.Module):
    """Features (n, f) of codes (n, d): `Space.features`, with its constants in place.

    Parameters
    ----------
    space : Space
    """

    def __init__(self, space: Space) -> None:
        super().__init__()
        lower, upper = space.bounds
        self._columns = []
        for j, item in enumerate(space):
            levels = None
            log = isinstance(item, Continuous) and item.log
            if isinstance(item, Categorical) and len(item.choices) > 2:
                levels = torch.arange(len(item.choices), dtype=torch.float64)
            self._columns.append((j, float(lower[j]), float(upper[j]), log, levels))

    def forward(self, codes: Tensor) -> Tensor:
        """Features (n, f)."""
        parts = []
        for j, low, high, log, levels in self._columns:
            x = codes[:, j : j + 1]
            if levels is not None:
                parts.append((x.round() == levels).to(x.dtype))
                continue
            if log:
                low, high = math.log(low), math.log(high)
                x = x.clamp_min(math.exp(low + math.log(LOG_FLOOR))).log()
            parts.append((x - low) / (high - low))
        return torch.cat(parts, dim=1)


class FittedGraph(nn.Module):
    """Mean, deviation and interval ends of a fitted surrogate.

    Parameters
    ----------
    surrogate : FittedSurrogate
    levels : tuple of float
        Coverages of the intervals.
    """

    def __init__(self, surrogate: FittedSurrogate, levels: tuple[float, ...] = LEVELS) -> None:
        super().__init__()
        self._features = Features(surrogate.space)
        self._members = [member_graph(name, each) for name, each in surrogate.members_]
        self._weights, self._factor = surrogate.weights_, surrogate.widening
        self._warps = surrogate.warps
        low, high = surrogate.conformal.probabilities(levels)
        self._levels, self._p = len(levels), torch.cat([low, high])
        self._z = torch.special.ndtri(self._p)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean and deviation (n, m), lower and upper ends (n, m, l) at codes (n, d)."""
        features = self._features(inputs)
        parts = [member(features) for member in self._members]
        latent = Predictive.stack(parts, self._weights).widened(self._factor)
        marginals = WarpedPredictive(latent, self._warps)
        ends = marginals.inverse(quantiles(latent, self._p, self._z)).movedim(0, 2)
        lower, upper = ends[..., : self._levels], ends[..., self._levels :]
        return marginals.mean, marginals.sd, lower, upper


class MemberGraph(nn.Module):
    """Mean and deviation of one member, as the stack sees it: neither widened nor calibrated.

    Parameters
    ----------
    surrogate : FittedSurrogate
    index : int
        Of the member.
    """

    def __init__(self, surrogate: FittedSurrogate, index: int) -> None:
        super().__init__()
        self._features = Features(surrogate.space)
        self._member = member_graph(*surrogate.members_[index])
        self._warps = surrogate.warps

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (n, m) at codes (n, d)."""
        marginals = WarpedPredictive(self._member(self._features(inputs)), self._warps)
        return marginals.mean, marginals.sd


def quantiles(mixture: Predictive, p: Tensor, z: Tensor) -> Tensor:
    """Quantiles (l, n, m) of a mixture at levels p (l, m), z of the standard normal.

    As `Predictive.quantile`, but for a loop that a graph can have.
    """
    loc, scale, weight = mixture.loc, mixture.scale, mixture.full_weight()
    p, z = p.unsqueeze(1), z.unsqueeze(1)
    if loc.shape[0] == 1:
        return loc[0] + z * scale[0]
    ends = loc + z.unsqueeze(1) * scale
    low = ends.masked_fill(weight <= 0, math.inf).amin(1)
    high = ends.masked_fill(weight <= 0, -math.inf).amax(1)
    start = torch.minimum(torch.maximum(mixture.mean + z * mixture.sd, low), high)

    def going(step: Tensor, x: Tensor, low: Tensor, high: Tensor, error: Tensor) -> Tensor:
        return (step < _ITERATIONS) & (error > _CLOSE)

    def closer(
        step: Tensor, x: Tensor, low: Tensor, high: Tensor, error: Tensor
    ) -> tuple[Tensor, ...]:
        u = (x.unsqueeze(1) - loc) / scale
        off = (weight * torch.special.ndtr(u)).sum(1) - p
        low, high = torch.where(off < 0, x, low), torch.where(off > 0, x, high)
        density = (weight * torch.exp(-0.5 * u * u) / scale).sum(1) / math.sqrt(2.0 * math.pi)
        newton = x - off / density.clamp_min(1e-300)
        inside = (newton > low) & (newton < high)
        error = off.abs().amax(dim=(0, 1, 2))
        newton = torch.where(inside, newton, 0.5 * (low + high))
        return step + 1, torch.where(error > _CLOSE, newton, x), low, high, error

    count, error = torch.zeros((), dtype=torch.int64), torch.ones((), dtype=loc.dtype)
    return torch.while_loop(going, closer, (count, start, low, high, error))[1]


# -- files ----------------------------------------------------------------------------------------


def surrogate_graph(surrogate: FittedSurrogate) -> Graph:
    """Return the graph of a fitted surrogate, described.

    Raises
    ------
    UserError
        A member cannot be a graph.
    """
    module = FittedGraph(surrogate)
    return Graph(
        module,
        (_example(surrogate),),
        ("inputs",),
        ("mean", "sd", "lower", "upper"),
        {**_description(surrogate), "levels": list(LEVELS)},
    )


def single_graph(surrogate: FittedSurrogate, name: str) -> Graph:
    """Return the graph of one member of a fitted surrogate: mean and deviation, not calibrated.

    Raises
    ------
    UserError
        There is no such member, or it cannot be a graph.
    """
    names = [each for each, _ in surrogate.members_]
    if name not in names:
        raise UserError(f"there is no member {name!r}{nearest(name, names)}")
    module = MemberGraph(surrogate, names.index(name))
    described = {**_description(surrogate), "members": [name]}
    return Graph(module, (_example(surrogate),), ("inputs",), ("mean", "sd"), described)


def _example(surrogate: FittedSurrogate) -> Tensor:
    return torch.from_numpy(surrogate.space.encode(surrogate.space.sample(5)))


def _description(surrogate: FittedSurrogate) -> dict[str, object]:
    return {
        "kind": "surrogate",
        "inputs": json.loads(surrogate.space.to_json())["inputs"],
        "outputs": [{"name": name} for name in surrogate.targets],
        "members": [name for name, _ in surrogate.members_],
    }


def parity(surrogate: FittedSurrogate, session: Any, rows: int = 256, seed: int = 1) -> float:
    """Largest relative difference of a session from the surrogate at random rows.

    Differences are compared with the larger of the value and the output's deviation in the table.
    """
    X = surrogate.space.encode(surrogate.space.sample(rows, seed=seed, method="random"))
    mean, sd = surrogate.predict(X, return_std=True)
    lower, upper = surrogate.intervals(X)
    wanted = [
        mean.reshape(rows, -1),
        sd.reshape(rows, -1),
        np.moveaxis(lower, 0, 2),
        np.moveaxis(upper, 0, 2),
    ]
    return difference(run(session, [X]), wanted, _spread(surrogate))


def member_parity(
    surrogate: FittedSurrogate, name: str, session: Any, rows: int = 256, seed: int = 1
) -> float:
    """As `parity`, of one member alone."""
    X = surrogate.space.encode(surrogate.space.sample(rows, seed=seed, method="random"))
    features = surrogate.space.features(torch.from_numpy(X)).numpy()
    latent = dict(surrogate.members_)[name].predictive(features)
    marginals = WarpedPredictive(latent, surrogate.warps)
    wanted = [marginals.mean.numpy(), marginals.sd.numpy()]
    return difference(run(session, [X]), wanted, _spread(surrogate))


def _spread(surrogate: FittedSurrogate) -> NDArray[np.float64]:
    table = surrogate.training[list(surrogate.targets)].to_numpy(dtype=np.float64)
    return np.nanstd(table, axis=0)
