r"""Spectral convolutions of a fixed grid in real numbers, as a graph has no complex ones.

The frequencies that are kept are few, so that the transforms along an axis of n points are
matrices: with :math:`w_{xk} = e^{-2\pi i k x/n}`,

.. math:: \hat v_k = \sum_x w_{xk}\, v_x, \qquad
          v_x = \frac1n \sum_k c_k \operatorname{Re} \left( \bar w_{xk}\, \hat v_k \right)

along the last axis, where :math:`c_k` is 2 but for frequencies that are their own conjugates, and
with complex numbers along the others.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from understudy.models.operators.fno import SpectralConv, check_points


class RealSpectralConv(nn.Module):
    """`SpectralConv` with real and imaginary parts apart.

    Parameters
    ----------
    conv : SpectralConv
    """

    def __init__(self, conv: SpectralConv) -> None:
        super().__init__()
        self.modes, self.kept = conv.modes, conv.kept
        weight = conv.weight.detach()
        self.real, self.imaginary = weight[..., 0].contiguous(), weight[..., 1].contiguous()
        self.bias = None if conv.bias is None else conv.bias.detach()

    def forward(self, v: Tensor, add: Tensor | None = None) -> Tensor:
        """Fields ``(B, out_channels, *space)`` of ``(B, in_channels, *space)``."""
        space = tuple(int(n) for n in v.shape[2:])
        check_points(self.modes, space)
        wave = _waves(space[-1], torch.arange(self.modes[-1]))
        re, im = v @ wave[0], v @ wave[1]
        for axis, (n, m) in enumerate(zip(space[:-1], self.modes[:-1], strict=True), start=2):
            c, s = _waves(n, _either_sign(n, m))
            re, im = (
                _along(re, c, axis) - _along(im, s, axis),
                _along(re, s, axis) + _along(im, c, axis),
            )
        re, im = (part.flatten(2).permute(2, 0, 1) for part in (re, im))
        re, im = (
            re @ self.real - im @ self.imaginary,
            re @ self.imaginary + im @ self.real,
        )
        if self.bias is not None:
            first = torch.zeros(len(self.real), 1, 1)
            first[0] = math.prod(space)
            re = re + first * self.bias
        re, im = (part.permute(1, 2, 0).unflatten(2, self.kept) for part in (re, im))
        for axis, (n, m) in enumerate(zip(space[:-1], self.modes[:-1], strict=True), start=2):
            c, s = (part.T / n for part in _waves(n, _either_sign(n, m)))
            re, im = (
                _along(re, c, axis) + _along(im, s, axis),
                _along(im, c, axis) - _along(re, s, axis),
            )
        k, n = torch.arange(self.modes[-1]), space[-1]
        share = torch.where((k == 0) | (2 * k == n), 1.0, 2.0) / n
        out = re @ (share[:, None] * wave[0].T) + im @ (share[:, None] * wave[1].T)
        return out if add is None else out + add


def _either_sign(n: int, m: int) -> Tensor:
    """Frequencies 0 to m - 1 and -m to -1 of n points."""
    return torch.cat([torch.arange(m), torch.arange(n - m, n)])


def _waves(n: int, k: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of exp(-2 pi i k x / n), ``(n, k)``."""
    phase = (torch.arange(n).unsqueeze(1) * k % n).double() * (2.0 * math.pi / n)
    return phase.cos().float(), -phase.sin().float()


def _along(v: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Product with a matrix (n, k) along an axis."""
    return (v.transpose(axis, -1) @ matrix).transpose(axis, -1)


def without_complex(network: nn.Module) -> nn.Module:
    """Put real spectral convolutions in the place of complex ones, in place."""
    for name, child in network.named_children():
        if isinstance(child, SpectralConv):
            setattr(network, name, RealSpectralConv(child))
        else:
            without_complex(child)
    return network
