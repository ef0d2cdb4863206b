r"""Burgers' equation in closed form (Hopf 1950; Cole 1951), at any time in one step.

.. math:: u_t + u u_x = \nu u_{xx}, \qquad u = c + v(x - ct, t), \qquad v = -2\nu \varphi_x/\varphi

with c the mean, by which a periodic profile moves as a whole, and :math:`\varphi_t = \nu
\varphi_{xx}` from :math:`\varphi_0 = e^{-\psi/2\nu}`, :math:`\psi_x = v_0`. With the periodic heat
kernel G and :math:`y_j = j/N`

.. math:: v(x, t) = \frac{\sum_j D(x - y_j)\, \varphi_0(y_j)}{\sum_j G(x - y_j)\, \varphi_0(y_j)},
    \qquad G(d) = \sum_m e^{-(d - m)^2/4\nu t}, \qquad
    D(d) = \sum_m \frac{d - m}{t} e^{-(d - m)^2/4\nu t}

is a mean of velocities :math:`(x - y)/t` with positive weights: no digits cancel, however small
:math:`\varphi_0` is somewhere (of Fourier modes of :math:`\varphi` it would be lost below 1e-16 of
its largest value). The weights of one x are Gaussian to second order, of variance

.. math:: \sigma^{-2} = \frac{1}{2\nu t} + \frac{\max v_0'}{2\nu}

and sums of equal steps h of a Gaussian are exact to :math:`2 e^{-2\pi^2 \sigma^2/h^2}`, which is
2e-12 for the :math:`h = 0.85 \sigma` that N is chosen for; waves of :math:`v_0` are interpolated.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from understudy.simulate.pde.semilinear import derivative

_SPACING = 0.85  # h over sigma
_EXPONENT = 600.0  # up to which exp stays among the normal numbers
_ENTRIES = 1 << 24  # of weights in memory at once


def burgers(u: Tensor, viscosity: Tensor, t: float) -> Tensor:
    r"""Fields ``(B, n)``, float64, a time t after fields u, with period 1.

    Parameters
    ----------
    u : Tensor (B, n)
        n even; its last wave is not seen.
    viscosity : Tensor (B,)
        :math:`\nu`.
    t : float
        Positive.
    """
    modes = torch.fft.rfft(u, norm="forward")
    mean, slope = modes[:, :1].real, derivative(u.shape[-1])
    nodes = u.shape[-1] * _refinement(modes * slope, viscosity, t)
    turned = torch.exp(-slope * mean * t) * modes / torch.where(slope == 0, 1.0, slope)
    backwards = torch.where(slope == 0, 0.0, turned).conj()  # psi(-y), which the sums below take
    psi = torch.fft.irfft(backwards, n=nodes, norm="forward") / (2.0 * viscosity[:, None])
    exponent = psi.amin(1, keepdim=True) - psi
    shared = bool((viscosity == viscosity[:1]).all()) and not viscosity.requires_grad
    if shared and float(exponent.detach().amin()) > -_EXPONENT:
        log_kernel, velocity = _kernel(viscosity[:1], t, nodes)
        kernel = log_kernel.exp()
        sums = [_windows(k, u.shape[-1])[0] for k in (kernel * velocity, kernel)]
        above, below = (exponent.exp() @ torch.cat(sums).T).chunk(2, dim=1)
        return mean + above / below
    runs = max(1, _ENTRIES // (nodes * u.shape[-1]))
    parts = zip(exponent.split(runs), viscosity.split(runs), strict=True)
    return mean + torch.cat([_averaged(e, nu, t, u.shape[-1]) for e, nu in parts])


def _averaged(exponent: Tensor, viscosity: Tensor, t: float, points: int) -> Tensor:
    """Mean velocities ``(B, points)``, each with weights that are scaled by their largest."""
    log_kernel, velocity = (_windows(k, points) for k in _kernel(viscosity, t, exponent.shape[1]))
    return ((log_kernel + exponent[:, None]).softmax(-1) * velocity).sum(-1)


def _kernel(viscosity: Tensor, t: float, nodes: int) -> tuple[Tensor, Tensor]:
    """Logarithm of G, and D/G, ``(B, nodes)`` at multiples of 1/nodes."""
    spread = 4.0 * viscosity * t
    images = math.ceil(math.sqrt(40.0 * float(spread.detach().amax()))) + 1
    m = torch.arange(-images, images + 1, dtype=torch.float64)
    d = torch.arange(nodes, dtype=torch.float64)[:, None] / nodes - m
    log = -d.square() / spread[:, None, None]
    return log.logsumexp(-1), (log.softmax(-1) * d).sum(-1) / t


def _windows(kernel: Tensor, points: int) -> Tensor:
    """Values ``(B, points, nodes)`` at :math:`x_i + y_j` of a periodic function at the nodes."""
    nodes = kernel.shape[1]
    twice = torch.cat([kernel, kernel[:, :-1]], dim=1)
    return twice.unfold(1, nodes, nodes // points)


def _refinement(slope: Tensor, viscosity: Tensor, t: float) -> int:
    """How many nodes a point sums need, for the modes ``(B, n // 2 + 1)`` of the slope."""
    n = 2 * (slope.shape[1] - 1)
    steepest = torch.fft.irfft(slope.detach(), n=n, norm="forward").amax(1)
    nu = viscosity.detach()
    inverse = (1.0 / (2.0 * nu * t) + steepest.clamp_min(0.0) / (2.0 * nu)).amax().sqrt()
    return max(1, math.ceil(float(inverse) / (_SPACING * n)))
