"""Operators of steady problems: a coefficient or a source goes in, the solution comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.field_metrics import relative_l2
from understudy.core.grid import Grid
from understudy.core.loop import Outcome, shuffled_batches
from understudy.core.operator import Operator
from understudy.core.scaling import Scaling
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.training import (
    Listener,
    Stored,
    Training,
    read_operator,
    save_operator,
)

FieldScaling = Literal["global", "pointwise", "none"]


def mean_relative_l2(predicted: Tensor, true: Tensor) -> Tensor:
    """Mean over fields of their relative error, see :func:`core.field_metrics.relative_l2`."""
    return relative_l2(predicted, true).mean()


class FieldMap(Operator):
    """A network from given fields to solutions.

    Parameters
    ----------
    network : FieldNetwork
        From C_in to C_out channels.
    input_scaling, output_scaling : {"global", "pointwise", "none"}
        Whether fields are standardised by one mean and spread a channel, by one at each point, or
        not. Outputs are put back into their units before the loss.
    loss : callable (predicted, true) -> Tensor (), optional
        The mean relative L2 error unless given. It is not stored in files.
    """

    model = "map"

    def __init__(
        self,
        network: FieldNetwork,
        *,
        input_scaling: FieldScaling = "global",
        output_scaling: FieldScaling = "global",
        loss: Callable[[Tensor, Tensor], Tensor] = mean_relative_l2,
    ) -> None:
        self.network = network
        self.input_scaling: FieldScaling = input_scaling
        self.output_scaling: FieldScaling = output_scaling
        self.loss = loss
        self.outcome: Outcome | None = None

    def fit(
        self,
        x: Tensor,
        y: Tensor,
        params: Tensor | None = None,
        *,
        grid: Grid | None = None,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        parameters: Sequence[str] | None = None,
        validation: tuple[Tensor, Tensor, Tensor | None] | None = None,
        training: Training | None = None,
        listener: Listener | None = None,
    ) -> Self:
        """Train on pairs of fields.

        Parameters
        ----------
        x, y : Tensor (N, C_in, *space), (N, C_out, *space)
        params : Tensor (N, P), optional
        grid : Grid, optional
            A periodic unit box unless given.
        inputs, outputs, parameters : sequence of str, optional
            Names.
        validation : (x, y, params or None), optional
            By which the best weights are chosen.
        training : Training, optional
        listener : callable (Event) -> None, optional
        """
        plan = training or Training()
        if x.ndim < 3 or x.shape[0] != y.shape[0] or x.shape[2:] != y.shape[2:]:
            raise UserError(
                "x and y must be of shapes (N, C, *space) with the same N and space, "
                f"found {tuple(x.shape)} and {tuple(y.shape)}"
            )
        self.grid = grid or Grid.of(*x.shape[2:])
        if self.grid.shape != tuple(x.shape[2:]):
            raise UserError(f"fields have {tuple(x.shape[2:])} points, the grid {self.grid.shape}")
        self.inputs = tuple(inputs or (f"x{c}" for c in range(x.shape[1])))
        self.outputs = tuple(outputs or (f"y{c}" for c in range(y.shape[1])))
        wanted = 0 if params is None else params.shape[1]
        self.parameters = tuple(parameters or (f"p{j}" for j in range(wanted)))
        self._checked_fields(x, (None, len(self.inputs)), "x")
        self._checked_fields(y, (None, len(self.outputs)), "y")
        known = self._checked_parameters(params, len(x))
        self._x, self._y = _scaling(x, self.input_scaling), _scaling(y, self.output_scaling)
        none = torch.zeros(1, 0)
        self._p = Scaling(none, none) if known is None else Scaling.of(known.float(), (0,))
        self._to(torch.device(plan.device))
        self._learn((x, y, known), validation, plan, listener)
        return self

    def _learn(
        self,
        data: tuple[Tensor, Tensor, Tensor | None],
        validation: tuple[Tensor, Tensor, Tensor | None] | None,
        plan: Training,
        listener: Listener | None,
    ) -> None:
        x, y, p = self._scaled(*data)
        batches = shuffled_batches(len(x), plan.batch_size, plan.seed)

        def loss(step: int) -> Tensor:
            rows = batches(step).to(x.device)
            return self.loss(self._forward(x[rows], None if p is None else p[rows]), y[rows])

        validate = None
        if validation is not None:
            vx, vy, vp = self._scaled(*validation)

            def validate() -> Tensor:
                self.network.eval()
                parts = [
                    self._forward(vx[i : i + 64], None if vp is None else vp[i : i + 64])
                    for i in range(0, len(vx), 64)
                ]
                self.network.train()
                return self.loss(torch.cat(parts), vy)

        self.outcome = plan.run(self.network, loss, validate, listener)

    def _scaled(
        self, x: Tensor, y: Tensor, params: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Inputs in the network's units, outputs as they are, parameters in the network's units."""
        device = self._device()
        p = None if params is None else self._p.forward(params.to(device, torch.float32))
        return self._x.forward(x.to(device, torch.float32)), y.to(device, torch.float32), p

    def _forward(self, z: Tensor, p: Tensor | None) -> Tensor:
        return self._y.inverse(self.network(z, p))

    @property
    def field_units(self) -> Scaling:  # noqa: D102
        return self._x

    @property
    def parameter_units(self) -> Scaling:  # noqa: D102
        return self._p

    @property
    def output_units(self) -> Scaling:
        """Units of the solutions, in which the network answers."""
        return self._y

    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _to(self, device: torch.device) -> None:
        self.network.to(device)
        self._x, self._y, self._p = self._x.to(device), self._y.to(device), self._p.to(device)

    @torch.no_grad()
    def predict(self, u: Tensor, params: Tensor | None = None) -> Tensor:  # noqa: D102
        self._checked_fields(u, (None, len(self.inputs)), "fields")
        known = self._checked_parameters(params, len(u))
        device, parts = self._device(), []
        for i in range(0, len(u), 64):
            z = self._x.forward(u[i : i + 64].to(device, torch.float32))
            p = None
            if known is not None:
                p = self._p.forward(known[i : i + 64].to(device, torch.float32))
            parts.append(self._forward(z, p).cpu())
        return torch.cat(parts)

    def save(self, path: str | Path) -> Path:
        """Write to a ``.us`` file, from which :meth:`load` restores it."""
        settings = {
            **{"input_scaling": self.input_scaling, "output_scaling": self.output_scaling},
            **{"inputs": list(self.inputs), "outputs": list(self.outputs)},
            "parameters": list(self.parameters),
        }
        tensors = {
            f"{name}.{part}": getattr(scaling, part)
            for name, scaling in (("x", self._x), ("y", self._y), ("p", self._p))
            for part in ("shift", "scale")
        }
        return save_operator(path, self.model, self.network, self.grid, settings, tensors)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from a ``.us`` file."""
        return cls.restore(read_operator(path, cls.model))

    @classmethod
    def restore(cls, stored: Stored) -> Self:
        """Make one of what was stored."""
        settings, t = stored.settings, stored.tensors
        scalings = {name: settings[name] for name in ("input_scaling", "output_scaling")}
        new = cls(stored.network, **scalings)
        new.grid = stored.grid
        new.inputs, new.outputs = tuple(settings["inputs"]), tuple(settings["outputs"])
        new.parameters = tuple(settings["parameters"])
        new._x = Scaling(t["x.shift"], t["x.scale"])
        new._y = Scaling(t["y.shift"], t["y.scale"])
        new._p = Scaling(t["p.shift"], t["p.scale"])
        return new


def _scaling(fields: Tensor, kind: FieldScaling) -> Scaling:
    """Units of fields ``(N, C, *space)``, of which there may be none."""
    if kind == "none" or not fields.shape[1]:
        one = torch.ones(1, fields.shape[1], *[1] * (fields.ndim - 2))
        return Scaling(torch.zeros_like(one), one)
    if kind == "pointwise":
        scaling = Scaling.of(fields.float(), (0,))
        return Scaling(scaling.shift, scaling.scale + 1e-5)
    return Scaling.of(fields.float(), (0, *range(2, fields.ndim)))
