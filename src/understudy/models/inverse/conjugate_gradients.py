"""Conjugate gradients for many symmetric systems at once (Hestenes & Stiefel 1952)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    x: Tensor | None = None,
    *,
    tolerance: float = 1e-5,
    iterations: int = 30,
) -> Tensor:
    """Solve :math:`A x = b` for each sample, A symmetric and positive semi-definite.

    Parameters
    ----------
    apply : callable (B, *shape) -> (B, *shape)
        Product with A, sample by sample.
    b : Tensor (B, *shape)
    x : Tensor (B, *shape), optional
        Start; zeros by default.
    tolerance : float
        Norm of the residual over that of b at which a sample is done.
    iterations : int
        At most.

    Returns
    -------
    Tensor (B, *shape)
        A sample in a direction without curvature stays where it was.
    """
    x = torch.zeros_like(b) if x is None else x.clone()
    r = b - apply(x)
    p, rr = r.clone(), _dot(r, r)
    enough = tolerance**2 * _dot(b, b)
    for _ in range(iterations):
        if bool((rr <= enough).all()):
            break
        q = apply(p)
        curvature = _dot(p, q)
        going = (rr > enough) & (curvature > 0.0)
        step = torch.where(going, rr / curvature.where(going, torch.ones_like(rr)), 0.0)
        x += step * p
        r = r - step * q
        new = _dot(r, r)
        p = r + torch.where(going, new / rr.where(rr > 0, torch.ones_like(rr)), 0.0) * p
        rr = new
    return x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each sample, shaped to broadcast against it."""
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))
