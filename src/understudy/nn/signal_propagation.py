r"""What an ensemble of random multilayer perceptrons computes, from layer to layer.

Roberts, Yaida & Hanin, *The Principles of Deep Learning Theory* (2022, arXiv 2106.10165), chapters
4, 5, 8, 10, 11 and appendix B; no code is published with the book. The recursions were written
down from knowledge of it, and each single-input one is checked against ensembles of random
networks. With

.. math:: z^{(l+1)} = b + W \phi(z^{(l)}) + \gamma z^{(l)}, \quad b_i \sim N(0, C_b), \quad
          W_{ij} \sim N(0, C_W / n_l),

and :math:`\chi_\parallel = C_W \langle z \phi\phi' \rangle / K`,
:math:`\chi_\perp = C_W \langle \phi'^2 \rangle`, :math:`h = \tfrac12 d\chi_\perp/dK`,
:math:`g = \langle\phi^2\rangle`, :math:`q = \langle\phi^2\phi'^2\rangle`, all under
:math:`N(0, K^{(l)})`:

=== kernel
.. math:: K' = C_b + C_W \langle \phi(z_a) \phi(z_b) \rangle_K + \gamma^2 K

=== four-point vertex, the connected correlator of two units being V/n, and the mean at finite width
.. math:: V' = \tfrac{n_l}{n_{l-1}} (\chi^2 V + 2 C_W \langle(\phi^2)'\rangle\, \chi\, T)
          + C_W^2 (\langle\phi^4\rangle - g^2) + 4 \gamma^2 \chi_\parallel K^2, \qquad
          \chi = \chi_\parallel + \gamma^2,
.. math:: G_1' = \chi G_1 + \tfrac12 C_W \left(g'' V + \langle(\phi^2)'''\rangle\, T\right),
          \qquad T' = \gamma \left(C_W \langle z\phi^2 \rangle + \chi T\right)

where :math:`T/n = E[z_i^2 z_j]` is a third cumulant that residual connections make where
:math:`\phi^2` is not even, and that vanishes without them; its terms were derived here.

=== neural tangent kernel, for learning rates lam_b of the biases and lam_W / n of the weights
.. math:: \Theta' = \lambda_b + \lambda_W \langle\phi_a\phi_b\rangle
          + (C_W \langle\phi'_a\phi'_b\rangle + \gamma^2)\, \Theta

=== and its fluctuations at equal widths (F, B, D, A below), without residual connections.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.nn.criticality import CriticalPoint, find_critical_point
from understudy.nn.gaussian_expectation import (
    Activation,
    Moments,
    covariance_moments,
    moments,
)
from understudy.nn.gaussian_expectation import activation as describe

PERTURBATIVE = 0.3
"""Deviation from a Gaussian, V / (n K^2), above which leading order in 1/n is not to be trusted."""


class PerturbationWarning(UserWarning):
    """The network is too deep for its width: corrections of higher order in depth/width matter."""


@dataclass(frozen=True)
class Susceptibilities:
    r"""Growth of perturbations in one layer.

    Parameters
    ----------
    parallel : Tensor
        :math:`\chi_\parallel + \gamma^2`, of a change of the overall scale.
    perpendicular : Tensor
        :math:`\chi_\perp + \gamma^2`, of the squared distance of nearby inputs.
    h : Tensor
        :math:`\tfrac12\, d\chi_\perp/dK`.
    """

    parallel: Tensor
    perpendicular: Tensor
    h: Tensor


@dataclass(frozen=True)
class LearningRates:
    r"""Learning-rate tensor of every layer, as the neural tangent kernel weighs it.

    Parameters
    ----------
    bias, weight : float or sequence of float
        :math:`\lambda_b` and :math:`\lambda_W`, for all layers or one each; a weight's own learning
        rate is :math:`\lambda_W` over its fan-in.
    """

    bias: float | Sequence[float] = 1.0
    weight: float | Sequence[float] = 1.0

    def layers(self, depth: int) -> tuple[list[float], list[float]]:
        """Both rates of each of ``depth`` layers."""
        return _per_layer("bias", self.bias, depth), _per_layer("weight", self.weight, depth)


def _per_layer(name: str, rate: float | Sequence[float], depth: int) -> list[float]:
    rates = [float(rate)] * depth if isinstance(rate, (int, float)) else [float(r) for r in rate]
    if len(rates) != depth or not all(math.isfinite(r) and r >= 0.0 for r in rates):
        raise UserError(
            f"the learning rates of the {name} must be {depth} finite numbers of at least 0, "
            f"got {rates}"
        )
    return rates


_ZERO = torch.zeros((), dtype=torch.float64)


@dataclass(frozen=True)
class UnitStatistics:
    """Units of one layer, at one input, to leading order in 1/width.

    Parameters
    ----------
    K : Tensor ()
        Variance at infinite width.
    covariance : Tensor ()
        Of the squares of two units: V/n.
    correction : Tensor ()
        Of the mean square: G1/n.
    third : Tensor ()
        Third cumulant of two units: T/n.
    """

    K: Tensor
    covariance: Tensor = _ZERO
    correction: Tensor = _ZERO
    third: Tensor = _ZERO


@dataclass(frozen=True)
class FiniteWidth:
    r"""Leading 1/n statistics of a unit in each layer, for one input.

    Parameters
    ----------
    K : Tensor (depth,)
        Variance at infinite width.
    V : Tensor (depth,)
        Four-point vertex: :math:`E[z_i^2 z_j^2] - E[z_i^2] E[z_j^2] = V^{(l)}/n_{l-1}` for two
        units of layer l, which :math:`n_{l-1}` units feed.
    G1 : Tensor (depth,)
        :math:`E[z_i^2] = K + G_1/n_{l-1}`.
    width : Tensor (depth,)
        :math:`n_{l-1}`; infinite for the first layer, which is exactly Gaussian.
    """

    K: Tensor
    V: Tensor
    G1: Tensor
    width: Tensor

    @property
    def deviation(self) -> Tensor:
        """Deviation from a Gaussian V / (n K^2) (depth,): nu l/n at criticality."""
        return self.V / (self.width * self.K.square())

    @property
    def mean_square(self) -> Tensor:
        """E[z^2] (depth,), with its 1/n correction."""
        return self.K + self.G1 / self.width


@dataclass(frozen=True)
class TangentFluctuations:
    r"""Neural tangent kernel of one input and its leading fluctuations, each (depth,).

    For two units :math:`i \ne j` of a layer and :math:`\Delta H = H - E[H]`, with equal widths n,
    :math:`E[\Delta H_{ii} z_j^2] = D/n`, :math:`E[H_{ij} z_i z_j] = F/n`,
    :math:`E[\Delta H_{ii} \Delta H_{jj}] = A/n`, :math:`E[H_{ij}^2] = B/n`.
    """

    K: Tensor
    Theta: Tensor
    V: Tensor
    D: Tensor
    F: Tensor
    A: Tensor
    B: Tensor


@dataclass(frozen=True)
class FunctionDistribution:
    """Gaussian over the outputs of infinitely wide networks at new inputs.

    Parameters
    ----------
    mean : Tensor (p, outputs)
    covariance : Tensor (p, p)
        Of each output.
    """

    mean: Tensor
    covariance: Tensor


class SignalPropagation:
    r"""Recursions of an ensemble of random networks.

    Parameters
    ----------
    activation : str, Module, callable or Activation
        See `understudy.nn.gaussian_expectation.activation`.
    C_b, C_W : float
        Variance of a bias, and of a weight times its fan-in.
    gamma : float
        Residual coefficient: the layer adds gamma times its pre-activations.
    """

    def __init__(
        self,
        activation: str | nn.Module | Callable[[Tensor], Tensor] | Activation,
        C_b: float,
        C_W: float,
        gamma: float = 0.0,
    ) -> None:
        if not (0.0 <= C_b < math.inf and 0.0 < C_W < math.inf and 0.0 <= gamma < math.inf):
            raise UserError(
                "C_b and gamma must be finite and at least 0, C_W finite and above 0, "
                f"got {C_b}, {gamma} and {C_W}"
            )
        self.phi = describe(activation)
        self.C_b, self.C_W, self.gamma = float(C_b), float(C_W), float(gamma)

    @classmethod
    def critical(
        cls,
        activation: str | nn.Module | Callable[[Tensor], Tensor] | Activation,
        gamma: float = 0.0,
    ) -> SignalPropagation:
        """Return the recursions at criticality.

        Raises
        ------
        UserError
            If the activation has none.
        """
        phi = describe(activation)
        point = find_critical_point(phi, gamma).required()
        return cls(phi, point.C_b, point.C_W, gamma)

    def first_kernel(self, X: Tensor) -> Tensor:
        """Covariance (m, m) of a first-layer unit at inputs X (m, n_0)."""
        if X.ndim != 2 or not torch.isfinite(X).all():
            raise UserError(f"inputs must be a finite matrix (rows, features), got {X.shape}")
        X = X.to(torch.float64)
        return self.C_b + self.C_W * (X @ X.mT) / X.shape[1]

    def kernel(self, X: Tensor, depth: int) -> Tensor:
        """Covariances (depth, m, m) of the units of layers 1 to depth at inputs X (m, n_0)."""
        return self.neural_kernels(X, depth)[0]

    def ntk(self, X: Tensor, depth: int, rates: LearningRates | None = None) -> Tensor:
        """Neural tangent kernels (depth, m, m) of layers 1 to depth at inputs X (m, n_0)."""
        return self.neural_kernels(X, depth, rates)[1]

    def neural_kernels(
        self, X: Tensor, depth: int, rates: LearningRates | None = None
    ) -> tuple[Tensor, Tensor]:
        """Covariances and neural tangent kernels of every layer.

        Parameters
        ----------
        X : Tensor (m, n_0)
            Inputs.
        depth : int
            Layers; the last is the output.
        rates : LearningRates, optional
            1 for every weight and bias by default.

        Returns
        -------
        K, Theta : Tensor (depth, m, m), float64
        """
        lam_b, lam_W = (rates or LearningRates()).layers(_depth(depth))
        K = self.first_kernel(X)
        _require_positive(K.diagonal())
        X = X.to(torch.float64)
        Theta = lam_b[0] + lam_W[0] * (X @ X.mT) / X.shape[1]
        kernels, tangents = [K], [Theta]
        for rate_b, rate_W in zip(lam_b[1:], lam_W[1:], strict=True):
            square, slope = covariance_moments(self.phi, K)
            Theta = rate_b + rate_W * square + (self.C_W * slope + self.gamma**2) * Theta
            K = self.C_b + self.C_W * square + self.gamma**2 * K
            kernels.append(K)
            tangents.append(Theta)
        return torch.stack(kernels), torch.stack(tangents)

    def variances(self, K1: float | Tensor, depth: int) -> Tensor:
        """Variance of a unit in layers 1 to depth, (depth, *batch), from that of the first."""
        K = _require_positive(torch.as_tensor(K1, dtype=torch.float64))
        trajectory = [K]
        for _ in range(_depth(depth) - 1):
            K = self._step(moments(self.phi, K))
            trajectory.append(K)
        return torch.stack(trajectory)

    def susceptibilities(self, K: float | Tensor) -> Susceptibilities:
        """Growth of perturbations in a layer of unit variance K (*batch)."""
        return self._susceptibilities(moments(self.phi, _require_positive(torch.as_tensor(K))))

    def finite_width(self, K1: float, depth: int, width: int | Sequence[int]) -> FiniteWidth:
        """Vertex and corrected mean square of every layer.

        Parameters
        ----------
        K1 : float
            Variance of a first-layer unit.
        depth : int
            Layers, the output included.
        width : int or sequence of int
            Width of all hidden layers, or of each of the depth - 1.

        Warns
        -----
        PerturbationWarning
            If V / (n K^2) exceeds `PERTURBATIVE` in some layer.
        """
        widths = _widths(width, _depth(depth))
        now = UnitStatistics(_require_positive(torch.tensor(float(K1), dtype=torch.float64)))
        rows = [now]
        for n in widths:
            now = self.next_layer(now, n)
            rows.append(now)
        fed = torch.tensor([1, *widths], dtype=torch.float64)
        result = FiniteWidth(
            K=torch.stack([row.K for row in rows]),
            V=fed * torch.stack([row.covariance for row in rows]),
            G1=fed * torch.stack([row.correction for row in rows]),
            width=torch.tensor([math.inf, *map(float, widths)], dtype=torch.float64),
        )
        _warn_of_depth(float(result.deviation.max()))
        return result

    def next_layer(self, now: UnitStatistics, width: int) -> UnitStatistics:
        """Statistics of a unit that ``width`` units of the given statistics feed."""
        at = moments(self.phi, now.K)
        chi = self._susceptibilities(at).parallel
        odd = self.C_W * at.odd_first
        curved = at.square_curvature * now.covariance + at.odd_third * now.third
        passed = chi.square() * now.covariance + 2.0 * odd * chi * now.third
        return UnitStatistics(
            K=self._step(at),
            covariance=passed + self._source(at) / width,
            correction=chi * now.correction + 0.5 * self.C_W * curved,
            third=self.gamma * (odd * now.K / width + chi * now.third),
        )

    def vertex(self, K1: float, depth: int, width: int | Sequence[int]) -> Tensor:
        """Four-point vertex V (depth,); see `finite_width`."""
        return self.finite_width(K1, depth, width).V

    def ntk_fluctuations(
        self,
        K1: float,
        depth: int,
        rates: LearningRates | None = None,
        squared_input: float | None = None,
    ) -> TangentFluctuations:
        r"""Leading fluctuations of the neural tangent kernel of one input, at equal widths.

        All start at 0, and with the source :math:`s = C_W^2 q - C_W g \chi_\perp + 2 h
        \chi_\parallel V` and :math:`r = \lambda_W / C_W`,

        .. math::
            F' &= \chi_\parallel^2 F + C_W^2 q \Theta \\
            B' &= \chi_\perp^2 B + C_W^2 \langle\phi'^4\rangle \Theta^2 \\
            D' &= \chi_\perp \chi_\parallel D + r V' + s \Theta \\
            A' &= \chi_\perp^2 A + r^2 V' + 2 r s \Theta + 2 r \chi_\parallel \chi_\perp D
                  + 4 h \chi_\perp D \Theta + (C_W^2 \langle\phi'^4\rangle - \chi_\perp^2
                  + 4 h^2 V) \Theta^2 .

        Parameters
        ----------
        K1 : float
            Variance of a first-layer unit.
        depth : int
            Layers.
        rates : LearningRates, optional
            1 for every weight and bias by default.
        squared_input : float, optional
            Mean square of the input's entries; (K1 - C_b) / C_W by default.
        """
        if self.gamma:
            raise UserError("fluctuations of the NTK are for networks without residual connections")
        lam_b, lam_W = (rates or LearningRates()).layers(_depth(depth))
        if squared_input is None:
            squared_input = (K1 - self.C_b) / self.C_W
        if squared_input < 0.0:
            raise UserError(f"K1 = {K1} is less than the variance C_b = {self.C_b} of the biases")
        K = _require_positive(torch.tensor(float(K1), dtype=torch.float64))
        zero = torch.zeros_like(K)
        now = TangentFluctuations(
            K, zero + lam_b[0] + lam_W[0] * squared_input, zero, zero, zero, zero, zero
        )
        layers = [now]
        for rate_b, rate_W in zip(lam_b[1:], lam_W[1:], strict=True):
            now = self._fluctuate(now, rate_b, rate_W)
            layers.append(now)
        names = TangentFluctuations.__dataclass_fields__
        return TangentFluctuations(
            **{name: torch.stack([getattr(layer, name) for layer in layers]) for name in names}
        )

    def bayesian(
        self, X: Tensor, Y: Tensor, new: Tensor, depth: int, noise: float = 0.0
    ) -> FunctionDistribution:
        """Posterior of infinitely wide networks with ``depth`` layers: a Gaussian process.

        Parameters
        ----------
        X, Y, new : Tensor (m, n_0), (m, outputs), (p, n_0)
        depth : int
        noise : float
            Variance of the observations' noise.
        """
        m = len(X)
        K = self.kernel(torch.cat([X, new]), depth)[-1]
        weights = _solve(K[:m, :m] + noise * torch.eye(m, dtype=K.dtype), K[:m, m:])
        return FunctionDistribution(weights.mT @ Y.to(K), K[m:, m:] - K[m:, :m] @ weights)

    def gradient_descent(
        self,
        X: Tensor,
        Y: Tensor,
        new: Tensor,
        depth: int,
        rates: LearningRates | None = None,
    ) -> FunctionDistribution:
        r"""Infinitely wide networks after gradient descent on the square loss to its minimum.

        .. math:: z_* = z_*^{init} + \Theta_{*X} \Theta_{XX}^{-1} (Y - z_X^{init})

        over the Gaussian :math:`z^{init}` of covariance K.

        Parameters
        ----------
        X, Y, new : Tensor (m, n_0), (m, outputs), (p, n_0)
        depth : int
        rates : LearningRates, optional
        """
        m = len(X)
        kernels, tangents = self.neural_kernels(torch.cat([X, new]), depth, rates)
        K, Theta = kernels[-1], tangents[-1]
        weights = _solve(Theta[:m, :m], Theta[:m, m:])
        cross = weights.mT @ K[:m, m:]
        covariance = K[m:, m:] - cross - cross.mT + weights.mT @ K[:m, :m] @ weights
        return FunctionDistribution(weights.mT @ Y.to(K), covariance)

    def _step(self, at: Moments) -> Tensor:
        return self.C_b + self.C_W * at.square + self.gamma**2 * at.K

    def _susceptibilities(self, at: Moments) -> Susceptibilities:
        return Susceptibilities(
            parallel=self.C_W * at.square_slope + self.gamma**2,
            perpendicular=self.C_W * at.slope_square + self.gamma**2,
            h=0.5 * self.C_W * at.slope_square_slope,
        )

    def _source(self, at: Moments) -> Tensor:
        """What a layer adds to the vertex."""
        own = self.C_W**2 * (at.fourth - at.square.square())
        return own + 4.0 * self.gamma**2 * self.C_W * at.square_slope * at.K.square()

    def _fluctuate(
        self, now: TangentFluctuations, lam_b: float, lam_W: float
    ) -> TangentFluctuations:
        at = moments(self.phi, now.K)
        chi = self._susceptibilities(at)
        par, perp, h = chi.parallel, chi.perpendicular, chi.h
        Theta, r = now.Theta, lam_W / self.C_W
        q, slopes = self.C_W**2 * at.mixed, self.C_W**2 * at.slope_fourth
        V = par.square() * now.V + self._source(at)
        s = q - self.C_W * at.square * perp + 2.0 * h * par * now.V
        spread = slopes - perp.square() + 4.0 * h.square() * now.V
        across = (2.0 * r * par + 4.0 * h * Theta) * perp * now.D
        return replace(
            now,
            K=self._step(at),
            Theta=lam_b + lam_W * at.square + perp * Theta,
            V=V,
            D=perp * par * now.D + r * V + s * Theta,
            F=par.square() * now.F + q * Theta,
            A=perp.square() * now.A
            + r**2 * V
            + 2.0 * r * s * Theta
            + across
            + spread * Theta.square(),
            B=perp.square() * now.B + slopes * Theta.square(),
        )


def optimal_aspect_ratio(
    which: str | nn.Module | Callable[[Tensor], Tensor] | Activation | CriticalPoint,
    n_out: int,
    gamma: float = 0.0,
) -> float:
    r"""Depth over width that maximises the mutual information of the outputs.

    .. math:: I = \frac{m_1 m_2}{8} (\nu r)^2 - \frac{m_1 m_2 (20 + 3 n_L)}{48} (\nu r)^3, \quad
              n_L = m_1 + m_2, \qquad r^* = \frac{4}{(20 + 3 n_L)\, \nu}

    Parameters
    ----------
    which : str, Module, callable, Activation or CriticalPoint
        The activation, critically initialised.
    n_out : int
        Outputs :math:`n_L`.
    gamma : float in [0, 1)
        Residual coefficient; nearer 1 is less Gaussian per layer less, so deeper.

    Raises
    ------
    UserError
        If the activation has no criticality.
    """
    if n_out < 1:
        raise UserError(f"n_out must be at least 1, got {n_out}")
    point = which if isinstance(which, CriticalPoint) else find_critical_point(which, gamma)
    return 4.0 / ((20.0 + 3.0 * n_out) * point.required().nu)


def _depth(depth: int) -> int:
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise UserError(f"depth must be a whole number of at least 1, got {depth!r}")
    return depth


def _widths(width: int | Sequence[int], depth: int) -> list[int]:
    widths = [width] * (depth - 1) if isinstance(width, int) else list(width)
    if len(widths) != depth - 1 or any(n < 1 for n in widths):
        raise UserError(
            f"{depth} layers have {depth - 1} hidden widths of at least 1, got {widths}"
        )
    return widths


def _require_positive(K: Tensor) -> Tensor:
    K = K.to(torch.float64)
    if not (torch.isfinite(K).all() and (K > 0.0).all()):
        raise UserError("the variance of a unit must be positive: is an input zero, with C_b = 0?")
    return K


def _warn_of_depth(deviation: float) -> None:
    if deviation > PERTURBATIVE:
        warnings.warn(
            f"the deviation from a Gaussian reaches V/(n K^2) = {deviation:.2g}, above "
            f"{PERTURBATIVE}: leading order in depth/width is no longer accurate",
            PerturbationWarning,
            stacklevel=3,
        )


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve with a symmetric positive-definite matrix, jittered only if it must be."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        jitter = 1e-10 * matrix.diagonal().mean()
        factor = torch.linalg.cholesky(matrix + jitter * torch.eye(len(matrix), dtype=matrix.dtype))
    return torch.cholesky_solve(right, factor)
