r"""Learned proximal networks (Fang, Buchanan & Sulam 2024, 2310.14344).

The gradient :math:`f = \nabla\psi` of a convex, smooth :math:`\psi` is the proximal operator
of some function R, convex or not (Gribonval & Nikolova 2020, 1807.04014):

.. math:: f(y) \in \arg\min_x \tfrac12 |x - y|^2 + R(x)

Here :math:`\psi` is an input-convex network, so that f is exactly a proximal operator whatever its
weights are. R is known where f has reached it: with :math:`x = f(y)`,

.. math:: R(x) = \langle y, x\rangle - \tfrac12 |x|^2 - \psi(y), \qquad \nabla R(x) = y - x

up to a constant, and y is found from x by minimising the convex function
:math:`\psi(y) - \langle x, y\rangle`. If :math:`\psi` is strongly convex, every x has one such y.

Trained by :mod:`~understudy.models.inverse.proximal_matching` on data with density p and noise
:math:`\sigma`, R approaches :math:`-\sigma^2 \log p`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from understudy.core import artifact
from understudy.core.errors import UserError
from understudy.models.inverse.conjugate_gradients import conjugate_gradients
from understudy.models.inverse.icnn import ConvexNetwork, build

KIND = "proximal-network"

Method = Literal["newton", "cg"]

_PART = 64  # samples that go through a network together
_HALVINGS = 20
_OVERSHOOT = 0.1


@dataclass(frozen=True)
class Inversion:
    r"""Points that a network maps to given ones.

    Parameters
    ----------
    y : Tensor (B, *shape)
    residual : Tensor (B,)
        :math:`|f(y) - x|` over :math:`\max(|x|, 1)`; large where x is not in the range of f.
    iterations : int
    """

    y: Tensor
    residual: Tensor
    iterations: int


@dataclass(frozen=True)
class PriorValue:
    """Value of the learnt prior, up to a constant, and how far the inversion was from exact.

    Parameters
    ----------
    value : Tensor (B,)
    residual : Tensor (B,)
        See :class:`Inversion`. A value with a large residual is worth nothing.
    """

    value: Tensor
    residual: Tensor


class LearnedProximalNetwork(nn.Module):
    r"""Gradient of an input-convex network: an exact proximal operator, and its prior.

    Parameters
    ----------
    network : ConvexNetwork
        :math:`\psi`.
    sigma : float, positive
        Deviation of the noise that it is, or is to be, trained with.
    """

    def __init__(self, network: ConvexNetwork, sigma: float) -> None:
        super().__init__()
        if not 0.0 < sigma < math.inf:
            raise UserError(
                f"sigma, the noise a proximal network is trained with, must be positive, "
                f"found {sigma}"
            )
        self.network = network
        self.sigma = float(sigma)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return self.network.shape

    def checked(self, x: Tensor, what: str = "the input") -> Tensor:
        """Samples in the type of the weights, or a UserError that says what is wrong."""
        if tuple(x.shape[1:]) != self.shape or x.ndim != len(self.shape) + 1:
            raise UserError(
                f"{what} has the shape {tuple(x.shape)}; the network takes "
                f"(B, {', '.join(map(str, self.shape))})"
            )
        if not bool(torch.isfinite(x).all()):
            raise UserError(f"{what} has values that are not finite numbers")
        return x.to(next(self.parameters()))

    def potential(self, y: Tensor) -> Tensor:
        r""":math:`\psi`, ``(B,)``, of ``(B, *shape)``."""
        return torch.as_tensor(self.network(y))

    def forward(self, y: Tensor) -> Tensor:
        """Proximal operator ``(B, *shape)`` of ``(B, *shape)``, also under ``no_grad``."""
        return self._potential_and_prox(y)[1]

    def _potential_and_prox(self, y: Tensor) -> tuple[Tensor, Tensor]:
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            at = y if y.requires_grad and keep else y.detach().requires_grad_()
            value = self.potential(at)
            (gradient,) = torch.autograd.grad(value.sum(), at, create_graph=keep)
        return (value, gradient) if keep else (value.detach(), gradient)

    @torch.no_grad()
    def in_parts(self, y: Tensor) -> Tensor:
        """Proximal operator without gradient, of few samples at a time."""
        return torch.cat([self(part) for part in y.split(_PART)])

    @torch.no_grad()
    def with_prior(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Proximal operator at y and the prior ``(B,)`` there, without inversion."""
        psi, x = self._potential_and_prox(y)
        return x, _dot(y, x) - 0.5 * _dot(x, x) - psi

    # -- inversion ------------------------------------------------------------------------------

    def invert(
        self,
        x: Tensor,
        method: Method = "newton",
        *,
        tolerance: float = 1e-5,
        iterations: int | None = None,
    ) -> Inversion:
        r"""Find y with f(y) = x by minimising :math:`\psi(y) - \langle x, y\rangle` from y = x.

        Parameters
        ----------
        x : Tensor (B, *shape)
        method : {"newton", "cg"}
            Newton steps, each sample with a length of its own, that conjugate gradients solve for;
            or the nonlinear conjugate gradients of SciPy, on 64 samples at once (in the paper on
            one).
        tolerance : float
            Of the residual.
        iterations : int, optional
            At most; 50 Newton steps or 1000 of the other.

        Returns
        -------
        Inversion
        """
        x = self.checked(x.detach(), "the point to invert")
        if method not in ("newton", "cg"):
            raise UserError(f"a network is inverted by 'newton' or 'cg', not {method!r}")
        by, most = (self._newton, 50) if method == "newton" else (self._cg, 1000)
        most = most if iterations is None else iterations
        parts = [by(part, tolerance, most) for part in x.split(_PART)]
        y = torch.cat([part for part, _ in parts])
        residual = _norm(self.in_parts(y) - x) / _norm(x).clamp_min(1.0)
        return Inversion(y, residual, max(count for _, count in parts))

    def _newton(self, x: Tensor, tolerance: float, iterations: int) -> tuple[Tensor, int]:
        y, enough = x.clone(), tolerance * _norm(x).clamp_min(1.0)
        for k in range(iterations):
            with torch.enable_grad():
                at = y.detach().requires_grad_()
                image = self(at)
            g = image.detach() - x
            going = _norm(g) > enough
            if not bool(going.any()):
                return y, k
            step = conjugate_gradients(_hessian(image, at), -g, tolerance=0.05, iterations=60)
            step = torch.where(torch.isfinite(step), step, -g)
            y = y + _like(self._length(x, y, step, _dot(g, step)) * going, step) * step
        return y, iterations

    def _length(self, x: Tensor, y: Tensor, step: Tensor, slope: Tensor) -> Tensor:
        """First of 1, 1/2, 1/4, ... after which the function does not rise steeply along a step."""
        length = torch.ones_like(slope)
        for _ in range(_HALVINGS):
            after = self.in_parts(y + _like(length, step) * step) - x
            beyond = _dot(after, step) > _OVERSHOOT * slope.abs()
            if not bool(beyond.any()):
                break
            length = torch.where(beyond, 0.5 * length, length)
        return length

    def _cg(self, x: Tensor, tolerance: float, iterations: int) -> tuple[Tensor, int]:
        from scipy.optimize import minimize

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            y = torch.as_tensor(flat).reshape(x.shape).to(x)
            with torch.no_grad():
                psi, image = self._potential_and_prox(y)
            value = float((psi - _dot(x, y)).double().sum())
            return value, (image - x).double().flatten().cpu().numpy()

        found = minimize(
            objective,
            x.double().flatten().cpu().numpy(),
            jac=True,
            method="CG",
            options={"gtol": tolerance, "norm": 2, "maxiter": iterations},
        )
        return torch.as_tensor(found.x).reshape(x.shape).to(x), int(found.nit)

    # -- prior ----------------------------------------------------------------------------------

    def prior(self, x: Tensor, method: Method = "newton", **options: Any) -> PriorValue:
        """Learnt prior R, ``(B,)``, at ``(B, *shape)``, up to a constant.

        Parameters
        ----------
        x : Tensor (B, *shape)
        method, **options
            See :meth:`invert`.
        """
        found = self.invert(x, method, **options)
        x = self.checked(x.detach())
        with torch.no_grad():
            psi = torch.cat([self.potential(part) for part in found.y.split(_PART)])
        return PriorValue(_dot(found.y, x) - 0.5 * _dot(x, x) - psi, found.residual)

    def log_prior(self, x: Tensor) -> Tensor:
        r"""Log density :math:`-R(x) / \sigma^2`, ``(B,)``, up to a constant, with its gradient.

        Parameters
        ----------
        x : Tensor (B, *shape)
            May carry a gradient; that of R is y - x, for which nothing is differentiated twice.
        """
        value: Tensor = _Prior.apply(x, self)
        return -value / self.sigma**2

    # -- files ----------------------------------------------------------------------------------

    def save(self, path: str | Path, facts: dict[str, Any] | None = None) -> Path:
        """Write to a ``.us`` file: JSON and tensors, no code; `facts` is JSON of the caller's."""
        manifest = {
            **{"kind": KIND, "sigma": self.sigma},
            **{"network": self.network.describe(), "facts": facts or {}},
        }
        return artifact.write(path, manifest, self.network.state_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        UserError
            If the file holds something else, or parts that do not fit.
        """
        stored = artifact.read(path)
        found = stored.manifest.get("kind")
        if found != KIND:
            raise UserError(f"{path} holds a {found!r}, not a {KIND}")
        try:
            network = build(stored.manifest["network"])
            sigma = float(stored.manifest["sigma"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{path} is damaged: {error}") from error
        try:
            network.load_state_dict(stored.tensors)
        except RuntimeError as error:
            raise UserError(f"{path} is damaged: its weights do not fit its network") from error
        if any(bool((weight < 0.0).any()) for weight in network.convex_weights()):
            raise UserError(f"{path} is damaged: with its weights the network is not convex")
        return cls(network, sigma).eval()


class _Prior(torch.autograd.Function):
    """R(x) by inversion, with the gradient y - x."""

    @staticmethod
    def forward(context: Any, x: Tensor, lpn: LearnedProximalNetwork) -> Tensor:
        found = lpn.invert(x)
        own = lpn.checked(x)
        value = _dot(found.y, own) - 0.5 * _dot(own, own) - lpn.potential(found.y)
        context.save_for_backward((found.y - own).to(x))
        return value.to(x)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (difference,) = context.saved_tensors
        return _like(gradients[0], difference) * difference, None


def _hessian(image: Tensor, at: Tensor) -> Callable[[Tensor], Tensor]:
    """Products with the derivative of f, which is symmetric, at points that f was evaluated at."""

    def product(v: Tensor) -> Tensor:
        (out,) = torch.autograd.grad(image, at, v, retain_graph=True)
        return out

    return product


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _norm(a: Tensor) -> Tensor:
    return a.flatten(1).norm(dim=1)


def _like(a: Tensor, b: Tensor) -> Tensor:
    return a.reshape(-1, *[1] * (b.ndim - 1))
