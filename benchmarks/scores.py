r"""Scores of a test prediction, in units of each output's standard deviation in the training rows.

With outputs divided by that standard deviation, the scores of output :math:`j` over the test rows
are

.. math:: R^2_j = 1 - \frac{\sum_i (y_{ij} - \mu_{ij})^2}{\sum_i (y_{ij} - \bar y_j)^2}, \quad
          \mathrm{NLPD}_j = -\frac1n \sum_i \log p_{ij}(y_{ij}), \quad
          \mathrm{CRPS}_j = \frac1n \sum_i \int (F_{ij}(z) - 1[z \ge y_{ij}])^2 \, dz,

beside the share of test values inside the central 90 % interval and that interval's mean width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from understudy.core.predictive import Predictive

Arrays = Mapping[str, np.ndarray]

SMALLEST_SD = 1e-6
"""Floor of a predicted standard deviation: an exactly zero one would make NLPD infinite."""


def r2(mean: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Coefficient of determination of each output, (m,)."""
    return 1.0 - ((Y - mean) ** 2).sum(0) / ((Y - Y.mean(0)) ** 2).sum(0)


def gaussian(answer: Arrays, Y: np.ndarray, scale: np.ndarray) -> Arrays:
    """Log density, CRPS and 90 % interval of the Gaussian with the answer's mean and sd."""
    mean, sd, observed = (torch.as_tensor(a / scale) for a in (answer["mean"], answer["sd"], Y))
    normal = Predictive.gaussian(mean, sd.clamp_min(SMALLEST_SD))
    lower, upper = normal.quantile(torch.tensor([0.05, 0.95], dtype=torch.float64))
    scored = {
        "log_density": normal.log_density(observed),
        "crps": normal.crps(observed),
        "lower_90": lower,
        "upper_90": upper,
    }
    return {name: values.numpy() for name, values in scored.items()}


def own(answer: Arrays, scale: np.ndarray) -> Arrays:
    """The same of an answer that brings its own, per unit of the scale."""
    density = {"log_density": answer["log_density"] + np.log(scale)}
    return density | {name: answer[name] / scale for name in ("crps", "lower_90", "upper_90")}


def scores(answer: Arrays, Y_train: np.ndarray, Y_test: np.ndarray) -> dict[str, list[float]]:
    """Scores per output of an answer.

    Returns
    -------
    dict
        ``r2`` always; ``nlpd``, ``crps``, ``coverage_90``, ``width_90`` where there is uncertainty.
    """
    scale = Y_train.std(0)
    found = {"r2": r2(answer["mean"], Y_test)}
    if "sd" in answer:
        has_own = "log_density" in answer
        scored = own(answer, scale) if has_own else gaussian(answer, Y_test, scale)
        observed, lower, upper = Y_test / scale, scored["lower_90"], scored["upper_90"]
        found |= {
            "nlpd": -scored["log_density"].mean(0),
            "crps": scored["crps"].mean(0),
            "coverage_90": ((lower <= observed) & (observed <= upper)).mean(0),
            "width_90": (upper - lower).mean(0),
        }
    return {name: [float(f"{value:.6g}") for value in values] for name, values in found.items()}
