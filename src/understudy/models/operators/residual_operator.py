"""Operators of Darcy's equation that are trained by residuals, on coefficients alone.

:class:`WeakFormOperator` is the base of those with weak residuals; :class:`PIMultiONet` and
:class:`PIDeepONet` see the coefficient's cells in the place of a latent vector, have no decoder of
it, and so cannot be inverted. :class:`DifferenceDeepONet` is the physics-informed DeepONet of the
comparison in arXiv 2502.06250.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.loop import Outcome, shuffled_batches
from understudy.core.operator import Operator
from understudy.models.operators.generative_fields import (
    DecodedFields,
    PointwiseFields,
    SensorFields,
    WeakFields,
)
from understudy.models.operators.media import Medium, TwoPhase, medium_of
from understudy.models.operators.training import (
    Listener,
    Stored,
    Training,
    read_operator,
    save_operator,
)
from understudy.models.operators.weak_residual import WeakResidual

CHUNK = 256
"""Fields that go through a network at once."""

Network = TypeVar("Network", bound=DecodedFields)


class ResidualOperator(Operator, Generic[Network]):
    """From coefficients to solutions of Darcy's equation on the unit square.

    Parameters
    ----------
    network : DecodedFields
    residual : WeakResidual, optional
        The equation and its residuals.
    medium : Medium, optional
        Of two phases, 5 and 10, unless given.
    """

    model: ClassVar[str]
    inputs = ("coefficient",)
    outputs = ("pressure",)
    parameters = ()

    def __init__(
        self,
        network: Network,
        residual: WeakResidual | None = None,
        medium: Medium | None = None,
    ) -> None:
        self._begin(network, residual or WeakResidual(), medium or TwoPhase())

    def _begin(self, network: Network, residual: WeakResidual, medium: Medium) -> None:
        self.network: Network = network
        self.residual, self.medium = residual, medium
        self.grid = Grid.of(*network.shape, placement="cells")
        self.outcome: Outcome | None = None

    def fit(
        self, a: Tensor, training: Training | None = None, listener: Listener | None = None
    ) -> Self:
        """Train on coefficients without solutions.

        Parameters
        ----------
        a : Tensor (N, 1, n, n)
            In cells of the unit square, first axis x.
        training : Training, optional
        listener : callable (Event) -> None, optional
        """
        plan = training or Training()
        self.network.to(plan.device)
        self.medium = self.medium.fitted(a)
        fields = self._scaled(a)
        batches = shuffled_batches(len(fields), plan.batch_size, plan.seed)

        def loss(step: int) -> Tensor:
            generator = torch.Generator().manual_seed(1_000_003 * plan.seed + step)
            return self._loss(fields[batches(step).to(fields.device)], generator)

        self.outcome = plan.run(self.network, loss, None, listener)
        self._settle(fields, plan.seed)
        return self

    @abstractmethod
    def _loss(self, scaled: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of a batch of scaled coefficients ``(B, 1, n, n)``."""

    def _settle(self, scaled: Tensor, seed: int) -> None:
        """What a subclass finds out after training."""

    def _scaled(self, a: Tensor) -> Tensor:
        """Coefficients in units of the network, on its device."""
        self._checked_fields(a, (None, 1), "coefficients")
        if tuple(a.shape[2:]) != self.grid.shape:
            raise UserError(
                f"coefficients have {tuple(a.shape[2:])} cells, the operator {self.grid.shape}"
            )
        return self.medium.scaled(a).to(next(self.network.parameters()))

    @torch.no_grad()
    def predict(self, u: Tensor, params: Tensor | None = None) -> Tensor:
        """Solutions ``(B, 1, n, n)`` of coefficients ``(B, 1, n, n)``, float32."""
        self._checked_parameters(params, len(u))
        parts = [self.network(part) for part in self._scaled(u).split(CHUNK)]
        return torch.cat(parts).float().cpu()

    @torch.no_grad()
    def solution(self, a: Tensor, x: Tensor) -> Tensor:
        """Solutions ``(B, N)`` of coefficients ``(B, 1, n, n)`` at points ``(N, 2)`` anywhere."""
        scaled = self._scaled(a)
        points = inside(x, "points").to(scaled)
        return self.network.solution(points, self.network.latent(scaled)).cpu()

    def _settings(self) -> dict[str, Any]:
        return {"residual": asdict(self.residual), "medium": self.medium.describe()}

    def _tensors(self) -> dict[str, Tensor]:
        return {}

    def save(self, path: str | Path) -> Path:
        """Write to a ``.us`` file, from which :meth:`load` restores it."""
        return save_operator(
            path, self.model, self.network, self.grid, self._settings(), self._tensors()
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from a ``.us`` file."""
        return cls.restore(read_operator(path, cls.model))

    @classmethod
    def restore(cls, stored: Stored) -> Self:
        """Make one of what was stored."""
        new = cls.__new__(cls)
        residual = WeakResidual(**stored.settings["residual"])
        medium = medium_of(stored.settings["medium"])
        new._begin(cast(Network, stored.network), residual, medium)
        new._restore(stored.settings, stored.tensors)
        return new

    def _restore(self, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`_settings` and :meth:`_tensors` gave."""


def inside(x: Tensor, what: str) -> Tensor:
    """Points ``(N, 2)`` of the unit square, or an error that names the first outside."""
    if x.ndim != 2 or x.shape[1] != 2 or not len(x):
        raise UserError(f"{what} must be of shape (N, 2), found {tuple(x.shape)}")
    outside = ~((x >= 0.0) & (x <= 1.0)).all(1)
    if bool(outside.any()):
        i = int(outside.nonzero()[0])
        at = ", ".join(f"{value:g}" for value in x[i].tolist())
        raise UserError(f"{what} must lie in the unit square, but number {i + 1} is at ({at})")
    return x


# -- weak residuals --------------------------------------------------------------------------------

Weak = TypeVar("Weak", bound=WeakFields)


class WeakFormOperator(ResidualOperator[Weak]):
    """Trained by weak residuals on discs, with a flux of its own where the medium needs one."""

    def _loss(self, scaled: Tensor, generator: torch.Generator) -> Tensor:
        return self._pde_loss(scaled, self.network.latent(scaled), generator)

    def _pde_loss(self, scaled: Tensor, beta: Tensor, generator: torch.Generator) -> Tensor:
        flux, k_gradient = self._fluxes(scaled, beta, self.residual.draw(generator))
        if flux is None:
            return self.residual.primal_loss(k_gradient)
        return self.residual.loss(flux, k_gradient)

    def _fluxes(self, scaled: Tensor, beta: Tensor, x: Tensor) -> tuple[Tensor | None, Tensor]:
        r"""Fluxes s, if there are, and :math:`K \nabla u` ``(2, B, N)`` at points ``(N, 2)``."""
        K, near = self.medium.at(scaled, x), x.to(scaled)
        flux = self.network.fluxes(near, beta) if self.medium.mixed else None
        return flux, K * self.network.gradient(near, beta)

    def _squares(self, scaled: Tensor, beta: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Squared residuals ``(B, n_centres)`` of each kind: of the flux, of the balance."""
        return self.residual.squares(*self._fluxes(scaled, beta, x))


class PIMultiONet(WeakFormOperator[SensorFields]):
    """MultiONets of the coefficient's cells, trained by weak residuals.

    Parameters
    ----------
    shape, hidden, activation
        As of :class:`~understudy.models.operators.generative_fields.SensorFields`.
    residual, medium
        As of :class:`ResidualOperator`.
    """

    model = "pi-multionet"
    last_only: ClassVar[bool] = False

    def __init__(
        self,
        shape: Sequence[int],
        hidden: Sequence[int] = (80,) * 6,
        activation: str = "tanh-sin",
        residual: WeakResidual | None = None,
        medium: Medium | None = None,
    ) -> None:
        medium = medium or TwoPhase()
        network = SensorFields(shape, hidden, activation, self.last_only, medium.mixed)
        super().__init__(network, residual, medium)


class PIDeepONet(PIMultiONet):
    """DeepONets of the coefficient's cells, by weak residuals; parameters as `PIMultiONet`."""

    model = "pi-deeponet"
    last_only = True


# -- differences -----------------------------------------------------------------------------------


class DifferenceDeepONet(ResidualOperator[PointwiseFields]):
    r"""DeepONet of the coefficient, trained by finite differences of its own cells.

    As the comparison of arXiv 2502.06250 has it: central differences over two cells, twice,

    .. math:: r = -\delta_x (K\, \delta_x u) - \delta_y (K\, \delta_y u) - f

    in all cells but two layers at the boundary, and as loss the mean over fields of its norm.

    Parameters
    ----------
    shape, width, depth
        As of :class:`~understudy.models.operators.generative_fields.PointwiseFields`.
    source : float
        f.
    medium : Medium, optional
    """

    model = "difference-deeponet"

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 128,
        depth: int = 4,
        source: float = 10.0,
        medium: Medium | None = None,
    ) -> None:
        super().__init__(PointwiseFields(shape, width, depth), WeakResidual(source), medium)

    def _loss(self, scaled: Tensor, generator: torch.Generator) -> Tensor:
        K = self.medium.at(scaled, self.network.points.double().cpu())
        return self._differences(K.unflatten(1, self.network.shape), self.network(scaled)[:, 0])

    def _differences(self, K: Tensor, u: Tensor) -> Tensor:
        """Loss of solutions ``(B, n, n)`` of coefficients ``(B, n, n)``."""
        inner = K[:, 1:-1, 1:-1]
        u_x, u_y = self._slopes(u)
        left = self._slopes(inner * u_x)[0] + self._slopes(inner * u_y)[1]
        return (left + self.residual.source).flatten(1).norm(dim=1).mean()

    def _slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Central differences along both axes ``(B, n - 2, n - 2)``."""
        h, k = self.grid.spacing
        along = (u[:, 2:, 1:-1] - u[:, :-2, 1:-1]) / (2.0 * h)
        return along, (u[:, 1:-1, 2:] - u[:, 1:-1, :-2]) / (2.0 * k)
