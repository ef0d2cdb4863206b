r"""Weights of a mixture of models, learnt from their out-of-fold predictions.

Stacking of predictive distributions (Yao, Vehtari, Simpson & Gelman 2018, arXiv 1704.02030):
for each output, over weights on the simplex,

.. math:: \max_w \sum_i S\Bigl(\sum_j w_j\, p(y_i \mid x_i, D_{-i}, M_j)\Bigr).

With the logarithmic score the problem is the maximum likelihood of mixture weights, solved by
expectation-maximisation; with the squared error and the CRPS it is a quadratic programme on the
simplex.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""Loss of weights (J, m) on rows (index tensor): (m,), lower is better."""


def log_score_weights(log_density: Tensor, prior: float = 0.5, iterations: int = 500) -> Tensor:
    """Weights that maximise the log score of the mixture.

    Parameters
    ----------
    log_density : Tensor (J, n, m)
        Out-of-fold log densities of J models.
    prior : float
        Pseudo-observations a model: a weak Dirichlet prior that keeps few rows from deciding.
    iterations : int
        Steps of expectation-maximisation.

    Returns
    -------
    Tensor (J, m)
        Non-negative, summing to 1 over models.
    """
    models, rows, outputs = log_density.shape
    density = (log_density - log_density.amax(0)).exp()
    weights = torch.full((models, outputs), 1.0 / models, dtype=density.dtype)
    for _ in range(iterations):
        responsibility = weights.unsqueeze(1) * density
        responsibility = responsibility / responsibility.sum(0)
        updated = (responsibility.sum(1) + prior) / (rows + models * prior)
        if bool((updated - weights).abs().max() < 1e-6):
            return updated
        weights = updated
    return weights


def quadratic_weights(quadratic: Tensor, linear: Tensor, iterations: int = 2000) -> Tensor:
    r"""Weights that minimise :math:`w^\top Q w + c^\top w` on the simplex, output by output.

    Parameters
    ----------
    quadratic : Tensor (m, J, J)
    linear : Tensor (m, J)

    Returns
    -------
    Tensor (J, m)
        Found by accelerated projected gradient descent.
    """
    models = linear.shape[1]
    step = 1.0 / (2.0 * torch.linalg.matrix_norm(quadratic, ord=2) + 1e-12).unsqueeze(1)
    weights = torch.full_like(linear, 1.0 / models)
    ahead, momentum = weights, 1.0
    for _ in range(iterations):
        gradient = 2.0 * torch.einsum("mij,mj->mi", quadratic, ahead) + linear
        updated = _project_to_simplex(ahead - step * gradient)
        if bool((updated - weights).abs().max() < 1e-8):
            break
        following = 0.5 * (1.0 + (1.0 + 4.0 * momentum**2) ** 0.5)
        ahead = updated + (momentum - 1.0) / following * (updated - weights)
        weights, momentum = updated, following
    return weights.T.contiguous()


def _project_to_simplex(points: Tensor) -> Tensor:
    """Nearest point of the simplex (Duchi et al. 2008), for points (m, J)."""
    ordered = points.sort(dim=1, descending=True).values
    count = torch.arange(1, points.shape[1] + 1, dtype=points.dtype)
    excess = (ordered.cumsum(1) - 1.0) / count
    last = (ordered > excess).sum(1, keepdim=True) - 1
    return (points - excess.gather(1, last)).clamp_min(0.0)


def squared_error_weights(means: Tensor, y: Tensor) -> Tensor:
    """Weights (J, m) that minimise the squared error of the mixture's mean (J, n, m)."""
    residual = means - y
    quadratic = torch.einsum("inm,jnm->mij", residual, residual) / len(y)
    scale = quadratic.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-300)
    models = len(means)
    return quadratic_weights(
        quadratic / scale[:, None, None], quadratic.new_zeros(len(scale), models)
    )


def crps_weights(distance: Tensor, spread: Tensor) -> Tensor:
    """Weights (J, m) that minimise the CRPS of the mixture.

    Parameters
    ----------
    distance : Tensor (m, J)
        Mean over rows of E|Y_j - y|.
    spread : Tensor (m, J, J)
        Mean over rows of E|Y_i - Y_j|.
    """
    return quadratic_weights(-0.5 * spread, distance)


def pruned(weights: Tensor, least: float = 0.03) -> Tensor:
    """Weights (J, m) without models that matter little, renormalised."""
    kept = torch.where(weights >= least, weights, torch.zeros_like(weights))
    return kept / kept.sum(0)


def best_single(losses: Tensor) -> Tensor:
    """One-hot weights (J, m) of the model with the lowest loss (J, m) for each output."""
    winner = losses.argmin(0)
    return torch.nn.functional.one_hot(winner, len(losses)).T.to(losses.dtype)
