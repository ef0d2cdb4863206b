r"""Kernels of infinitely wide networks on the sphere at any depth, without underflow.

For correlations :math:`\xi = \langle x, x' \rangle` of unit vectors and an activation with dual D
(see `understudy.nn.dual_activation`), the covariance at initialisation (NNGP) and the tangent
kernel (NTK; Jacot et al. 2018, arXiv 1806.07572) of L hidden layers are

.. math:: S_0 = K_0 = \xi, \qquad S_{l+1} = D(S_l), \qquad
          K_{l+1} = S_{l+1} + K_l D'(S_l).

Where :math:`A = 0`, :math:`D(s) = a_m^2 s^m \tilde q(s)` with :math:`m \ge 1`, off-diagonal entries
vanish geometrically (:math:`m = 1`) or doubly exponentially (:math:`m \ge 2`). What is kept is

.. math:: u_l = \ln|S_l| - l \ln a_1^2 \quad (m = 1), \qquad
          u_l = m^{-l} \left(\ln|S_l| + \frac{\ln a_m^2}{m - 1}\right) \quad (m \ge 2),

which converges: to the logarithm of the Koenigs function :math:`\psi` of D,
:math:`\psi(D(\xi)) = a_1^2 \psi(\xi)`, or to that of its Böttcher function. Once
:math:`\tilde q(S_l) = 1` to rounding, further layers change nothing, so any depth costs some tens
of layers. The tangent kernel is kept as the ratio :math:`m^l r_l = K_l / S_l`,

.. math:: r_{l+1} = m^{-(l+1)} + r_l\, \frac{S_l D'(S_l)}{m D(S_l)}.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.nn.dual_activation import DualActivation

_LARGEST = 1e300
_CHUNK = 1 << 15


@dataclass(frozen=True)
class DeepKernel:
    r"""Kernel entries :math:`f\, e^{g u + c}` of pairs of distinct points.

    Parameters
    ----------
    coordinate : Tensor (p, q)
        u.
    factor : Tensor (p, q)
        f, signed.
    gain, offset : float
        g and c, the same for all pairs.
    log_diagonal : float
        Logarithm of the kernel of a point with itself.
    """

    coordinate: Tensor
    factor: Tensor
    gain: float
    offset: float
    log_diagonal: float

    def over_diagonal(self) -> Tensor:
        """Entries (p, q) as multiples of the diagonal; they may underflow to 0."""
        exponent = self.gain * self.coordinate + (self.offset - self.log_diagonal)
        return self.factor * exponent.exp_()

    def over_largest(self) -> Tensor:
        """Entries (p, q) as multiples of the largest magnitude in their row.

        A row of zeros, of a point that is orthogonal to all others, stays zero.
        """
        top = self.coordinate.amax(-1, keepdim=True).clamp_min(-_LARGEST)
        entries = self.factor * ((self.coordinate - top) * self.gain).exp_()
        return entries / entries.abs().amax(-1, keepdim=True).clamp_min(1e-300)


def deep_kernel(
    cosine: Tensor, activation: DualActivation, depth: int | float, tangent: bool = False
) -> DeepKernel:
    """Kernel of an infinitely wide network of the given depth.

    Parameters
    ----------
    cosine : Tensor (p, q)
        Inner products of unit vectors, float64, in [-1, 1].
    activation : DualActivation
    depth : int or inf
        Hidden layers. Infinity, for the limit up to a scale, needs an activation of mean 0.
    tangent : bool
        The NTK instead of the NNGP; their limits of infinite depth agree up to a scale.
    """
    check_depth(activation, depth)
    recursion = (_lasting, _geometric, _doubly_exponential)[min(activation.order, 2)]
    coordinate, factor = torch.empty_like(cosine), torch.empty_like(cosine)
    rows = max(1, _CHUNK // max(1, cosine.shape[-1]))
    for start in range(0, len(cosine), rows):
        at = slice(start, start + rows)
        coordinate[at], factor[at] = recursion(cosine[at], activation, depth, tangent)
    gain, offset = _scale(activation, depth, tangent)
    return DeepKernel(coordinate, factor, gain, offset, _log_diagonal(activation, depth, tangent))


def check_depth(activation: DualActivation, depth: int | float) -> None:
    """Refuse a depth that is no whole number from 1, or infinite where there is no such kernel."""
    if isinstance(depth, bool) or not (depth == math.inf or (depth >= 1 and depth == int(depth))):
        raise UserError(f"depth must be a whole number of at least 1, got {depth!r}")
    if depth == math.inf and activation.order == 0:
        raise UserError(
            "at infinite depth the kernel of an activation whose mean is not 0 is constant: "
            "give a finite depth"
        )


def _lasting(
    cosine: Tensor, activation: DualActivation, depth: int | float, tangent: bool
) -> tuple[Tensor, Tensor]:
    """Recursion as it stands: where A is not 0 nothing vanishes."""
    S = K = cosine
    for _ in range(int(depth)):
        if tangent:
            S, slope = activation.dual_pair(S)
            K = S + K * slope
        else:
            S = activation.dual(S)
        S = S.clamp_(-1.0, 1.0)
    return torch.zeros_like(cosine), K if tangent else S


def _geometric(
    cosine: Tensor, activation: DualActivation, depth: int | float, tangent: bool
) -> tuple[Tensor, Tensor]:
    """Coordinate u and signed ratio r where m = 1: S shrinks by a_1^2 a layer in the end."""
    tangent = tangent and math.isfinite(depth)
    S, u, r = cosine.clone(), cosine.abs().log_(), torch.ones_like(cosine)
    growth, sign, held = torch.ones_like(cosine), cosine.sign(), 0
    most = min(depth, _layers_to_leave_one(activation))
    safe = max(1, int(600.0 / -math.log(activation.leading)))
    layers = 0
    while layers < most:
        q = activation.relative(S)
        if layers % 4 == 0 and _is_one(q):
            break
        r = r * activation.elasticity(S) + 1.0 if tangent else r
        growth, layers, held = growth.mul_(q), layers + 1, held + 1
        # 1 is a repelling fixed point: rounding must not carry coinciding points above it
        S = S.mul_(q).mul_(activation.leading).clamp_(-1.0, 1.0)
        if held == safe:
            sign.mul_(growth.sign())
            u, growth, held = u.add_(growth.abs_().log_()), torch.ones_like(growth), 0
    if tangent:
        r += depth - layers
    sign.mul_(growth.sign())
    return u.add_(growth.abs_().log_()), r.mul_(sign)


def _doubly_exponential(
    cosine: Tensor, activation: DualActivation, depth: int | float, tangent: bool
) -> tuple[Tensor, Tensor]:
    """Coordinate u and signed ratio r where m > 1: ln S is multiplied by m a layer in the end."""
    m, log_leading = activation.order, math.log(activation.leading)
    tangent = tangent and math.isfinite(depth)
    log_s, sign, r = cosine.abs().log_(), cosine.sign(), torch.ones_like(cosine)
    layers, most = 0, min(depth, _layers_to_leave_one(activation))
    while layers < most:
        S = log_s.exp().mul_(sign)
        q = activation.relative(S)
        if _is_one(q):
            break
        layers += 1
        if tangent:
            r = r * activation.elasticity(S).div_(m) + float(m) ** -layers
        sign = sign**m * q.sign()
        log_s.mul_(m).add_(log_leading).add_(q.abs_().log_()).clamp_max_(0.0)
    if tangent:
        r += (float(m) ** -layers - float(m) ** -depth) / (m - 1.0)
    u = (log_s + log_leading / (m - 1)) / m**layers
    return u, r * (sign if m % 2 or layers == depth else sign.square())


def _is_one(q: Tensor) -> bool:
    return float((q - 1.0).abs_().amax()) < 1e-16


def _layers_to_leave_one(activation: DualActivation) -> float:
    """Layers after which only points that coincide to rounding are not near their limit."""
    numbers = activation.constants()
    if numbers.slope_square <= 1.0:
        return 1.0
    layers = 38.0 / math.log(numbers.slope_square) + 30.0
    return math.ceil(layers - (40.0 / math.log(activation.leading) if numbers.slope else 0.0))


def _scale(activation: DualActivation, depth: int | float, tangent: bool) -> tuple[float, float]:
    """Gain and offset of the entries' exponent."""
    m = activation.order
    if m == 0 or (m == 1 and depth == math.inf):
        return 1.0, 0.0
    log_leading = math.log(activation.leading)
    if m == 1:
        return 1.0, depth * log_leading
    log_gain = depth * math.log(m)
    gain = math.exp(log_gain) if log_gain < math.log(_LARGEST) else _LARGEST
    return gain, -log_leading / (m - 1) + (log_gain if tangent and depth < math.inf else 0.0)


