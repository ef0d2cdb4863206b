"""Where a surrogate is unsure: how wide its intervals are over the ranges of the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from understudy.core.space import Categorical, Input
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.serve.explorer_grids import shortened, values_of
from understudy.serve.explorer_inversion import distinct, spans
from understudy.serve.optimum import Region

_DESIGN = 1024
_BINS = 12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Doubt:
    """Widths of the intervals of one output over a region.

    Parameters
    ----------
    output : str
    typical : float
        Median width.
    span : float
        Range of the output in the training table.
    profiles : list of dict
        Of each free input: its name, middles of bins of its range, mean width in each.
    widest : ndarray (k, d)
        Codes of points with the widest intervals, different from one another.
    """

    output: str
    typical: float
    span: float
    profiles: list[dict[str, Any]]
    widest: Floats

    @property
    def record(self) -> dict[str, Any]:
        """All but the points, for an answer."""
        return {"typical_width": self.typical, "range": self.span, "profiles": self.profiles}


def doubts(
    model: FittedSurrogate, region: Region, level: float, points: int, seed: int = 0
) -> list[Doubt]:
    """Say where the intervals of each output are wide, by a Sobol design of a region.

    Parameters
    ----------
    model : FittedSurrogate
    region : Region
    level : float in (0, 1)
        Coverage of the intervals.
    points : int
        Widest points of each output.
    seed : int
    """
    from understudy.search.bayesopt.cube import Cube

    U = Cube(region.free).sobol(_DESIGN, seed)
    codes = region.codes(U).numpy()
    lower, upper = model.intervals(codes, (level,))
    width, span = (upper - lower)[0], spans(model)
    found = []
    for j, output in enumerate(model.targets):
        profiles = [_profile(item, codes[:, k], width[:, j]) for k, item in _free(model, region)]
        chosen = distinct(U, torch.from_numpy(width[:, j]), points).numpy()
        typical = float(np.median(width[:, j]))
        found.append(Doubt(output, typical, float(span[j]), profiles, codes[chosen]))
    return found


def _free(model: FittedSurrogate, region: Region) -> list[tuple[int, Input]]:
    return [(k, model.space.inputs[k]) for k in region.at]


def _profile(item: Input, codes: Floats, width: Floats) -> dict[str, Any]:
    """Mean width along one input: by choice, or in bins that hold equally many points."""
    if isinstance(item, Categorical):
        middles = np.unique(codes)
        groups = [np.flatnonzero(codes == code) for code in middles]
    else:
        groups = np.array_split(codes.argsort(kind="stable"), _BINS)
        middles = np.array([np.median(codes[group]) for group in groups])
    means = np.array([width[group].mean() for group in groups])
    return {"input": item.name, "values": values_of(item, middles), "width": shortened(means)}
