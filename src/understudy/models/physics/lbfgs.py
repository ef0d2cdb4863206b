r"""L-BFGS for many networks at once, each with its own curvature and its own step.

With pairs :math:`s_k = x_{k+1} - x_k`, :math:`y_k = g_{k+1} - g_k` of the last m steps, the
direction :math:`-H_k g_k` comes from the two loops of Nocedal (1980, Mathematics of Computation
35, 773) and the step from backtracking until
:math:`f(x + t d) \le f(x) + 10^{-4} t\, g^\top d`. Pairs without positive curvature are left out.
Networks share an evaluation, nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Losses = Callable[[], Tensor]
"""Losses (E,) of the networks at their present parameters."""


@dataclass(frozen=True)
class _Pair:
    s: Tensor
    y: Tensor
    rho: Tensor


def lbfgs(
    parameters: Sequence[Tensor],
    losses: Losses,
    steps: int,
    memory: int = 50,
    backtracks: int = 10,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Minimise the loss of each network.

    Parameters
    ----------
    parameters : sequence of Tensor (E * k, ...)
        With gradients; the rows of a network lie together.
    losses : callable () -> Tensor (E,)
    steps : int
        At most; ends before where no network can go on.
    memory : int
        Pairs m that are kept.
    backtracks : int
        Halvings of a step at most.
    on_step : callable (step, losses), optional

    Returns
    -------
    Tensor (E,)
        Losses at the end.
    """
    x = _flat(parameters, len(losses().detach()))
    f, g = _evaluate(parameters, losses, x)
    pairs: deque[_Pair] = deque(maxlen=memory)
    gamma = 1.0 / g.abs().sum(1).clamp_min(1.0)
    for step in range(steps):
        d = _direction(g, pairs, gamma)
        slope = (g * d).sum(1)
        uphill = slope >= 0.0
        d = torch.where(uphill.unsqueeze(1), -gamma.unsqueeze(1) * g, d)
        slope = torch.where(uphill, (g * d).sum(1), slope)
        t, new = torch.ones_like(f), (f, g)
        done = torch.zeros_like(f, dtype=torch.bool)
        for _ in range(backtracks):
            new = _evaluate(parameters, losses, x + t.unsqueeze(1) * d)
            done = torch.isfinite(new[0]) & (new[0] <= f + 1e-4 * t * slope)
            if bool(done.all()):
                break
            t = torch.where(done, t, _shorter(t, f, new[0], slope))
        s = torch.where(done, t, 0.0).unsqueeze(1) * d
        y = torch.where(done.unsqueeze(1), new[1] - g, torch.zeros_like(g))
        x, f = x + s, torch.where(done, new[0], f)
        g = torch.where(done.unsqueeze(1), new[1], g)
        sy, yy = (s * y).sum(1), y.square().sum(1)
        good = sy > 1e-12 * yy
        pairs.append(_Pair(s, y, torch.where(good, 1.0 / sy, 0.0)))
        gamma = torch.where(good, sy / yy, gamma)
        if on_step is not None:
            on_step(step, f)
        if not bool(done.any()):
            if not any(bool((pair.rho > 0.0).any()) for pair in pairs):
                break
            pairs.clear()
            gamma = 1.0 / g.abs().sum(1).clamp_min(1.0)
    _put(parameters, x)
    return f


def _shorter(t: Tensor, f: Tensor, tried: Tensor, slope: Tensor) -> Tensor:
    """Minimum of the parabola through what is known, within a tenth and a half of the step."""
    best = -0.5 * slope * t.square() / (tried - f - slope * t)
    return torch.where(torch.isfinite(best), torch.clamp(best, 0.1 * t, 0.5 * t), 0.1 * t)


def _direction(g: Tensor, pairs: Sequence[_Pair], gamma: Tensor) -> Tensor:
    q, alphas = -g, []
    for pair in reversed(pairs):
        alpha = pair.rho * (pair.s * q).sum(1)
        q = q - alpha.unsqueeze(1) * pair.y
        alphas.append(alpha)
    q = gamma.unsqueeze(1) * q
    for pair, alpha in zip(pairs, reversed(alphas), strict=True):
        beta = pair.rho * (pair.y * q).sum(1)
        q = q + (alpha - beta).unsqueeze(1) * pair.s
    return q


def _flat(tensors: Sequence[Tensor], networks: int) -> Tensor:
    return torch.cat([t.detach().reshape(networks, -1) for t in tensors], 1)


@torch.no_grad()
def _put(parameters: Sequence[Tensor], x: Tensor) -> None:
    sizes = [p.numel() // len(x) for p in parameters]
    for p, part in zip(parameters, x.split(sizes, 1), strict=True):
        p.copy_(part.reshape(p.shape))


def _evaluate(parameters: Sequence[Tensor], losses: Losses, x: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (E,) and gradients (E, P) at parameters x (E, P)."""
    _put(parameters, x)
    found = losses()
    gradients = torch.autograd.grad(found.sum(), list(parameters), allow_unused=True)
    filled = [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)
    ]
    return found.detach(), _flat(filled, len(x))