def _log_diagonal(activation: DualActivation, depth: int | float, tangent: bool) -> float:
    """0 for the NNGP; for the NTK the logarithm of 1 + B' + ... + B'^L."""
    if depth == math.inf:
        return math.inf
    if not tangent:
        return 0.0
    growth = activation.constants().slope_square
    if abs(growth - 1.0) < 1e-12:
        return math.log(depth + 1.0)
    log_power = (depth + 1.0) * math.log(growth)
    if growth < 1.0:
        return math.log(-math.expm1(log_power) / (1.0 - growth))
    return log_power + math.log1p(-math.exp(-log_power)) - math.log(growth - 1.0)


def ridgeless(gram: Tensor, targets: Tensor) -> Tensor:
    """Weights of the interpolant of least norm, (n, c) of a Gram matrix (n, n) and targets (n, c).

    By Cholesky factors; where the matrix is singular to rounding, by its pseudo-inverse.
    """
    factor, failed = torch.linalg.cholesky_ex(gram)
    tolerance = len(gram) * torch.finfo(gram.dtype).eps
    pivots = factor.diagonal().square()
    if not int(failed) and float(pivots.min()) > tolerance * float(gram.diagonal().max()):
        return torch.cholesky_solve(targets, factor)
    values, vectors = torch.linalg.eigh(gram)
    kept = values > tolerance * values[-1]
    inverse = torch.where(kept, 1.0 / torch.where(kept, values, 1.0), 0.0)
    return vectors @ (inverse[:, None] * (vectors.mT @ targets))
