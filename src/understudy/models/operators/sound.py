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
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from understudy.core import artifact
from understudy.core.errors import UserError
from understudy.core.loop import Outcome, Settings, Trainer
from understudy.data.rooms import Room
from understudy.data.sound import GaussianPulse, ImpulseResponse, PulseResponses
from understudy.models.operators.deeponet import FourierFeatures, ModifiedMLP, PlainMLP
from understudy.models.operators.training import Listener

KIND = "sound-operator"

PAPER_FREEZE = (
    *("branch.encoders", "trunk.encoders"),
    *("branch.layers.0", "branch.layers.1", "trunk.layers.0"),
)
"""What the paper keeps of a room when it goes on to another: parameters with such names."""

_CHUNK = 65_536
"""Points at which the trunk is evaluated at once."""


@dataclass(frozen=True)
class SoundSettings:
    """Shape of a sound operator.

    Parameters
    ----------
    num_basis : int
        Functions of the trunk.
    width, depth : int
        Of hidden layers of branch and trunk, 2 x 2048 in the paper's two dimensions.
    architecture : {"modified", "plain"}
    activation : str
        One of `nn.mlp.ACTIVATIONS`.
    frequencies : sequence of float, optional
        Of features, in Hz; a half, a quarter and a sixth of the highest of the pulse unless given,
        as in the paper, and none if empty.
    linear_encoders : bool
        Leave the sine out of the gates' encodings, as the weights published in 2023 do.
    time_scale : float
        Factor of :math:`ct/L`.
    sensors_per_wavelength : float
        Density of the sensors along an axis.
    parts : (int, int)
        Into how many boxes the room is cut along each axis, each with networks of its own.
    """

    num_basis: int = 100
    width: int = 2048
    depth: int = 2
    architecture: Literal["modified", "plain"] = "modified"
    activation: str = "sin"
    frequencies: Sequence[float] | None = None
    linear_encoders: bool = False
    time_scale: float = 0.5
    sensors_per_wavelength: float = 2.0
    parts: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if min(self.num_basis, self.width, *self.parts) < 1 or len(self.parts) != 2:
            raise UserError("functions, width and parts of a sound operator are at least 1")
        if self.architecture not in ("modified", "plain"):
            raise UserError(f"architecture must be modified or plain, found {self.architecture!r}")
        if not self.time_scale > 0.0 or not self.sensors_per_wavelength > 0.0:
            raise UserError("time_scale and sensors_per_wavelength must be positive")
        if self.frequencies is not None:
            object.__setattr__(self, "frequencies", tuple(float(f) for f in self.frequencies))
            if not all(f > 0.0 for f in self.frequencies):
                raise UserError("frequencies of features must be positive")
        object.__setattr__(self, "parts", tuple(int(n) for n in self.parts))


@dataclass(frozen=True)
class SoundTraining:
    """How a sound operator is trained; defaults are the paper's.

    Parameters
    ----------
    steps : int
        60,000 to 80,000 in the paper, 40,000 after transfer.
    sources, points : int
        Of a batch. (The paper draws 200 to 1000 points for each source.)
    learning_rate : float
        Of AdamW, times `decay` every `decay_steps`, continuously.
    weight_decay : float
    clip_norm : float
        Largest norm of a gradient.
    validate_every : int
        Steps between validations, which choose the weights that are kept.
    device : {"cpu", "cuda"}
    """

    steps: int = 60_000
    sources: int = 64
    points: int = 2000
    learning_rate: float = 1e-3
    decay: float = 0.9
    decay_steps: float = 2000.0
    weight_decay: float = 1e-4
    clip_norm: float = 0.01
    validate_every: int = 500
    seed: int = 0
    device: str = "cpu"

    def schedule(self, progress: float) -> float:
        """Factor of the learning rate."""
        return float(self.decay ** (progress * self.steps / self.decay_steps))


