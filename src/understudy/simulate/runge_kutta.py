r"""Many ordinary differential equations at once, each with steps of its own.

The pair of Dormand & Prince (1980) of orders 5 and 4: with stages :math:`k_i` and the difference e
of both solutions, a step is accepted when

.. math:: \Big(\tfrac1d \sum_j \big(e_j / (a + r \max(|u_j|, |u_j'|))\big)^2\Big)^{1/2} \le 1

for tolerances a and r, and the next one is longer by the factor
:math:`0.9\,\|e\|^{-1/5}`, between 0.2 and 5. Every trajectory has its own time and step, and all
that have not arrived take a step together, so thousands cost little more than the hardest one.
Steps end at the times asked for; there is no interpolation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from understudy.core.errors import UserError

RightSide = Callable[[Tensor, Tensor], Tensor]
"""Slopes (n, d) at states (n, d) of the trajectories whose numbers (n,) are given second."""

_A = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@torch.no_grad()
def integrate(
    right_side: RightSide,
    u0: Tensor,
    t: Tensor,
    *,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    largest: float = 1e3,
    max_steps: int = 20_000,
) -> Tensor:
    """Trajectories of autonomous systems.

    Parameters
    ----------
    right_side : callable (u (n, d), rows (n,)) -> (n, d)
    u0 : Tensor (B, d)
        States at the first time.
    t : Tensor (T,)
        Increasing.
    rtol, atol : float
        r and a.
    largest : float
        A trajectory one of whose components reaches it in magnitude has diverged.
    max_steps : int
        Of any trajectory, refused ones among them; one that needs more counts as diverged.

    Returns
    -------
    Tensor (B, T, d)
        float64, NaN throughout where a trajectory diverged.
    """
    if u0.ndim != 2 or t.ndim != 1 or len(t) < 1:
        raise UserError(
            f"states must be (B, d) and times (T,), found {tuple(u0.shape)}, {tuple(t.shape)}"
        )
    t = t.double()
    u, clock = u0.double().clone(), t[:1].expand(len(u0)).clone()
    out = torch.full((len(u), len(t), u.shape[1]), torch.nan, dtype=torch.float64)
    out[:, 0] = u
    rows = torch.arange(len(u))
    slope = right_side(u, rows)
    step = _first_steps(u, slope, t, rtol, atol)
    target = torch.ones(len(u), dtype=torch.long)
    going = torch.full((len(u),), len(t) > 1)
    for _ in range(max_steps):
        rows = going.nonzero().squeeze(1)
        if not len(rows):
            break
        y, k1, goal = u[rows], slope[rows], t[target[rows]]
        left = goal - clock[rows]
        h = torch.minimum(step[rows], left)
        new, k7, error = _stages(right_side, y, k1, h[:, None], rows)
        scale = atol + rtol * torch.maximum(y.abs(), new.abs())
        size = (error / scale).square().mean(1).sqrt()
        size = torch.where(torch.isfinite(size), size, 1e9)
        taken = size <= 1.0
        factor = (0.9 * size.clamp_min(1e-10) ** -0.2).clamp(0.2, 5.0)
        # a step cut short by an output time says little of how long the next may be
        cut = taken & (h < step[rows])
        step[rows] = torch.where(cut, torch.maximum(step[rows], h * factor), h * factor)
        there, arrived = rows[taken], (taken & (h >= left))[taken]
        u[there], slope[there] = new[taken], k7[taken]
        clock[there] = torch.where(arrived, goal[taken], clock[there] + h[taken])
        done = there[arrived]
        out[done, target[done]] = u[done]
        target[done] += 1
        going[done] = target[done] < len(t)
        lost = there[~(u[there].abs().amax(1) < largest)]
        out[lost], going[lost] = torch.nan, False
    out[going] = torch.nan
    return out


def _first_steps(u: Tensor, slope: Tensor, t: Tensor, rtol: float, atol: float) -> Tensor:
    """A hundredth of the time in which the state changes by its own size, at the most."""
    scale = atol + rtol * u.abs()
    speed = (slope / scale).square().mean(1).sqrt()
    size = (u / scale).square().mean(1).sqrt()
    first = 0.01 * size / speed
    longest = float((t[-1] - t[0]).clamp_min(1e-12))
    return torch.where(torch.isfinite(first) & (first > 0), first, 1e-6).clamp(1e-9, longest)


def _stages(
    right_side: RightSide, y: Tensor, k1: Tensor, h: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """New states, slopes there and error estimates of one step."""
    k = [k1]
    new = y
    for weights in _A:
        new = y + h * _combined(weights, k)
        k.append(right_side(new, rows))
    return new, k[-1], h * _combined(_ERROR, k)


def _combined(weights: tuple[float, ...], k: list[Tensor]) -> Tensor:
    total = weights[0] * k[0]
    for weight, slope in zip(weights[1:], k[1:], strict=True):
        if weight:
            total = total.add(slope, alpha=weight)
    return total
