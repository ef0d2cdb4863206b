r"""Images from linear measurements, with a proximal operator in the place of a prior.

Of measurements :math:`y = A x + \text{noise}`, each scheme alternates a step towards the data with
the operator f:

Proximal gradient descent, :math:`0 < \eta < 1/|A|^2`:

.. math:: x \leftarrow f\big(x - \eta A^\top (A x - y)\big)

Alternating directions (ADMM), from :math:`z = x_0, u = 0`:

.. math::

   x \leftarrow \arg\min_x s|y - Ax|^2 + \tfrac\rho2 |z - u - x|^2, \qquad
   u \leftarrow u + x - z, \qquad z \leftarrow f(x + u)

Half-quadratic splitting is the same without u. With f the proximal operator of R, the first
is a descent on :math:`\tfrac12|y - Ax|^2 + R(x)/\eta`: every step lowers it by at least
:math:`(1/2\eta - |A|^2/2)\,|x_{k+1} - x_k|^2`, so that steps tend to zero (2310.14344, theorem on
convergence). R is known at each iterate, which is an f of something, so this is watched. The second
has a stationary point of :math:`s|y - Ax|^2 + \rho R` as fixed point; its order is that of the
paper's code. An f that is no proximal operator need not converge at all.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.inverse.conjugate_gradients import conjugate_gradients
from understudy.models.inverse.imaging_operators import LinearOperator

_BELOW_BOUND = 0.95
"""Default step over its bound."""

_ROUNDING = 1e-5
"""Of objectives, which are differences of larger numbers in float32."""

_DIVERGED = 1e4
"""Norm of an iterate over that of the start at which it is given up."""


Prox = Callable[[Tensor], Tensor]
"""Images ``(B, *shape)`` to images; one with ``with_prior`` also says what R is there."""


@dataclass(frozen=True)
class Moment:
    """What a listener is told after every iteration.

    Parameters
    ----------
    iteration, of : int
    residual : Tensor (B,)
        :math:`|x_{k+1} - x_k| / |x_{k+1}|`.
    misfit : Tensor (B,)
        :math:`|A x - y| / |y|`.
    x : Tensor (B, *shape)
    """

    iteration: int
    of: int
    residual: Tensor
    misfit: Tensor
    x: Tensor


Listener = Callable[[Moment], None]

Interrupt = Literal["raise", "return"]
"""What Ctrl-C does: end the program as anywhere, or end the iteration and keep what is done."""


@dataclass(frozen=True)
class Splitting:
    r"""Settings of the schemes that split the objective, ADMM and half-quadratic splitting.

    Parameters
    ----------
    rho : float, positive
        Of the augmented Lagrangian. It enters the step towards the data only.
    scale : float, positive
        s, the weight of the data. With noise of deviation :math:`\tau` and a network trained at
        :math:`\sigma`, the density of a posterior is meant by
        :math:`s = \rho\sigma^2 / 2\tau^2`, see :func:`data_scale`.
    iterations : int
        At most.
    tolerance : float
        Of the residual at which an image is done; all stop when all are.
    """

    rho: float = 0.1
    scale: float = 0.5
    iterations: int = 20
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        _positive(self.rho, "rho")
        _positive(self.scale, "the weight of the data")
        _at_least_one(self.iterations)


@dataclass(frozen=True)
class Reconstruction:
    r"""Images, and how they were come by.

    Parameters
    ----------
    x : Tensor (B, *shape)
        Those that diverged are as they were before.
    residuals, misfits : Tensor (iterations, B)
        See :class:`Moment`.
    objectives : Tensor (iterations, B) or None
        :math:`\tfrac12|y - Ax|^2 + R(x)/\eta`, of proximal gradient descent with a learned
        proximal network.
    converged : Tensor (B,) of bool
        Whether the last residual was within the tolerance.
    diverged : Tensor (B,) of bool
    interrupted : bool
        Whether Ctrl-C ended it.
    """

    x: Tensor
    residuals: Tensor
    misfits: Tensor
    objectives: Tensor | None
    converged: Tensor
    diverged: Tensor
    interrupted: bool = False

    @property
    def iterations(self) -> int:
        """How many were made."""
        return len(self.residuals)

    @property
    def rises(self) -> Tensor | None:
        """Which iterations raised the objective by more than rounding, (iterations - 1, B)."""
        if self.objectives is None:
            return None
        room = self.objectives[1:].abs() + 0.5 * self.x.flatten(1).square().sum(1)
        return self.objectives.diff(dim=0) > _ROUNDING * room


def pnp_pgd(
    y: Tensor,
    operator: LinearOperator,
    prox: Prox,
    *,
    step: float | None = None,
    iterations: int = 100,
    tolerance: float = 1e-4,
    x0: Tensor | None = None,
    listener: Listener | None = None,
    interrupt: Interrupt = "raise",
) -> Reconstruction:
    r"""Reconstruct by proximal gradient descent.

    Parameters
    ----------
    y : Tensor (B, *measurement_shape)
    operator : LinearOperator
    prox : callable (B, *image_shape) -> (B, *image_shape)
    step : float, positive, optional
        :math:`\eta`; 0.95 of the bound by default. The larger, the less weight has the prior.
    iterations, tolerance
        See :class:`Splitting`.
    x0 : Tensor (B, *image_shape), optional
        Start; that of the operator by default.
    listener : callable (Moment) -> None, optional
    interrupt : {"raise", "return"}
        What Ctrl-C does; before the first iteration is done there is nothing to return.

    Warns
    -----
    UserWarning
        If the step is not below :math:`1/|A|^2`.
    """
    _at_least_one(iterations)
    y, x = _start(y, operator, x0)
    bound = 1.0 / max(operator.norm() ** 2, 1e-30)
    step = _BELOW_BOUND * bound if step is None else _positive(step, "the step")
    if step >= bound:
        warnings.warn(
            f"the step {step:g} is not below {bound:g}, one over the square of the operator's "
            "norm: convergence is not certain",
            stacklevel=2,
        )
    with_prior = getattr(prox, "with_prior", None)
    values: list[Tensor] = []
    prior: Tensor | None = None

    def update(x: Tensor) -> Tensor:
        nonlocal prior
        point = x - step * operator.adjoint(operator.apply(x) - y)
        if with_prior is None:
            return prox(point)
        new, prior = with_prior(point)
        return torch.as_tensor(new)

    def watch(x: Tensor) -> None:
        if prior is not None:
            data = 0.5 * (operator.apply(x) - y).flatten(1).square().sum(1)
            values.append(data + prior / step)

    found = _iterate(y, operator, x, update, iterations, tolerance, listener, interrupt, watch)
    return _with_objectives(found, values)


def pnp_admm(
    y: Tensor,
    operator: LinearOperator,
    prox: Prox,
    settings: Splitting | None = None,
    *,
    x0: Tensor | None = None,
    listener: Listener | None = None,
    interrupt: Interrupt = "raise",
) -> Reconstruction:
    """Reconstruct by alternating directions.

    Parameters
    ----------
    y, operator, prox, x0, listener, interrupt
        See :func:`pnp_pgd`.
    settings : Splitting, optional
    """
    s = settings or Splitting()
    y, x = _start(y, operator, x0)
    solve = _towards_data(y, operator, s)
    u = torch.zeros_like(x)
    inner = x

    def update(z: Tensor) -> Tensor:
        nonlocal u, inner
        inner = solve(z - u, inner)
        u = u + inner - z
        return prox(inner + u)

    return _iterate(y, operator, x, update, s.iterations, s.tolerance, listener, interrupt)


def pnp_hqs(
    y: Tensor,
    operator: LinearOperator,
    prox: Prox,
    settings: Splitting | None = None,
    *,
    x0: Tensor | None = None,
    listener: Listener | None = None,
    interrupt: Interrupt = "raise",
) -> Reconstruction:
    """Reconstruct by half-quadratic splitting; the parameters are those of :func:`pnp_admm`."""
    s = settings or Splitting()
    y, x = _start(y, operator, x0)
    solve = _towards_data(y, operator, s)

    def update(z: Tensor) -> Tensor:
        return prox(solve(z, z))

    return _iterate(y, operator, x, update, s.iterations, s.tolerance, listener, interrupt)


SPLITTINGS: dict[str, Callable[..., Reconstruction]] = {"admm": pnp_admm, "hqs": pnp_hqs}
"""Schemes that take a :class:`Splitting`."""

SCHEMES = ("pgd", *SPLITTINGS)
"""Names of all schemes."""


def data_scale(rho: float, sigma: float, noise: float) -> float:
    r"""Weight of the data for noise of known deviation, :math:`\rho\sigma^2 / 2\tau^2`.

    With it a fixed point of ADMM is one of :math:`|y - Ax|^2/2\tau^2 + R(x)/\sigma^2`, and
    :math:`R/\sigma^2` stands for minus the log of the prior density.

    Parameters
    ----------
    rho, sigma, noise : float, positive
        Of ADMM, of the network, and of the measurement.
    """
    for name, value in (("rho", rho), ("sigma", sigma), ("the noise", noise)):
        _positive(value, name)
    return rho * sigma**2 / (2.0 * noise**2)


def _start(y: Tensor, operator: LinearOperator, x0: Tensor | None) -> tuple[Tensor, Tensor]:
    y = operator.checked_measurement(y)
    operator.check_adjoint()
    x = operator.start(y) if x0 is None else x0
    if tuple(x.shape) != (len(y), *operator.image_shape):
        raise UserError(f"the start has the shape {tuple(x.shape)}, images {operator.image_shape}")
    return y, x.clone()


def _towards_data(
    y: Tensor, operator: LinearOperator, settings: Splitting
) -> Callable[[Tensor, Tensor], Tensor]:
    """Minimiser of the data's and the quadratic term, by conjugate gradients from a start."""
    rho, scale = settings.rho, settings.scale
    right = 2.0 * scale * operator.adjoint(y)

    def solve(near: Tensor, start: Tensor) -> Tensor:
        return conjugate_gradients(
            lambda x: 2.0 * scale * operator.normal(x) + rho * x, right + rho * near, start
        )

    return solve


