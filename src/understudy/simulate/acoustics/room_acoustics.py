r"""Sound in a room: the wave equation with walls that absorb, as in Borrel-Jensen et al. (2024).

.. math:: p_{tt} = c^2 \Delta p, \qquad \partial_n p = -\frac{1}{c} \frac{d}{dt} (Y * p)

from a pulse at rest, :math:`p(x, 0) = e^{-|x - x_0|^2/\sigma^2}` (arXiv 2308.05141; see
:mod:`understudy.data.sound`). A wall of constant normalised impedance :math:`\xi` has
:math:`Y = 1/\xi`: infinite is rigid (Neumann's condition), 0 is soft (Dirichlet's). Walls whose
impedance depends on frequency are of :class:`~understudy.simulate.acoustics.impedance.
RationalAdmittance`. The paper solves by discontinuous and spectral elements; here finite volumes
and leapfrog, of second order, take their place, all runs of a batch at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.simulator import FieldSimulator, Parameters
from understudy.core.space import Continuous, Space
from understudy.data.rooms import Room
from understudy.data.sound import SPEED_OF_SOUND, GaussianPulse, ImpulseResponse, PulseResponses
from understudy.simulate.acoustics.impedance import RationalAdmittance
from understudy.simulate.acoustics.leapfrog import Force, Leapfrog, require_stable
from understudy.simulate.acoustics.mesh import RoomMesh

Impedance: TypeAlias = float | RationalAdmittance
PAPER_IMPEDANCE = 17.98
"""Of the paper's walls, normalised by that of air; they reflect 0.895 of a wave head on."""
PAPER_PADDING = 0.6
"""Metres between a source and the nearest wall, in the paper's code."""
_COURANT = 0.99
"""Of the steps that are taken unless a rate is given; for square cells c h / dx = 0.7."""