class PulseNetwork(nn.Module):
    """Branch and trunk for one part of a room.

    Parameters
    ----------
    sensors : int
    frequencies : sequence of float
        Cycles a unit of a scaled coordinate.
    settings : SoundSettings
    """

    def __init__(self, sensors: int, frequencies: Sequence[float], settings: SoundSettings) -> None:
        super().__init__()
        self.features = FourierFeatures(frequencies)
        self.branch = _perceptron(sensors, settings)
        self.trunk = _perceptron(self.features.features(3), settings)
        self.bias = nn.Parameter(torch.zeros(()))

    def coefficients(self, u: Tensor) -> Tensor:
        """Branch ``(B, K)`` of pulses ``(B, S)`` in Pa."""
        out: Tensor = self.branch(0.5 * u)
        return out

    def basis(self, y: Tensor) -> Tensor:
        """Trunk ``(..., K)`` at scaled points ``(..., 3)``."""
        out: Tensor = self.trunk(self.features(y))
        return out

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        """Pressure ``(B, M)`` of pulses ``(B, S)`` at scaled points ``(M, 3)``."""
        return self.coefficients(u) @ self.basis(y).T + self.bias


def _perceptron(inward: int, settings: SoundSettings) -> nn.Module:
    shape = (inward, settings.width, settings.depth, settings.num_basis, settings.activation)
    if settings.architecture == "plain":
        return PlainMLP(*shape)
    return ModifiedMLP(*shape, gate_first=True, linear_encoders=settings.linear_encoders)


