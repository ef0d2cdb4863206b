r"""Sound in a room by a DeepONet, whose input is the source (Borrel-Jensen et al. 2024).

For a pulse u at a source :math:`x_0`, seen at sensors, and a point of space and time y = (x, t),

.. math:: p(u, y) = \sum_{k=1}^{100} B_k(u/2)\, T_k(\varphi(y)) + b_0,

with modified perceptrons of sine activation for B and T (:class:`~understudy.models.operators.
deeponet.ModifiedMLP`, all hidden layers gated) and the features

.. math:: \varphi(y) = \big(y, \cos 2\pi \tfrac{f}{c} y, \sin 2\pi \tfrac{f}{c} y\big)

of coordinates that are scaled by the larger side L of the box around the room,
:math:`2(x - x_{min})/L - 1` and :math:`ct/(2L)`. (So time is four times as short as space, in the
published code, whose comment says otherwise; `time_scale` is 1/2 for that and 2 for equal ratios.)
The mean squared error is minimised over pairs of sources and points; here the points of a batch
are shared by its sources, so that T is evaluated once, where the paper draws them for each.

A source at rest costs one evaluation of B, fixed receivers have their T once and for all.
Rooms that resemble one another share what the first layers know (`transfer`), and a large room
can be cut into parts with a network each (`parts`), which train side by side.

arXiv 2308.05141, and its published code for constants that the paper leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from understudy.core import artifact
from understudy.core.errors import UserError
from understudy.core.loop import Outcome
from understudy.data.rooms import Room
from understudy.data.sound import GaussianPulse, ImpulseResponse, PulseResponses
from understudy.models.operators.sound_network import PulseNetwork, SoundSettings
from understudy.models.operators.sound_training import (
    PulseExamples,
    SoundTraining,
    train_networks,
)
from understudy.models.operators.training import Listener

__all__ = ["PAPER_FREEZE", "Receivers", "SoundOperator", "SoundSettings", "SoundTraining"]

KIND = "sound-operator"

PAPER_FREEZE = (
    *("branch.encoders", "trunk.encoders"),
    *("branch.layers.0", "branch.layers.1", "trunk.layers.0"),
)
"""What the paper keeps of a room when it goes on to another: parameters with such names."""

_CHUNK = 65_536
"""Points at which the trunk is evaluated at once."""


class SoundOperator:
    """Pressure of a pulse anywhere in a room, learnt from runs of a solver.

    Parameters
    ----------
    settings : SoundSettings, optional

    Attributes
    ----------
    room, pulse : Room, GaussianPulse
        What it was trained on.
    clearance : float
        Metres that sources were away from walls at least; nearer ones are refused.
    region : Tensor (2, 2) or None
        Lower and upper corner of the box in which sources were, if it was named; others are
        refused.
    times : Tensor (T,)
        At which pressure was known, in seconds.
    sensors : Tensor (S, 2)
        Where the branch sees the pulse.
    outcome : Outcome or None
        Of the training.
    """

    model: ClassVar[str] = "sound"

    def __init__(self, settings: SoundSettings | None = None) -> None:
        self.settings = settings or SoundSettings()
        self.outcome: Outcome | None = None
        self.region: Tensor | None = None

    # -- training ---------------------------------------------------------------------------------

    def fit(
        self,
        data: PulseResponses,
        validation: PulseResponses | None = None,
        training: SoundTraining | None = None,
        listener: Listener | None = None,
        region: ArrayLike | None = None,
    ) -> Self:
        """Train on recordings of a room.

        Parameters
        ----------
        data : PulseResponses
        validation : PulseResponses, optional
            From other sources at the same points and times; chooses the weights that are kept.
        training : SoundTraining, optional
        listener : callable (Event) -> None, optional
        region : array (2, 2), optional
            Box, lower and upper corner in metres, in which the sources are, where that is not all
            of the room.

        Raises
        ------
        UserError
            If features are finer than the data, or the validation does not belong to it.
        """
        plan = training or SoundTraining()
        self._know(data)
        self.region = None if region is None else torch.as_tensor(region, dtype=torch.float32)
        low, high = (torch.tensor(corner) for corner in data.room.bounds)
        self._origin, self._span = float(low.min()), float(high.max() - low.min())
        self._box = (low.float(), high.float())
        spacing = self.pulse.wavelength / self.settings.sensors_per_wavelength
        self.sensors = _sensors(data.room, spacing)
        self._check_resolved(data)
        with torch.random.fork_rng():
            torch.manual_seed(plan.seed)
            self._networks = self._untrained()
        self._train(data, validation, plan, (), listener)
        return self

    def transfer(
        self,
        target: PulseResponses,
        validation: PulseResponses | None = None,
        training: SoundTraining | None = None,
        freeze: Sequence[str] = PAPER_FREEZE,
        listener: Listener | None = None,
    ) -> SoundOperator:
        """Operator of another room that starts from this one and keeps some of its layers.

        Parameters
        ----------
        target : PulseResponses
            From the same pulse, in a room within the box around this one.
        validation, training, listener
            As in :meth:`fit`; the paper takes 40,000 steps.
        freeze : sequence of str
            What parameters that are kept begin with.

        Raises
        ------
        UserError
            If sensors and coordinates of this operator do not serve the other room.
        """
        self._check_target(target)
        new = SoundOperator(self.settings)
        new._know(target)
        new._origin, new._span, new._box = self._origin, self._span, self._box
        new.sensors = self.sensors
        new._networks = new._untrained()
        for mine, its in zip(self._networks, new._networks, strict=True):
            its.load_state_dict(mine.state_dict())
        plan = training or SoundTraining(steps=40_000)
        new._train(target, validation, plan, freeze, listener)
        return new

    def _know(self, data: PulseResponses) -> None:
        self.room, self.pulse = data.room, data.pulse
        self.clearance = float(data.room.clearance(data.sources.numpy()).min()) - 1e-5
        self.times = data.times.float()

    def _untrained(self) -> list[PulseNetwork]:
        count = self.settings.parts[0] * self.settings.parts[1]
        cycles = [f / self.pulse.speed for f in self._frequencies()]
        return [PulseNetwork(len(self.sensors), cycles, self.settings) for _ in range(count)]

    def _frequencies(self) -> tuple[float, ...]:
        if self.settings.frequencies is not None:
            return tuple(self.settings.frequencies)
        return tuple(self.pulse.f_max / n for n in (2, 4, 6))

    def _train(
        self,
        data: PulseResponses,
        validation: PulseResponses | None,
        plan: SoundTraining,
        freeze: Sequence[str],
        listener: Listener | None,
    ) -> None:
        held = None
        if validation is not None:
            if not torch.equal(validation.points, data.points):
                raise UserError("validation must be at the same points and times as the data")
            held = self._examples(validation)
        self.outcome = train_networks(
            self._networks, self._examples(data), held, plan, freeze, listener
        )

    def _examples(self, data: PulseResponses) -> PulseExamples:
        grid = data.points.expand(len(data.times), -1, -1)
        return PulseExamples(
            self.pulse.at(data.sources, self.sensors),
            self.scaled(grid, data.times[:, None].expand(-1, len(data.points))),
            data.pressure,
            self.part_of(data.points),
            len(self._networks),
        )

    # -- coordinates ------------------------------------------------------------------------------

    def scaled(self, points: Tensor, times: Tensor) -> Tensor:
        """Coordinates ``(..., 3)`` of points ``(..., 2)`` in metres and times ``(...)`` in s."""
        space = 2.0 * (points - self._origin) / self._span - 1.0
        t = times * (self.pulse.speed * self.settings.time_scale / self._span)
        return torch.cat([space, t.unsqueeze(-1)], dim=-1)

    def part_of(self, points: Tensor) -> Tensor:
        """Number ``(M,)`` of the part in which each point ``(M, 2)`` lies."""
        low, high = self._box
        counts = torch.tensor(self.settings.parts)
        share = (points - low) / (high - low)
        at = (share * counts).floor().long().clamp(min=torch.zeros(2).long(), max=counts - 1)
        return at[:, 0] * counts[1] + at[:, 1]

    # -- use --------------------------------------------------------------------------------------

    def pressure(
        self, sources: ArrayLike, points: ArrayLike, times: Tensor | None = None
    ) -> Tensor:
        """Pressure ``(B, T, M)`` in Pa of pulses ``(B, 2)`` at points ``(M, 2)`` and times.

        Raises
        ------
        UserError
            If a source or a point is where none can be, or a time was not trained on.
        """
        return self.listen(points, times).hear(sources).transpose(1, 2)

    @torch.no_grad()
    def listen(self, receivers: ArrayLike, times: Tensor | None = None) -> Receivers:
        """Receivers ``(R, 2)`` that stay where they are, with the trunk evaluated for them.

        Times are those of training unless given.
        """
        at = torch.from_numpy(self.room.require(receivers, "receiver")).float()
        t = self.times if times is None else self._checked_times(times)
        points = at.expand(len(t), -1, -1)
        y = self.scaled(points, t[:, None].expand(-1, len(at)))
        part = self.part_of(at)
        basis = y.new_empty(len(t), len(at), self.settings.num_basis)
        for r, network in enumerate(self._networks):
            here = (part == r).nonzero().flatten()
            if not len(here):
                continue
            flat = y[:, here].flatten(0, 1)
            values = torch.cat([network.basis(chunk) for chunk in flat.split(_CHUNK)])
            basis[:, here] = values.unflatten(0, (len(t), len(here)))
        return Receivers(self, part, basis, t)

    def impulse_response(
        self, source: Sequence[float], receivers: ArrayLike, times: Tensor | None = None
    ) -> ImpulseResponse:
        """What receivers ``(R, 2)`` hear of a source ``(2,)``, at equally spaced times."""
        heard = self.listen(receivers, times)
        return ImpulseResponse(heard.hear([list(source)])[0], heard.rate)

    @torch.no_grad()
    def coefficients(self, sources: ArrayLike) -> Tensor:
        """Branches ``(R, B, K + 1)`` of the parts, the constant :math:`b_0` last."""
        at = torch.from_numpy(self.room.require(sources, "source", self.clearance)).float()
        self._check_region(at)
        u = self.pulse.at(at, self.sensors)
        found = [
            torch.cat([net.coefficients(u), net.bias.expand(len(u), 1)], dim=1)
            for net in self._networks
        ]
        return torch.stack(found)

    @property
    def networks(self) -> Sequence[PulseNetwork]:
        """Trained networks, one for each part of the times and places."""
        return self._networks

    @property
    def weights(self) -> int:
        """Numbers that are trained."""
        return sum(p.numel() for net in self._networks for p in net.parameters())

    def _checked_times(self, times: Tensor) -> Tensor:
        t = torch.as_tensor(times, dtype=torch.float32)
        last = float(self.times[-1])
        if t.ndim != 1 or not len(t) or not bool(((t >= 0.0) & (t <= last * 1.0001)).all()):
            raise UserError(f"times must be within the {last:g} s that were trained on")
        return t

    def _check_region(self, sources: Tensor) -> None:
        if self.region is None:
            return
        low, high = self.region
        outside = ((sources < low - 1e-5) | (sources > high + 1e-5)).any(1)
        if bool(outside.any()):
            k = int(outside.int().argmax())
            raise UserError(
                f"source {k + 1} at ({sources[k, 0]:g}, {sources[k, 1]:g}) m is outside the box "
                f"from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g}) m in which sources "
                "were learnt"
            )

    def _check_resolved(self, data: PulseResponses) -> None:
        """Refuse features of waves that the data cannot hold."""
        apart = (data.room.area / len(data.points)) ** 0.5
        gap = float(data.times.diff().max()) if len(data.times) > 1 else float("inf")
        for f in self._frequencies():
            wavelength = 0.5 * self._span * self.pulse.speed / f
            period = self._span / (f * self.settings.time_scale)
            if wavelength < 2.0 * apart or period < 2.0 * gap:
                raise UserError(
                    f"a feature of {f:g} Hz is a wave of {wavelength:.3g} m and {period:.3g} s, "
                    f"but the data is {apart:.3g} m and {gap:.3g} s apart"
                )

    def _check_target(self, target: PulseResponses) -> None:
        if target.pulse != self.pulse:
            raise UserError(
                f"the pulse of the other room has {target.pulse.f_max:g} Hz and "
                f"{target.pulse.speed:g} m/s, that of this one {self.pulse.f_max:g} Hz and "
                f"{self.pulse.speed:g} m/s"
            )
        low, high = (torch.tensor(corner) for corner in target.room.bounds)
        inside = (low >= self._box[0] - 1e-6) & (high <= self._box[1] + 1e-6)
        if not bool(inside.all()):
            raise UserError(
                f"the other room is not within the box from {self._box[0].tolist()} to "
                f"{self._box[1].tolist()} m, in which this operator has its sensors"
            )
        if float(target.times[-1]) > float(self.times[-1]) * 1.0001:
            raise UserError("the other room was recorded for longer than this one")

    # -- files ------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write to a ``.us`` file, from which :meth:`load` restores it."""
        manifest = {
            "kind": KIND,
            "settings": asdict(self.settings),
            "room": self.room.describe(),
            "pulse": asdict(self.pulse),
            "clearance": self.clearance,
            "origin": self._origin,
            "span": self._span,
        }
        tensors = {"sensors": self.sensors, "times": self.times, "box": torch.stack(self._box)}
        if self.region is not None:
            tensors["region"] = self.region
        for r, network in enumerate(self._networks):
            tensors |= {f"part.{r}.{name}": v for name, v in network.state_dict().items()}
        return artifact.write(path, manifest, tensors)

    @classmethod
    def load(cls, path: str | Path) -> SoundOperator:
        """Read from a ``.us`` file.

        Raises
        ------
        UserError
            If the file holds something else, or parts that do not fit.
        """
        stored = artifact.read(path)
        if stored.manifest.get("kind") != KIND:
            raise UserError(f"{path} holds a {stored.manifest.get('kind')!r}, not a sound operator")
        try:
            return cls._restored(stored.manifest, stored.tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{path} is damaged: its parts do not fit ({error})") from error

    @classmethod
    def _restored(cls, manifest: dict[str, Any], tensors: dict[str, Tensor]) -> SoundOperator:
        new = cls(SoundSettings(**manifest["settings"]))
        new.room = Room.from_description(manifest["room"])
        new.pulse = GaussianPulse(**manifest["pulse"])
        new.clearance = float(manifest["clearance"])
        new._origin, new._span = float(manifest["origin"]), float(manifest["span"])
        new.sensors, new.times = tensors["sensors"], tensors["times"]
        new.region = tensors.get("region")
        low, high = tensors["box"]
        new._box = (low, high)
        new._networks = new._untrained()
        for r, network in enumerate(new._networks):
            start = f"part.{r}."
            own = {n.removeprefix(start): v for n, v in tensors.items() if n.startswith(start)}
            network.load_state_dict(own)
            network.eval()
        return new


@dataclass(frozen=True)
class Receivers:
    """Receivers of an operator at fixed places and times.

    Attributes
    ----------
    part : Tensor (R,)
    basis : Tensor (T, R, K)
    times : Tensor (T,)
    """

    operator: SoundOperator
    part: Tensor
    basis: Tensor
    times: Tensor

    @property
    def rate(self) -> float:
        """Samples a second; times that are not equally spaced have none."""
        if len(self.times) < 2:
            raise UserError("an impulse response needs at least two times")
        t = self.times.double()
        step = float(t[-1] - t[0]) / (len(t) - 1)
        if float(t[0]) != 0.0 or not bool(((t.diff() - step).abs() < 1e-3 * step).all()):
            raise UserError("times of an impulse response must be equally spaced from 0 on")
        rate = 1.0 / step
        return float(round(rate)) if abs(rate - round(rate)) < 1e-4 * rate else rate

    @torch.no_grad()
    def hear(self, sources: ArrayLike) -> Tensor:
        """Pressure ``(B, R, T)`` in Pa of pulses ``(B, 2)``."""
        branches = self.operator.coefficients(sources)
        heard = self.basis.new_empty(branches.shape[1], *self.basis.shape[:2])
        for r, branch in enumerate(branches):
            here = (self.part == r).nonzero().flatten()
            flat = self.basis[:, here].flatten(0, 1)
            values = branch[:, :-1] @ flat.T + branch[:, -1:]
            heard[..., here] = values.unflatten(1, (len(self.times), len(here)))
        return heard.transpose(1, 2)


def _sensors(room: Room, spacing: float) -> Tensor:
    """Uniform grid ``(S, 2)`` over the box around a room, with its edges."""
    axes = []
    for low, high in zip(*room.bounds, strict=True):
        count = int(np.ceil((high - low) / spacing - 1e-9)) + 1
        axes.append(torch.linspace(low, high, count))
    return torch.cartesian_prod(*axes)
