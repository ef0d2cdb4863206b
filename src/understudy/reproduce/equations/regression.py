r"""Equations by regression of slopes on states, for many trajectories at once.

States and slopes come of noisy samples by cubic polynomials over a moving window (Savitzky & Golay
1964). With :math:`\Theta(u)` the candidate terms, SINDy (Brunton, Proctor & Kutz 2016, arXiv
1509.03580) minimises :math:`\|\Theta \xi - \dot u\|^2` and drops, again and again, coefficients
below a threshold; where the tree is known, and linear in its numbers, the same least squares give
them.
"""

from __future__ import annotations

import torch
from scipy.signal import savgol_filter
from torch import Tensor

from understudy.core.expressions import ExpressionList
from understudy.simulate.runge_kutta import RightSide, integrate


def smoothed(t: Tensor, u: Tensor, window: int = 9) -> tuple[Tensor, Tensor]:
    """States and slopes, each ``(B, T, d)``, of samples at equal steps."""
    step = float(t[1] - t[0])
    window = min(window, len(t) - 1 + len(t) % 2)
    values = u.double().numpy()
    states = savgol_filter(values, window, 3, axis=1)
    slopes = savgol_filter(values, window, 3, deriv=1, delta=step, axis=1)
    return torch.from_numpy(states), torch.from_numpy(slopes)


def candidates(u: Tensor) -> Tensor:
    """1, u_i, u_i u_j, sin u_i and cos u_i of states ``(..., d)``."""
    i, j = torch.triu_indices(u.shape[-1], u.shape[-1])
    ones = torch.ones_like(u[..., :1])
    return torch.cat([ones, u, u[..., i] * u[..., j], u.sin(), u.cos()], dim=-1)


def sparse_coefficients(
    states: Tensor, slopes: Tensor, threshold: float, rounds: int = 10
) -> Tensor:
    """Sequentially thresholded least squares.

    Parameters
    ----------
    states, slopes : Tensor (B, T, d)
    threshold : float
        Smallest coefficient that stays.

    Returns
    -------
    Tensor (B, d, m)
        A row of coefficients a component.
    """
    theta = candidates(states)
    size = theta.norm(dim=1, keepdim=True).clamp_min(1e-12)  # (B, 1, m)
    theta = theta / size
    gram = theta.mT @ theta + 1e-9 * torch.eye(theta.shape[2], dtype=theta.dtype)
    right = slopes.mT @ theta  # (B, d, m)
    kept = torch.ones_like(right, dtype=torch.bool)
    xi = torch.zeros_like(right)
    for _ in range(rounds):
        both = kept[..., :, None] & kept[..., None, :]
        normal = torch.where(both, gram[:, None], torch.eye(gram.shape[1], dtype=gram.dtype))
        xi = torch.linalg.solve(normal, torch.where(kept, right, 0.0)) / size
        kept = kept & (xi.abs() >= threshold)
    return torch.where(kept, xi, 0.0)


def sparse_forecast(
    t: Tensor, u: Tensor, t_query: Tensor, threshold: float, window: int = 9
) -> Tensor:
    """Forecasts ``(B, q, d)`` by SINDy from the last smoothed sample on, NaN where they diverge."""
    states, slopes = smoothed(t, u, window)
    xi = sparse_coefficients(states, slopes, threshold)

    def right_side(v: Tensor, rows: Tensor) -> Tensor:
        return (xi[rows] @ candidates(v).unsqueeze(-1)).squeeze(-1)

    return _continued(right_side, states, t, t_query)


def fitted_numbers(tree: ExpressionList, states: Tensor, slopes: Tensor) -> Tensor:
    """Numbers ``(B, K)`` of a known tree that is linear in them, by least squares."""
    count = len(tree.numbers)
    places = torch.cat([torch.zeros(1, count), torch.eye(count)]).double()
    values = tree.evaluate(states[:, :, None], places)  # (B, T, K + 1, d)
    free = values[:, :, 0]
    columns = values[:, :, 1:] - free[:, :, None]
    matrix = columns.transpose(2, 3).flatten(1, 2)
    wanted = (slopes - free).flatten(1, 2).unsqueeze(-1)
    return torch.linalg.lstsq(matrix, wanted).solution.squeeze(-1)


def tree_forecast(
    tree: ExpressionList, numbers: Tensor, t: Tensor, u: Tensor, t_query: Tensor
) -> Tensor:
    """Forecasts ``(B, q, d)`` of equations, from the last smoothed sample on."""
    states, _ = smoothed(t, u)
    numbers = numbers.double()
    return _continued(lambda v, rows: tree.evaluate(v, numbers[rows]), states, t, t_query)


def _continued(right_side: RightSide, states: Tensor, t: Tensor, t_query: Tensor) -> Tensor:
    times = torch.cat([t[-1:].double(), t_query.double()])
    return integrate(right_side, states[:, -1], times, rtol=1e-5, atol=1e-6, max_steps=3000)[:, 1:]