class _Parts(nn.Module):
    """Networks of several parts with every parameter stacked, ``(R, ...)``."""

    def __init__(self, networks: Sequence[PulseNetwork]) -> None:
        super().__init__()
        stacked, _ = stack_module_state(list(networks))
        self.names = list(stacked)
        self.values = nn.ParameterList(nn.Parameter(v.detach().clone()) for v in stacked.values())
        self._template = [networks[0]]  # in a list, so that its weights are not trained

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        """Pressure ``(R, B, M)`` of pulses ``(B, S)`` at scaled points ``(R, M, 3)``."""

        def one(weights: dict[str, Tensor], at: Tensor) -> Tensor:
            out: Tensor = functional_call(self._template[0], weights, (u, at))
            return out

        weights = dict(zip(self.names, self.values, strict=True))
        out: Tensor = torch.vmap(one)(weights, y)
        return out

    def freeze(self, prefixes: Sequence[str]) -> None:
        """Leave parameters as they are whose names begin so."""
        for prefix in prefixes:
            if not any(name.startswith(prefix) for name in self.names):
                raise UserError(f"no parameter begins with {prefix!r}, which is to be frozen")
        for name, value in zip(self.names, self.values, strict=True):
            value.requires_grad_(not any(name.startswith(p) for p in prefixes))

    def unstack(self) -> list[dict[str, Tensor]]:
        """Weights of each network."""
        count = len(self.values[0])
        return [
            {n: v[r].detach().clone() for n, v in zip(self.names, self.values, strict=True)}
            for r in range(count)
        ]


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
    times : Tensor (T,)
        At which pressure was known, in seconds.
    sensors : Tensor (S, 2)
        Where the branch sees the pulse.
    outcome : Outcome or None
        Of the training.
    """

    def __init__(self, settings: SoundSettings | None = None) -> None:
        self.settings = settings or SoundSettings()
        self.outcome: Outcome | None = None

    # -- training ---------------------------------------------------------------------------------

    def fit(
        self,
        data: PulseResponses,
        validation: PulseResponses | None = None,
        training: SoundTraining | None = None,
        listener: Listener | None = None,
    ) -> Self:
        """Train on recordings of a room.

        Parameters
        ----------
        data : PulseResponses
        validation : PulseResponses, optional
            From other sources at the same points and times; chooses the weights that are kept.
        training : SoundTraining, optional
        listener : callable (Event) -> None, optional

        Raises
        ------
        UserError
            If features are finer than the data, or the validation does not belong to it.
        """
        plan = training or SoundTraining()
        self._know(data)
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
        device = torch.device(plan.device)
        parts = _Parts(self._networks).to(device)
        parts._template[0].to(device)
        parts.freeze(freeze)
        batches = _Batches(self, data, plan, device)
        validate = None
        if validation is not None:
            if not torch.equal(validation.points, data.points):
                raise UserError("validation must be at the same points and times as the data")
            u, y, p = _Batches(self, validation, plan, device).fixed()

            def validate() -> Tensor:
                return (parts(u, y) - p).square().mean((1, 2))

        def loss(step: int) -> Tensor:
            u, y, p = batches.draw(step)
            return (parts(u, y) - p).square().mean((1, 2)).sum()

        trained = [v for v in parts.values if v.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, plan.learning_rate, weight_decay=plan.weight_decay, foreach=True
        )
        settings = Settings(
            max_steps=plan.steps,
            schedule=plan.schedule,
            clip_norm=plan.clip_norm,
            validate_every=plan.validate_every,
            networks=len(self._networks),
        )
        trainer = Trainer(parts, optimizer, settings)
        self.outcome = trainer.run(loss, validate, listener)
        for network, weights in zip(self._networks, parts.unstack(), strict=True):
            network.load_state_dict(weights)
            network.to("cpu").eval()

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
        u = self.pulse.at(at, self.sensors)
        found = [
            torch.cat([net.coefficients(u), net.bias.expand(len(u), 1)], dim=1)
            for net in self._networks
        ]
        return torch.stack(found)

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


class _Batches:
    """Sources and points of a training, drawn by step number."""

    def __init__(
        self, operator: SoundOperator, data: PulseResponses, plan: SoundTraining, device: Any
    ) -> None:
        self.plan, self.device = plan, device
        self.pulses = operator.pulse.at(data.sources, operator.sensors).to(device)
        self.pressure = data.pressure.flatten(1).to(device)  # (N, T M)
        self.shape = data.pressure.shape[1:]
        part = operator.part_of(data.points)
        count = len(operator._networks)
        self.members = [(part == r).nonzero().flatten() for r in range(count)]
        for r, members in enumerate(self.members):
            if not len(members):
                raise UserError(f"part {r + 1} of the room holds no point of the data")
        times, points = self.shape
        grid = data.points.expand(times, -1, -1)
        at = operator.scaled(grid, data.times[:, None].expand(-1, points))
        self.at = at.flatten(0, 1).to(device)  # (T M, 3)

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pulses ``(B, S)``, points ``(R, M, 3)`` and pressure ``(R, B, M)``."""
        generator = torch.Generator().manual_seed(hash((self.plan.seed, step)) & 0x7FFFFFFF)
        count = len(self.pulses)
        rows = torch.randperm(count, generator=generator)[: self.plan.sources]
        return self._taken(rows, self._chosen(self.plan.points, generator))

    def fixed(self) -> tuple[Tensor, Tensor, Tensor]:
        """All sources at some points that are always the same."""
        generator = torch.Generator().manual_seed(self.plan.seed)
        chosen = self._chosen(2 * self.plan.points, generator)
        return self._taken(torch.arange(len(self.pulses)), chosen)

    def _chosen(self, count: int, generator: torch.Generator) -> Tensor:
        """Flat numbers ``(R, count)`` of times and points, points of each part."""
        times, points = self.shape
        t = torch.randint(times, (len(self.members), count), generator=generator)
        at = [m[torch.randint(len(m), (count,), generator=generator)] for m in self.members]
        return t * points + torch.stack(at)

    def _taken(self, rows: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, chosen = rows.to(self.device), chosen.to(self.device)
        pressure = self.pressure[rows[None, :, None], chosen[:, None, :]]
        return self.pulses[rows], self.at[chosen], pressure


def _sensors(room: Room, spacing: float) -> Tensor:
    """Uniform grid ``(S, 2)`` over the box around a room, with its edges."""
    axes = []
    for low, high in zip(*room.bounds, strict=True):
        count = int(np.ceil((high - low) / spacing - 1e-9)) + 1
        axes.append(torch.linspace(low, high, count))
    return torch.cartesian_prod(*axes)