class RoomAcoustics(FieldSimulator):
    """Pulses of sound in a room; the inputs are the position of the source.

    Parameters
    ----------
    room : Room
    impedance : float, RationalAdmittance, or a sequence of them
        Of all walls, or one for each of the room's sides, obstacles' last; normalised.
    f_max : float
        Highest frequency in Hz, which sets the pulse and the mesh.
    points_per_wavelength : float
        Cells a wavelength of it; 6 are few and 10 good.
    duration : float
        In seconds.
    rate : float, optional
        Time steps a second; by default the smallest whole number well within stability.
    substeps : int
        Time steps between two fields that are given.
    padding : float
        Metres that a source must be away from walls, 0.6 as in the paper.
    speed : float
        Of sound, in m/s.
    precision : {"double", "single"}

    Raises
    ------
    UserError
        If the rate is above the limit of stability, or an option makes no sense.
    """

    channels = ("pressure",)

    def __init__(
        self,
        room: Room,
        impedance: Impedance | Sequence[Impedance] = PAPER_IMPEDANCE,
        *,
        f_max: float = 500.0,
        points_per_wavelength: float = 6.0,
        duration: float = 0.03,
        rate: float | None = None,
        substeps: int = 1,
        padding: float = PAPER_PADDING,
        speed: float = SPEED_OF_SOUND,
        precision: Literal["double", "single"] = "double",
    ) -> None:
        if not points_per_wavelength >= 2.0:
            raise UserError(
                f"points_per_wavelength must be at least 2, found {points_per_wavelength:g}"
            )
        if not 0.0 < duration < math.inf or substeps < 1 or not padding >= 0.0:
            raise UserError("duration must be positive, substeps at least 1, padding at least 0")
        if precision not in ("double", "single"):
            raise UserError(f"precision must be 'double' or 'single', found {precision!r}")
        self.room, self.pulse, self.padding = room, GaussianPulse(f_max, speed), padding
        self.mesh = RoomMesh.of(room, self.pulse.wavelength / points_per_wavelength)
        fastest = speed * math.hypot(*(1.0 / h for h in self.mesh.spacing))
        self.rate = float(math.ceil(fastest / _COURANT)) if rate is None else float(rate)
        if not 0.0 < self.rate < math.inf:
            raise UserError(f"rate must be positive, found {self.rate:g}")
        require_stable(fastest / self.rate, self.rate)
        self.substeps = substeps
        self.steps = max(1, round(duration * self.rate / substeps))
        dtype = torch.float64 if precision == "double" else torch.float32
        self.scheme = Leapfrog(
            self.mesh, _admittances(impedance, len(room.sides)), speed, 1.0 / self.rate, dtype
        )
        self.grid = self._grid()
        self.space = self._space()

    def _grid(self) -> Grid:
        """Nodes as centres of cells around them."""
        low, shape = self.mesh.lower, self.mesh.shape
        lower = tuple(a - 0.5 * h for a, h in zip(low, self.mesh.spacing, strict=True))
        sides = (n * h for n, h in zip(shape, self.mesh.spacing, strict=True))
        upper = tuple(a + side for a, side in zip(lower, sides, strict=True))
        return Grid(shape, lower, upper, "cells")

    def _space(self) -> Space:
        low, high = self.room.bounds
        if min(b - a for a, b in zip(low, high, strict=True)) <= 2.0 * self.padding:
            raise UserError(
                f"in this room no source can be {self.padding:g} m from every wall; "
                "use a smaller padding"
            )
        return Space(
            tuple(
                Continuous(name, a + self.padding, b - self.padding, unit="m")
                for name, a, b in zip(("x", "y"), low, high, strict=True)
            )
        )

    # -- the contract of a simulator of fields ----------------------------------------------------

    def times(self, params: Parameters) -> Tensor:  # noqa: D102
        return self._clock().expand(len(self.values(params)["x"]), -1)

    def initial(self, params: Parameters) -> Tensor:  # noqa: D102
        return self._pulses(self._sources(self.values(params)))

    def inputs(self, params: Parameters) -> dict[str, Tensor]:
        """Which nodes are in the room, 1 or 0, ``(B, nx, ny)``."""
        runs = len(self.values(params)["x"])
        air = (self.mesh.volumes > 0.0).to(torch.float64).reshape(self.mesh.shape)
        return {"air": air.expand(runs, -1, -1)}

    def _march(self, values: dict[str, Tensor], start: Tensor | None) -> Iterator[Tensor]:
        begin = self._pulses(self._sources(values)) if start is None else start
        air = self.mesh.volumes > 0.0
        fields = self.scheme.march(begin.flatten(1), self.steps * self.substeps)
        for n, p in enumerate(fields):
            if n % self.substeps == 0:
                yield torch.where(air, p, 0.0).reshape(-1, 1, *self.mesh.shape)

    def _check(self, values: dict[str, Tensor]) -> None:
        self.room.require(self._sources(values).detach().numpy(), "source", self.padding)

    def _sources(self, values: dict[str, Tensor]) -> Tensor:
        return torch.stack([values["x"], values["y"]], dim=1)

    def _pulses(self, sources: Tensor) -> Tensor:
        p = self.pulse.at(sources, self.mesh.positions)
        air = self.mesh.volumes > 0.0
        return torch.where(air, p, 0.0).reshape(-1, 1, *self.mesh.shape)

    def _clock(self) -> Tensor:
        return torch.arange(self.steps + 1, dtype=torch.float64) * (self.substeps / self.rate)

    # -- recordings -------------------------------------------------------------------------------

    def solve(self, sources: ArrayLike) -> PulseResponses:
        """Pressure at all nodes of the room after pulses at positions ``(N, 2)``."""
        at = torch.from_numpy(self.room.require(sources, "source", self.padding))
        nodes = self.mesh.nodes
        fields = self.fields(at).flatten(2)[..., nodes]
        return PulseResponses(
            room=self.room,
            pulse=self.pulse,
            sources=at.float(),
            points=self.mesh.positions[nodes].float(),
            times=self._clock().float(),
            pressure=fields,
        )

    @torch.no_grad()
    def record(self, sources: ArrayLike, receivers: ArrayLike) -> Tensor:
        """Pressure ``(B, R, T + 1)``, float32, of pulses ``(B, 2)`` at receivers ``(R, 2)``.

        It is interpolated between nodes; fields are not kept.
        """
        at = torch.from_numpy(self.room.require(sources, "source", self.padding))
        start = self._pulses(at).flatten(1)
        return self._heard(start, receivers)

    @torch.no_grad()
    def follow(self, path: ArrayLike, signal: ArrayLike, receivers: ArrayLike) -> ImpulseResponse:
        r"""What receivers ``(R, 2)`` hear of a source that moves and sounds.

        .. math:: p_{tt} = c^2 \Delta p + \frac{d^2 s}{dt^2}(t)\; e^{-|x - x_0(t)|^2/\sigma^2}

        from silence. (A source at rest whose signal is one step s = 1 is the pulse itself.)

        Parameters
        ----------
        path : array (N, 2)
            Positions at successive time steps, of which there are `rate` a second.
        signal : array (N,)
            s at these times, in Pa.
        receivers : array (R, 2)

        Returns
        -------
        ImpulseResponse
            With N samples.
        """
        way = torch.from_numpy(self.room.require(path, "position", self.padding))
        s = torch.as_tensor(np.asarray(signal, dtype=np.float64))
        if s.shape != (len(way),) or not bool(s.isfinite().all()):
            raise UserError(
                f"a signal of {len(way)} finite values is needed, one a position of the path, "
                f"found shape {tuple(s.shape)}"
            )
        steps = torch.cat([s[:1], s, s[-1:]]).diff()
        bent = steps.diff() * self.rate**2
        bent[0] *= 2.0  # the first step from rest counts half
        positions = self.mesh.positions

        def force(n: int) -> Tensor:
            shape = self.pulse.at(way[n : n + 1], positions)
            return (bent[n] * shape).to(start.dtype)

        start = torch.zeros(1, len(positions), dtype=self.scheme.dtype)
        heard = self._heard(start, receivers, len(way) - 1, force)
        return ImpulseResponse(heard[0], self.rate)

    def _heard(
        self,
        start: Tensor,
        receivers: ArrayLike,
        steps: int | None = None,
        force: Force | None = None,
    ) -> Tensor:
        at = self.room.require(receivers, "receiver")
        nodes, weights = self.mesh.interpolation(at, "receiver")
        every, count = (self.substeps, self.steps * self.substeps) if steps is None else (1, steps)
        heard = [
            (p[:, nodes] * weights.to(p.dtype)).sum(-1)
            for n, p in enumerate(self.scheme.march(start, count, force))
            if n % every == 0
        ]
        return torch.stack(heard, dim=-1).float()


