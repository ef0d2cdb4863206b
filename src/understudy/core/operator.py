"""The contract of an operator: field to field, once or step by step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.field_metrics import reliable_horizon
from understudy.core.grid import Grid
from understudy.core.scaling import Scaling


class Operator(ABC):
    """Stands in for a solver: fields on a grid go in, fields come out.

    Attributes
    ----------
    grid : Grid
        The grid it was trained on.
    inputs, outputs : tuple of str
        Names of the fields.
    parameters : tuple of str
        Names of the numbers of the equation that it is told, perhaps none.
    """

    grid: Grid
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[str, ...]

    @abstractmethod
    def predict(self, u: Tensor, params: Tensor | None = None) -> Tensor:
        """Fields ``(B, C_out, *space)`` for fields ``(B, C_in, *space)``, parameters ``(B, P)``.

        Raises
        ------
        UserError
            If the channels, the grid or the parameters do not fit, or a value is not finite.
        """

    @property
    def field_units(self) -> Scaling:
        """Units in which the fields that go in are of size one; their own unless it has others."""
        ones = torch.ones(1, len(self.inputs), *[1] * len(self.grid.shape))
        return Scaling(torch.zeros_like(ones), ones)

    @property
    def parameter_units(self) -> Scaling:
        """Units in which the parameters (their logarithms, if it takes those) are of size one."""
        return Scaling(torch.zeros(1, len(self.parameters)), torch.ones(1, len(self.parameters)))

    def _checked_parameters(self, params: Tensor | None, runs: int) -> Tensor | None:
        """Parameters ``(B, P)``; one row is taken for all runs."""
        wanted = len(self.parameters)
        if not wanted:
            if params is not None and params.numel():
                raise UserError("this operator takes no parameters")
            return None
        if params is None:
            raise UserError(f"parameters are missing; needed are {', '.join(self.parameters)}")
        rows = params.reshape(1, -1) if params.ndim < 2 else params
        if rows.shape[1] != wanted or rows.shape[0] not in (1, runs):
            raise UserError(
                f"parameters must be of shape ({runs}, {wanted}) "
                f"({', '.join(self.parameters)}), found {tuple(params.shape)}"
            )
        if not bool(rows.isfinite().all()):
            raise UserError("parameters must be finite")
        return rows.expand(runs, wanted)

    def _checked_fields(self, u: Tensor, lead: tuple[int | None, ...], what: str) -> Tensor:
        """Refuse fields whose dimensions before space are not `lead`, or which are not finite."""
        dims = len(self.grid.shape)
        head = u.shape[: u.ndim - dims]
        fits = len(head) == len(lead) and all(
            want is None or want == have for want, have in zip(lead, head, strict=False)
        )
        if not fits:
            shape = ", ".join("B" if want is None else str(want) for want in lead)
            raise UserError(
                f"{what} must be of shape ({shape}, *space) with {dims} dimensions of space, "
                f"found {tuple(u.shape)}"
            )
        if not bool(u.isfinite().all()):
            raise UserError(f"{what} must be finite; a NaN or infinity was found")
        return u


class Stepper(Operator):
    """An operator that goes on in time: from the last fields to the next.

    A subclass writes :meth:`_advance`.

    Attributes
    ----------
    dt : float
        Time between two fields.
    history : int
        Fields that a step looks at.
    bundle : int
        Fields that a step gives.
    stochastic : bool
        Whether two rollouts from one start differ.
    """

    dt: float
    history: int = 1
    bundle: int = 1
    stochastic: ClassVar[bool] = False

    @abstractmethod
    def _advance(
        self, past: Tensor, params: Tensor | None, generators: list[torch.Generator]
    ) -> Tensor:
        """Next fields ``(S * B, bundle, C, *space)`` of past ones ``(S * B, history, ...)``.

        There is a generator for each of S samples, and parameters ``(S * B, P)``; sample s has
        the rows s B to (s + 1) B.
        """

    @torch.no_grad()
    def step(self, u: Tensor, params: Tensor | None = None, seed: int = 0) -> Tensor:
        """Next field ``(B, C, *space)``; the arguments are those of :meth:`rollout`."""
        return self.rollout(u, 1, params, seed=seed)[:, 0, 1]

    def predict(self, u: Tensor, params: Tensor | None = None) -> Tensor:  # noqa: D102
        return self.step(u, params)

    @torch.no_grad()
    def rollout(
        self,
        u0: Tensor,
        steps: int,
        params: Tensor | None = None,
        samples: int = 1,
        seed: int = 0,
    ) -> Tensor:
        """Trajectories from given fields, all runs and samples at once.

        Parameters
        ----------
        u0 : Tensor (B, C, *space) or (B, history, C, *space)
        steps : int
            Fields to predict.
        params : Tensor (B, P) or (P,), optional
        samples : int
            Rollouts from each start; more than one only of a stochastic operator. Sample s is the
            same whatever their number.
        seed : int

        Returns
        -------
        Tensor (B, samples, steps + 1, C, *space), float32
            The last given field, then the predicted ones.
        """
        past = self._start(u0)
        runs = len(past)
        if steps < 1 or samples < 1:
            raise UserError("steps and samples must be at least 1")
        if samples > 1 and not self.stochastic:
            raise UserError("this operator always gives the same rollout, so samples must be 1")
        known = self._checked_parameters(params, runs)
        device = self._device()
        generators = [torch.Generator(device).manual_seed(seed + 1009 * s) for s in range(samples)]
        past = past.to(device, torch.float32).repeat(samples, *[1] * (past.ndim - 1))
        if known is not None:
            known = known.to(device, torch.float32).repeat(samples, 1)
        parts = [past[:, -1:]]
        for _ in range(-(-steps // self.bundle)):
            ahead = self._advance(past, known, generators)
            parts.append(ahead)
            past = torch.cat([past, ahead], dim=1)[:, -self.history :]
        path = torch.cat(parts, dim=1)[:, : steps + 1].cpu()
        return path.unflatten(0, (samples, runs)).transpose(0, 1)

    def reliable_horizon(
        self,
        u0: Tensor,
        steps: int,
        params: Tensor | None = None,
        samples: int = 16,
        threshold: float = 0.8,
        seed: int = 0,
    ) -> Tensor:
        """Time ``(B,)`` until rollouts from one start disagree; steps dt where they never do.

        Raises
        ------
        UserError
            If the operator always gives the same rollout, so that nothing can be said.
        """
        if not self.stochastic:
            raise UserError(
                "this operator gives one rollout only, which does not say how far it can be "
                "believed; a PDE-Refiner or an ensemble does"
            )
        paths = self.rollout(u0, steps, params, samples, seed)[:, :, 1:]
        return reliable_horizon(paths, self.dt, threshold)

    def _start(self, u0: Tensor) -> Tensor:
        """Past fields ``(B, history, C, *space)``, checked."""
        if self.history == 1 and u0.ndim == len(self.grid.shape) + 2:
            u0 = u0.unsqueeze(1)
        return self._checked_fields(u0, (None, self.history, len(self.inputs)), "first fields")

    def _device(self) -> torch.device:
        """Where :meth:`_advance` computes."""
        return torch.device("cpu")