@torch.no_grad()
def _iterate(
    y: Tensor,
    operator: LinearOperator,
    x: Tensor,
    update: Callable[[Tensor], Tensor],
    iterations: int,
    tolerance: float,
    listener: Listener | None,
    interrupt: Interrupt,
    watch: Callable[[Tensor], Any] = lambda x: None,
) -> Reconstruction:
    """Repeat the update until all images are done, and keep count of how it goes."""
    residuals: list[Tensor] = []
    misfits: list[Tensor] = []
    size = _norm(y).clamp_min(1e-30)
    limit = _DIVERGED * _norm(x).clamp_min(1.0)
    converged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    diverged = torch.zeros_like(converged)
    interrupted = False
    try:
        for k in range(iterations):
            new = update(x)
            diverged = diverged | ~(_norm(new) <= limit)
            new = torch.where(_like(diverged, x), x, new)
            misfits.append(_norm(operator.apply(new) - y) / size)
            residuals.append(_norm(new - x) / _norm(new).clamp_min(1e-30))
            x, converged = new, (residuals[-1] <= tolerance) & ~diverged
            watch(x)
            if listener is not None:
                listener(Moment(k + 1, iterations, residuals[-1], misfits[-1], x))
            if bool((converged | diverged).all()):
                break
    except KeyboardInterrupt:
        if interrupt == "raise" or not residuals:
            raise
        interrupted = True
    done = len(residuals)
    return Reconstruction(
        *(x, torch.stack(residuals), torch.stack(misfits[:done]), None),
        *(converged, diverged, interrupted),
    )


def _with_objectives(found: Reconstruction, values: list[Tensor]) -> Reconstruction:
    return replace(found, objectives=torch.stack(values)) if values else found


def _at_least_one(iterations: int) -> None:
    if iterations < 1:
        raise UserError(f"at least 1 iteration is needed, found {iterations}")


def _positive(value: float, what: str) -> float:
    if not 0.0 < value < math.inf:
        raise UserError(f"{what} must be positive, found {value}")
    return value


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)


def _like(a: Tensor, x: Tensor) -> Tensor:
    return a.reshape(-1, *[1] * (x.ndim - 1))