def impulse_response(
    room: Room,
    source: Sequence[float],
    receiver: ArrayLike,
    *,
    path: str | None = None,
    **options: Any,
) -> ImpulseResponse:
    """Response of a room at one or more receivers to a pulse at a source.

    Parameters
    ----------
    room : Room
    source : (float, float)
        In metres.
    receiver : array (2,) or (R, 2)
        In metres.
    path : path, optional
        WAV file to write.
    **options
        Those of :class:`RoomAcoustics`, such as `impedance`, `f_max` and `duration`.
    """
    acoustics = RoomAcoustics(room, **options)
    heard = acoustics.record([list(source)], receiver)[0]
    response = ImpulseResponse(heard, acoustics.rate / acoustics.substeps)
    if path is not None:
        response.write(path)
    return response


def _admittances(
    impedance: Impedance | Sequence[Impedance], sides: int
) -> list[float | RationalAdmittance]:
    one = isinstance(impedance, (int, float, RationalAdmittance))
    walls = [impedance] * sides if one else list(impedance)  # type: ignore[arg-type]
    if len(walls) != sides:
        raise UserError(f"the room has {sides} sides, but {len(walls)} impedances are given")
    return [wall if isinstance(wall, RationalAdmittance) else _admittance(wall) for wall in walls]


def _admittance(impedance: Any) -> float:
    try:
        value = float(impedance)
    except (TypeError, ValueError):
        value = math.nan
    if not value >= 0.0:
        raise UserError(
            f"an impedance is a number of at least 0, or a RationalAdmittance, found {impedance!r}"
        )
    return math.inf if value == 0.0 else 1.0 / value
