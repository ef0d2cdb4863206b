r"""Which surrogate, and which transform of the outcome, by the density of rows left out.

A Gaussian process gives every row's predictive without that row in closed form, so members are
compared by

.. math:: \sum_i \log p(g(y_i) \mid y_{-i}) + \log g'(y_i),

in which the Jacobian makes transforms comparable. A rival has to gain more than a standard error of
the sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import nearest
from understudy.core.surrogate import Surrogate
from understudy.core.warp import Identity, Log, Warp, YeoJohnson
from understudy.models.incontext.estimators import PFNSurrogate
from understudy.models.tabular.deep_ensemble import DeepEnsemble
from understudy.models.tabular.deep_kernel import DeepKernelSurrogate
from understudy.models.tabular.exact_gp import ExactGP
from understudy.models.tabular.gaussian_process import GaussianProcess
from understudy.models.tabular.hmc import HMCSurrogate
from understudy.models.tabular.infinite_width import InfiniteWidthSurrogate
from understudy.models.tabular.laplace import LaplaceSurrogate
from understudy.models.tabular.sghmc import SGHMCSurrogate
from understudy.search.bayesopt.outcomes import Scale

LEAST_ROWS = 8
"""Rows from which members and transforms are compared."""

_WIDE_ROWS = 150  # rows up to which the kernel of an infinitely wide network is compared

NAMED: dict[str, Surrogate] = {
    "exact-gp": ExactGP(),
    "smooth-gp": ExactGP(kernel="rbf"),
    "infinite-width": InfiniteWidthSurrogate(),
    "hmc": HMCSurrogate(),
    "sghmc": SGHMCSurrogate(),
    "deep-ensemble": DeepEnsemble(),
    "laplace": LaplaceSurrogate(),
    "deep-kernel": DeepKernelSurrogate(),
    "pfn": PFNSurrogate(orders=2, subsample=True),
}
"""Surrogates that can be asked for by name."""


def named(surrogate: str | Surrogate) -> Surrogate:
    """Return an unfitted surrogate by its name or as it is given."""
    if isinstance(surrogate, Surrogate):
        return clone(surrogate)
    if surrogate not in NAMED:
        known = ["portfolio", *NAMED]
        raise UserError(f"no surrogate {surrogate!r}{nearest(surrogate, known)}")
    return clone(NAMED[surrogate])


@dataclass(frozen=True)
class Learnt:
    """A surrogate fitted to one outcome, and the scale on which it knows it.

    Parameters
    ----------
    surrogate : Surrogate
    scale : Scale
    """

    surrogate: Surrogate
    scale: Scale


@dataclass(frozen=True)
class Portfolio:
    """Exact processes of several kernels, compared by leave-one-out density.

    Parameters
    ----------
    members : tuple of GaussianProcess
        The first is kept where rows are too few to compare.
    warp : bool
        Whether transforms of the outcome are tried.
    """

    members: tuple[GaussianProcess, ...] = (
        ExactGP(),
        ExactGP(kernel="rbf"),
        InfiniteWidthSurrogate(),
    )
    warp: bool = True

    def fit(self, X: Tensor, y: Tensor, sign: float) -> Learnt:
        """Fit the best member to outcomes y (n,) at features X (n, f)."""
        first = self.members[0]
        best = _tried(first, X, y, sign, Identity())
        if len(y) < LEAST_ROWS or float(np.ptp(y.numpy())) <= 1e-12 * float(y.abs().max()):
            return best.learnt
        for warp in _warps(y) if self.warp else []:
            best = _better(best, _tried(first, X, y, sign, warp))
        warp = best.learnt.scale.warp
        for member in self.members[1:]:
            if len(y) <= _WIDE_ROWS or not isinstance(member, InfiniteWidthSurrogate):
                best = _better(best, _tried(member, X, y, sign, warp))
        return best.learnt


@dataclass(frozen=True)
class _Trial:
    """A fitted member, and the log density (n,) of each row by the member without it."""

    learnt: Learnt
    density: Tensor


def _better(best: _Trial, rival: _Trial) -> _Trial:
    """Return the rival where its gain is beyond a standard error, that is unlikely to be luck."""
    gain = rival.density - best.density
    return rival if float(gain.sum()) > float(gain.std()) * math.sqrt(len(gain)) else best


def _tried(member: GaussianProcess, X: Tensor, y: Tensor, sign: float, warp: Warp) -> _Trial:
    scale = Scale.fitted(y, sign, warp)
    z = scale.learnt(y)
    surrogate: GaussianProcess = clone(member)
    surrogate.fit(X.numpy(), z.numpy())
    left_out = surrogate.leave_one_out().log_density(z.unsqueeze(1))[:, 0]
    density = left_out + warp.log_derivative(y) - math.log(scale.spread)
    return _Trial(Learnt(surrogate, scale), density)


def _warps(y: Tensor) -> list[Warp]:
    """Return the transforms that outcomes y (n,) of a range call for."""
    wide = float(y.min()) > 0.0 and float(y.max() / y.min()) > 3.0
    return [*([Log()] if wide else []), YeoJohnson.estimate(y.numpy())]


def fit_members(X: Tensor, Y: Tensor, signs: list[float], portfolio: Portfolio) -> list[Learnt]:
    """Fit the best member to each column of Y (n, m)."""
    return [portfolio.fit(X, Y[:, j], sign) for j, sign in enumerate(signs)]


def reproducible(surrogate: Surrogate, seed: int) -> Surrogate:
    """Return an unfitted copy whose own seed is changed, where it has one."""
    copy: Surrogate = clone(surrogate)
    if "seed" in copy.get_params(deep=False):
        copy.set_params(seed=seed)
    return copy


def scaled(Y: Tensor, signs: list[float]) -> tuple[Tensor, list[Scale]]:
    """Outcomes (n, m) on the learnt scale, without transforms, and that scale."""
    scales = [Scale.fitted(Y[:, j], sign) for j, sign in enumerate(signs)]
    return torch.stack([s.learnt(Y[:, j]) for j, s in enumerate(scales)], 1), scales
