r"""How good predictions are: errors, proper scores, coverage and calibration.

Pure functions of NumPy arrays in float64. Arrays are (n,) or (n, m), rows first; a metric is a
mean over rows, so it returns a float for (n,) and an array (m,) for (n, m). Metrics that rank
models are such that lower is better, but for `r2` and `kendall_tau`. `bootstrap_interval` says how
far chance in the choice of rows reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from understudy.core.errors import UserError

Floats = NDArray[np.float64]
_TINY = np.finfo(np.float64).tiny
_CELLS = 4_000_000  # numbers held at once while resampling: 32 MB an array


def _array(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=np.float64)


# -- point predictions ------------------------------------------------------------------------


def rmse(y: ArrayLike, mean: ArrayLike) -> Any:
    r"""Root mean squared error, :math:`\sqrt{\tfrac1n \sum_i (y_i - \mu_i)^2}`.

    Parameters
    ----------
    y, mean : array (n,) or (n, m)
        Observations and predictions.

    Returns
    -------
    float or array (m,)
        In the units of y.
    """
    return np.sqrt(np.square(_array(y) - _array(mean)).mean(0))


def r2(y: ArrayLike, mean: ArrayLike) -> Any:
    r"""Share of the variance explained, :math:`1 - \sum_i (y_i-\mu_i)^2 / \sum_i (y_i-\bar y)^2`.

    Parameters
    ----------
    y, mean : array (n,) or (n, m)

    Returns
    -------
    float or array (m,)
        At most 1; where y is constant, 1 for exact predictions and 0 otherwise.
    """
    observed = _array(y)
    residual = np.square(observed - _array(mean)).sum(0)
    total = np.square(observed - observed.mean(0)).sum(0)
    explained = 1.0 - residual / np.where(total > 0, total, 1.0)
    return np.where(total > 0, explained, np.where(residual > 0, 0.0, 1.0))[()]


def relative_l2(y: ArrayLike, mean: ArrayLike) -> Any:
    r"""Relative error of fields, :math:`\tfrac1n\sum_i \lVert y_i-\mu_i\rVert/\lVert y_i\rVert`.

    Parameters
    ----------
    y, mean : array (n, ...)
        Fields; the norm is over all but the first dimension.

    Returns
    -------
    float
    """
    truth = _array(y)
    error = (_array(mean) - truth).reshape(len(truth), -1)
    size = np.linalg.norm(truth.reshape(len(truth), -1), axis=1)
    return float((np.linalg.norm(error, axis=1) / np.maximum(size, _TINY)).mean())


def kendall_tau(a: ArrayLike, b: ArrayLike) -> float:
    """Rank correlation tau-b of (n,) and (n,): 1 for the same order, -1 for the reverse."""
    from scipy.stats import kendalltau

    return float(kendalltau(_array(a), _array(b)).statistic)


# -- predictive distributions -----------------------------------------------------------------


def nlpd(log_density: ArrayLike) -> Any:
    """Negative log predictive density, the mean over rows.

    Parameters
    ----------
    log_density : array (n,) or (n, m)
        Log density of each observation, as `Predictive.log_density` gives it.

    Returns
    -------
    float or array (m,)
        In nats.
    """
    return -_array(log_density).mean(0)


def gaussian_nlpd(y: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Any:
    r"""Negative log density under :math:`\mathcal N(\mu_i, \sigma_i^2)`, arrays (n,) or (n, m)."""
    scale = _array(sd)
    z = (_array(y) - _array(mean)) / scale
    return (0.5 * np.square(z) + np.log(scale) + 0.5 * np.log(2.0 * np.pi)).mean(0)


def crps(predictive: Any, y: ArrayLike) -> Any:
    """Continuous ranked probability score of a predictive distribution, the mean over rows.

    Parameters
    ----------
    predictive : Predictive or any object whose ``crps(Tensor)`` scores each cell
        For n rows and m outputs.
    y : array (n, m)

    Returns
    -------
    array (m,)
        In the units of y.
    """
    import torch

    return _array(predictive.crps(torch.from_numpy(_array(y)))).mean(0)


def crps_samples(samples: ArrayLike, y: ArrayLike) -> Any:
    r"""CRPS from draws, :math:`E|Y - y| - \tfrac12 E|Y - Y'|`, the mean over rows.

    Unbiased in the number of draws (the "fair" form): pairs are of different draws.

    Parameters
    ----------
    samples : array (s, n) or (s, n, m)
        At least two draws of each cell.
    y : array (n,) or (n, m)

    Returns
    -------
    float or array (m,)
    """
    draws = np.sort(_array(samples), axis=0)
    s = len(draws)
    if s < 2:
        raise UserError(f"crps_samples needs at least two draws, found {s}")
    rank = (2.0 * np.arange(1, s + 1) - s - 1.0).reshape(-1, *[1] * (draws.ndim - 1))
    among = 2.0 * (rank * draws).sum(0) / (s * (s - 1))
    return (np.abs(draws - _array(y)).mean(0) - 0.5 * among).mean(0)


# -- intervals --------------------------------------------------------------------------------


def coverage(lower: ArrayLike, upper: ArrayLike, y: ArrayLike) -> Any:
    """Share of observations (n,) or (n, m) inside closed intervals: a float or an array (m,)."""
    value = _array(y)
    return ((_array(lower) <= value) & (value <= _array(upper))).mean(0, dtype=np.float64)


def interval_width(lower: ArrayLike, upper: ArrayLike) -> Any:
    """Mean width of intervals (n,) or (n, m), in the units of y."""
    return (_array(upper) - _array(lower)).mean(0)


def interval_score(lower: ArrayLike, upper: ArrayLike, y: ArrayLike, level: float) -> Any:
    r"""Interval score (Gneiting & Raftery 2007, equation 43): width, and a fine for each miss.

    .. math:: (u - l) + \tfrac{2}{1 - p}\,(l - y)_+ + \tfrac{2}{1 - p}\,(y - u)_+

    Parameters
    ----------
    lower, upper, y : array (n,) or (n, m)
    level : float in (0, 1)
        Nominal coverage p of the interval.

    Returns
    -------
    float or array (m,)
        In the units of y; lower is better.
    """
    low, high, value = _array(lower), _array(upper), _array(y)
    outside = np.maximum(low - value, 0.0) + np.maximum(value - high, 0.0)
    return (high - low + 2.0 / (1.0 - level) * outside).mean(0)


# -- calibration ------------------------------------------------------------------------------


def pit(predictive: Any, y: ArrayLike) -> Floats:
    """Probability integral transform: each observation's place in its predictive distribution.

    Parameters
    ----------
    predictive : Predictive or any object with ``cdf(Tensor)``
    y : array (n, m)

    Returns
    -------
    array (n, m)
        Uniform on [0, 1] where the distributions are right.
    """
    import torch

    return _array(predictive.cdf(torch.from_numpy(_array(y))))


def calibration_curve(pit: ArrayLike, levels: ArrayLike) -> Floats:
    r"""Observed share of rows below each predictive quantile, :math:`\tfrac1n \#\{i: u_i \le p\}`.

    Parameters
    ----------
    pit : array (n,) or (n, m)
        As `pit` gives it.
    levels : array (l,)
        Expected shares p in [0, 1].

    Returns
    -------
    array (l,) or (l, m)
        Equal to the levels where calibration is perfect.
    """
    places = np.sort(_array(pit), axis=0)
    p = _array(levels)
    columns = places.reshape(len(places), -1).T
    counts = np.stack([np.searchsorted(column, p, side="right") for column in columns], axis=-1)
    return (counts / len(places)).reshape(len(p), *places.shape[1:])


def calibration_error(pit: ArrayLike, bins: int = 20) -> Any:
    """Expected calibration error of a regression: mean distance of its curve from the diagonal.

    Parameters
    ----------
    pit : array (n,) or (n, m)
    bins : int
        The curve is read at the levels 1/bins, 2/bins, ..., 1 - 1/bins.

    Returns
    -------
    float or array (m,)
        From 0 (calibrated) to about 1/2.
    """
    levels = np.arange(1, bins) / bins
    curve = calibration_curve(pit, levels)
    return np.abs(curve - levels.reshape(-1, *[1] * (curve.ndim - 1))).mean(0)


def classification_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 15
) -> float:
    """Expected calibration error of a classifier (Guo et al. 2017, arXiv 1706.04599, equation 5).

    Parameters
    ----------
    probabilities : array (n, c) or (n,)
        Probability of each of c classes, or of class 1 of two.
    labels : int array (n,)
        True classes.
    bins : int
        Equal-width bins of the confidence; 15 as in the paper.

    Returns
    -------
    float
        Mean over rows of | accuracy - confidence | of the row's bin.
    """
    given = _array(probabilities)
    table = np.stack([1.0 - given, given], axis=1) if given.ndim == 1 else given
    confidence = table.max(1)
    gap = (table.argmax(1) == np.asarray(labels)).astype(np.float64) - confidence
    which = np.minimum((confidence * bins).astype(np.intp), bins - 1)
    return float(np.abs(np.bincount(which, weights=gap, minlength=bins)).sum() / len(gap))


# -- chance -----------------------------------------------------------------------------------


def bootstrap_interval(
    statistic: Callable[..., Any],
    *arrays: ArrayLike,
    level: float = 0.95,
    n: int = 1000,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Percentile interval of a statistic over resampled rows (Efron & Tibshirani 1993, ch. 13).

    Parameters
    ----------
    statistic : callable
        Of the arrays with rows first and any number of further dimensions, reducing the rows,
        as every metric with ``Any`` result above does: replicates are given as a further
        dimension, (rows, replicates, m), and computed together.
    arrays : array (rows,) or (rows, m)
        Resampled together.
    level : float in (0, 1)
        Coverage of the interval.
    n : int
        Replicates.
    seed : int

    Returns
    -------
    lower, upper : float or array (m,)
    """
    columns = [_array(a) for a in arrays]
    rows = len(columns[0])
    generator = np.random.default_rng(seed)
    at_once = max(1, min(n, _CELLS // max(1, max(a.size for a in columns))))
    replicates: list[Floats] = []
    for start in range(0, n, at_once):
        index = generator.integers(0, rows, size=(rows, min(at_once, n - start)))
        replicates.append(_array(statistic(*[a[index] for a in columns])))
    tail = 0.5 * (1.0 - level)
    low, high = np.quantile(np.concatenate(replicates), [tail, 1.0 - tail], axis=0)
    return low, high
