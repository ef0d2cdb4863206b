"""Which transform of each output a table asks for, chosen by the likelihood of unseen rows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from understudy.core.warp import Identity, Log, Warp, YeoJohnson
from understudy.models.tabular.exact_gp import ExactGP

_ROWS = 250


def choose_warps(X: NDArray[np.float64], Y: NDArray[np.float64], seed: int) -> tuple[Warp, ...]:
    """Transform of each output: identity, logarithm or Yeo-Johnson.

    A transform is tried where an output is skewed or heavy-tailed. It is kept when a Gaussian
    process of the transformed output predicts unseen rows of a subset with a higher density (the
    Jacobian included) by more than two standard errors of the paired difference, without a
    relative error of its mean more than 2 % higher.

    Parameters
    ----------
    X : ndarray (n, f)
        Features.
    Y : ndarray (n, m)
        Outputs.
    seed : int
        Of the subset and its folds.

    Returns
    -------
    tuple of Warp
        One for each output.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(X))[:_ROWS]
    folds = np.arange(len(rows)) % 5
    return tuple(_choose(X[rows], Y[rows, j], Y[:, j], folds, seed) for j in range(Y.shape[1]))


def _choose(
    X: NDArray[np.float64],
    y: NDArray[np.float64],
    whole: NDArray[np.float64],
    folds: NDArray[np.int_],
    seed: int,
) -> Warp:
    candidates = _candidates(whole)
    if not candidates or len(y) < 20 or np.ptp(y) == 0.0:
        return Identity()
    best: Warp = Identity()
    density, error = _unseen(X, y, best, folds)
    for warp in candidates:
        other_density, other_error = _unseen(X, y, warp, folds)
        gain = other_density - density
        clear = gain.mean() > 2.0 * gain.std() / len(y) ** 0.5
        if bool(clear) and other_error <= 1.02 * error:
            best, density, error = warp, other_density, other_error
    return best


def _candidates(y: NDArray[np.float64]) -> list[Warp]:
    if np.ptp(y) == 0.0:
        return []
    wide = y.min() > 0.0 and y.max() / y.min() > 10.0
    if abs(stats.skew(y)) < 0.75 and stats.kurtosis(y) < 3.0 and not wide:
        return []
    return [*([Log()] if wide else []), YeoJohnson.estimate(torch.from_numpy(y))]


def _unseen(
    X: NDArray[np.float64], y: NDArray[np.float64], warp: Warp, folds: NDArray[np.int_]
) -> tuple[Tensor, float]:
    """Log density of each row by a model that has not seen it, and the error of its median."""
    target = torch.from_numpy(y)
    z = warp.forward(target)
    predictive = ExactGP().fit_cross_validated(X, z.numpy(), folds)
    density = predictive.log_density(z.unsqueeze(1))[:, 0] + warp.log_derivative(target)
    error = (warp.inverse(predictive.mean[:, 0]) - target).square().mean().sqrt()
    return density, float(error)
