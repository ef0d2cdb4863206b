r"""How far a predicted field is from the true one, and for how long a rollout can be believed.

Fields are ``(..., C, *space)``; trajectories have times before the channels, ``(B, T, C, *space)``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def relative_l2(predicted: Tensor, true: Tensor) -> Tensor:
    r"""Relative error :math:`\|\hat u - u\|_2 / \|u\|_2` ``(B,)`` of fields ``(B, ...)``."""
    error = (predicted - true).flatten(1).norm(dim=1)
    return error / true.flatten(1).norm(dim=1).clamp_min(torch.finfo(true.dtype).tiny)


def nrmse(predicted: Tensor, true: Tensor) -> Tensor:
    """Normalised root mean square error of each field ``(B, T, C)`` of trajectories.

    The root mean square over space of the error by that of the truth, as in PDEBench
    (arXiv 2210.07182); its mean over all three is the figure usually given.
    """
    error = (predicted - true).flatten(3).square().mean(-1).sqrt()
    return error / true.flatten(3).square().mean(-1).sqrt().clamp_min(1e-12)


def correlation(predicted: Tensor, true: Tensor) -> Tensor:
    """Pearson's correlation ``(B, T)`` of fields ``(B, T, C, *space)`` at each time."""
    a, b = _centred(predicted, 2), _centred(true, 2)
    size = a.norm(dim=-1) * b.norm(dim=-1)
    return (a * b).sum(-1) / size.clamp_min(torch.finfo(a.dtype).tiny)


def correlation_time(
    predicted: Tensor, true: Tensor, dt: float | Tensor, threshold: float = 0.8
) -> Tensor:
    """Time until the correlation falls below a threshold, for each trajectory.

    Parameters
    ----------
    predicted, true : Tensor (B, T, C, *space)
        At times dt, 2 dt, ..., T dt.
    dt : float or Tensor (B,)
    threshold : float in (0, 1)

    Returns
    -------
    Tensor (B,)
        The last time before the first one below the threshold; T dt where there is none.
    """
    return first_below(correlation(predicted, true), dt, threshold)


def mean_correlation_time(
    predicted: Tensor, true: Tensor, dt: float, threshold: float = 0.8
) -> float:
    """Time until the correlation, averaged over trajectories at each time, falls below it."""
    mean = correlation(predicted, true).mean(0, keepdim=True)
    return float(first_below(mean, dt, threshold))


def reliable_horizon(samples: Tensor, dt: float | Tensor, threshold: float = 0.8) -> Tensor:
    """Time until several rollouts from one start disagree, see :func:`agreement`.

    Lippe et al. 2023 (arXiv 2308.05732) estimate by it how long a rollout can be believed.

    Parameters
    ----------
    samples : Tensor (B, S, T, C, *space)
        S >= 2 rollouts at times dt, ..., T dt.

    Returns
    -------
    Tensor (B,)
    """
    return first_below(agreement(samples), dt, threshold)


def agreement(samples: Tensor) -> Tensor:
    r"""Mean correlation ``(B, T)`` between all pairs of S rollouts ``(B, S, T, C, *space)``.

    With :math:`z_s` the centred fields of length 1 it is
    :math:`(\|\sum_s z_s\|^2 - S) / (S (S - 1))`.
    """
    count = samples.shape[1]
    if count < 2:
        raise ValueError("agreement needs at least two rollouts")
    z = _centred(samples, 3)
    z = z / z.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
    together = z.sum(1).square().sum(-1)
    return (together - count) / (count * (count - 1))


def first_below(series: Tensor, dt: float | Tensor, threshold: float) -> Tensor:
    """Time ``(B,)`` of the last step of a series ``(B, T)`` before it is first below; NaN is."""
    good = (series >= threshold).cumprod(dim=1).sum(1)
    return good * torch.as_tensor(dt, dtype=torch.float64, device=series.device)


def spectrum(fields: Tensor, dims: int) -> Tensor:
    """Amplitude of each wave number, ``(..., K)``, of periodic fields ``(..., *space)``.

    Parameters
    ----------
    fields : Tensor (..., *space)
    dims : int
        Dimensions of space d. In one dimension the amplitude of mode k is |FFT|/n; in more, the
        root of the power of all modes whose wave number rounds to k.

    Returns
    -------
    Tensor (..., K)
        K = n // 2 + 1 of the shortest axis.
    """
    axes = tuple(range(-dims, 0))
    shape = fields.shape[-dims:]
    coefficients = torch.fft.rfftn(fields, dim=axes).abs() / shape.numel()
    count = min(shape) // 2 + 1
    if dims == 1:
        return coefficients[..., :count]
    weight = torch.full((coefficients.shape[-1],), 2.0, device=fields.device)
    weight[0] = 1.0
    if shape[-1] % 2 == 0:
        weight[-1] = 1.0
    power = (coefficients.square() * weight).flatten(-dims)
    shells = _shells(tuple(shape), fields.device)
    kept = shells < count
    total = torch.zeros(*power.shape[:-1], count, dtype=power.dtype, device=power.device)
    return total.index_add_(-1, shells[kept], power[..., kept]).sqrt()


def spectrum_error(predicted: Tensor, true: Tensor, dims: int) -> Tensor:
    """Mean amplitude ``(K,)`` of the error at each wave number, see :func:`spectrum`."""
    return spectrum(predicted - true, dims).flatten(0, -2).mean(0)


def _shells(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Rounded length of each wave vector of a real transform, flattened."""
    axes = [torch.fft.fftfreq(n, 1.0 / n, device=device) for n in shape[:-1]]
    axes.append(torch.fft.rfftfreq(shape[-1], 1.0 / shape[-1], device=device))
    squares = torch.stack([g.square() for g in torch.meshgrid(*axes, indexing="ij")]).sum(0)
    return squares.sqrt().round().long().flatten()


def _centred(fields: Tensor, lead: int) -> Tensor:
    """Fields flattened after their first dimensions, without their mean."""
    flat = fields.flatten(lead)
    return flat - flat.mean(-1, keepdim=True)
