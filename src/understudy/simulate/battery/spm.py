r"""Single-particle model of a lithium-ion cell: conservative, implicit, many parameters at once.

Each electrode is one spherical particle. With :math:`\rho = r/R`, stoichiometry :math:`x`, current
:math:`I` (discharge positive) and capacity :math:`Q = \varepsilon F A L c_{max}` of the electrode,

.. math:: \partial_t x = \frac{1}{\rho^2} \partial_\rho \Big( \rho^2 \frac{D(x)}{R^2}
    \partial_\rho x \Big), \qquad \partial_\rho x(0) = 0, \qquad
    -\frac{D(x)}{R^2} \partial_\rho x(1) = g = \pm \frac{I}{3 Q}

(plus in the negative electrode). With :math:`x_s = x(1)` and the current density
:math:`j = \pm I R / (3 \varepsilon A L)` of the surface, the voltage is

.. math:: V = U_p(x_s^p) - U_n(x_s^n) + \eta_p - \eta_n, \qquad
   \eta = \frac{2 R_g T}{F} \operatorname{arsinh} \frac{j}{2 i_0(x_s)}

or, linearised, :math:`\eta = R_g T j / (F i_0)` (arXiv 2312.17329 has both).

**In space**: shells of a mesh that is finer towards the surface; lithium that leaves one enters the
next, so the mean obeys :math:`\langle x \rangle' = -3 g` exactly. The value at the surface is that
of the parabola with the two outermost means and the slope there.

**In time**: where D is constant, shells are decoupled into modes, once for all, and those are
integrated exactly. Else by ROS2 (Verwer et al. 1999, doi 10.1137/S1064827597326651), of order
two and L-stable with :math:`\gamma = 1 - 1/\sqrt 2`: with the right side :math:`f`, volumes
:math:`v` and the matrix :math:`K` of conductances at the start of a step of length h,

.. math:: (v + \gamma h K) k_1 = f(x), \quad (v + \gamma h K) k_2 = f(x + h k_1) - 2 v k_1, \quad
   x \leftarrow x + \tfrac32 h k_1 + \tfrac12 h k_2 .

The matrices are symmetric, positive definite and tridiagonal; those of all parameters together are
one such matrix, which LAPACK factorises. Steps are short after each change of the current. All is
differentiable with respect to parameters and runs on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy.linalg.lapack import dpttrf, dpttrs
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.simulator import BatchedSimulator
from understudy.core.space import Categorical, Continuous, Space, nearest
from understudy.data.cells import FARADAY, GAS, Cell, Electrode, hassanaly2024

QUANTITIES = ("diffusivity", "exchange_current", "radius", "active_fraction", "stoichiometry")
"""What of an electrode can vary: factors of the cell's own values, but ``stoichiometry``, which is
that at the start itself."""

_GAMMA = 1.0 - 1.0 / math.sqrt(2.0)
_SIDES = ("negative", "positive")


@dataclass(frozen=True)
class Drive:
    """A current that is constant by pieces.

    Parameters
    ----------
    times : tuple of float
        Ends of the pieces, s; the first starts at 0.
    amperes : tuple of float
        Current of each piece; positive in discharge.
    """

    times: tuple[float, ...]
    amperes: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.times or len(self.times) != len(self.amperes):
            raise UserError(
                "a drive needs as many currents as ends of pieces, at least one, got "
                f"{len(self.amperes)} and {len(self.times)}"
            )
        ends = np.asarray(self.times, dtype=np.float64)
        if not (np.isfinite(ends).all() and np.isfinite(self.amperes).all()):
            raise UserError("times and currents of a drive must be finite")
        if ends[0] <= 0.0 or (np.diff(ends) <= 0.0).any():
            raise UserError("the ends of the pieces of a drive must increase, from above 0")


@dataclass(frozen=True)
class Solution:
    """Discharges of n cells at T times.

    Parameters
    ----------
    times : Tensor (T,)
        s.
    voltage : Tensor (n, T)
        V; NaN from the time at which a particle is empty or full.
    surface : dict of str to Tensor (n, T)
        Stoichiometry at the surface, of ``"negative"`` and ``"positive"``.
    profiles : dict of str to Tensor (n, T, shells)
        Mean stoichiometry of each shell, from the centre; empty if not asked for.
    finished : BoolTensor (n,)
        Whether no particle was empty or full before the last time.
    """

    times: Tensor
    voltage: Tensor
    surface: dict[str, Tensor]
    profiles: dict[str, Tensor]
    finished: Tensor


@dataclass(frozen=True)
class Moment:
    """Discharges of n cells at one time.

    Parameters
    ----------
    time : float
        s.
    voltage : Tensor (n,)
        V; NaN once a particle is empty or full.
    profiles : dict of str to Tensor (n, shells)
        Mean stoichiometry of each shell, from the centre.
    """

    time: float
    voltage: Tensor
    profiles: dict[str, Tensor]


class SingleParticleModel(BatchedSimulator):
    """Voltage of a cell at given times under a given current.

    Parameters
    ----------
    cell : Cell, optional
        That of Hassanaly et al. by default; `understudy.simulate.battery.read_cell` has PyBaMM's.
    current : float or Drive, optional
        A. A number is a constant discharge and positive; 2C by default.
    times : sequence of float, optional
        s, increasing, from 0 on; by default 100 from 10 to 1350, those of the paper.
    space : Space, optional
        What varies: names are ``negative_`` or ``positive_`` with one of `QUANTITIES`. By default
        the two factors of the paper.
    kinetics : {"butler-volmer", "linear"}
        Law of the over-potentials.
    shells : int, optional
        In each particle; by default 64 where the diffusivity is constant, else 24.
    step : float, optional
        Longest step in time where the diffusivity is not constant, s; by default a hundredth of
        the last time.

    Attributes
    ----------
    outputs : tuple of str
        ``voltage_{time}s`` of each time.
    """

    def __init__(
        self,
        cell: Cell | None = None,
        current: float | Drive | None = None,
        times: Sequence[float] | None = None,
        space: Space | None = None,
        kinetics: Literal["butler-volmer", "linear"] = "butler-volmer",
        shells: int | None = None,
        step: float | None = None,
    ) -> None:
        if kinetics not in ("butler-volmer", "linear"):
            raise UserError(f'kinetics is "butler-volmer" or "linear", found {kinetics!r}')
        if shells is not None and shells < 4:
            raise UserError(f"a particle needs at least 4 shells, found {shells}")
        self.cell = hassanaly2024() if cell is None else cell
        self.times = times_of(np.linspace(10.0, 1350.0, 100) if times is None else times)
        self.current = drive_of(
            2.0 * self.cell.capacity if current is None else current, self.times
        )
        self.space = paper_space() if space is None else space
        check_space(self.space)
        self.kinetics = kinetics
        self.shells = shells
        self.step = self.times[-1] / 100.0 if step is None else step
        if not self.step > 0.0:
            raise UserError(f"step must be positive, found {step}")
        self.outputs = tuple(f"voltage_{time:g}s" for time in self.times)

    def evaluate(self, X: Tensor) -> Tensor:
        """Voltages (..., T) of parameters (..., d); NaN where a particle is empty or full."""
        flat = X.reshape(-1, X.shape[-1])
        return self.solve(flat).voltage.reshape(*X.shape[:-1], len(self.times))

    def curve(self, params: Mapping[str, Any] | pd.Series | pd.DataFrame) -> tuple[Tensor, Tensor]:
        """Times (T,) and voltages, (T,) of one set of parameters or (n, T) of a table of n."""
        times = torch.tensor(self.times, dtype=torch.float64)
        if isinstance(params, pd.DataFrame):
            return times, self.evaluate(torch.from_numpy(self._inside(params)))
        rows = pd.DataFrame([self._complete(params)])
        return times, self.evaluate(torch.from_numpy(self._inside(rows)))[0]

    def run_many(self, df: pd.DataFrame) -> pd.DataFrame:
        """Voltages of each row of a table of parameters; those outside the space are refused."""
        with torch.no_grad():
            Y = self.evaluate(torch.from_numpy(self._inside(df)))
        return pd.DataFrame(Y.numpy(), index=df.index, columns=list(self.outputs))

    def solve(self, X: Tensor, profiles: bool = False) -> Solution:
        """Discharge the cells of n sets of parameters.

        Parameters
        ----------
        X : Tensor (n, d)
            In the order of the space; not checked against its bounds.
        profiles : bool
            Whether to keep what is inside the particles.
        """
        if X.ndim != 2 or X.shape[1] != len(self.space):
            raise UserError(
                f"parameters must have shape (n, {len(self.space)}), found {tuple(X.shape)}"
            )
        X = X.to(device="cpu", dtype=torch.float64)
        given = dict(zip(self.space.names, X.unbind(1), strict=True))
        found = [self._electrode(side, given, profiles) for side in _SIDES]
        n = len(X)
        surface = {s: each[0].expand(n, -1) for s, each in zip(_SIDES, found, strict=True)}
        inside = torch.stack([(x > 0.0) & (x < 1.0) for x in surface.values()]).all(0)
        lasting = inside.long().cumprod(1).bool()
        voltage = found[1][1] - found[0][1]
        return Solution(
            times=torch.tensor(self.times, dtype=torch.float64),
            voltage=torch.where(lasting, voltage, math.nan),
            surface=surface,
            profiles={
                s: each[2].expand(n, -1, -1)
                for s, each in zip(_SIDES, found, strict=True)
                if profiles
            },
            finished=lasting[:, -1],
        )

    def stream(self, X: Tensor) -> Iterator[Moment]:
        """Discharge the cells of n sets of parameters (n, d), one time after the other.

        Nothing of the past is kept where the diffusivity varies with the stoichiometry: time is
        stepped, and what is yielded may be summed up, written or learnt from at once.
        """
        X = X.to(device="cpu", dtype=torch.float64)
        if X.ndim != 2 or X.shape[1] != len(self.space):
            raise UserError(
                f"parameters must have shape (n, {len(self.space)}), found {tuple(X.shape)}"
            )
        given = dict(zip(self.space.names, X.unbind(1), strict=True))
        sides = [self._side(name, given) for name in _SIDES]
        marches = [side.law.march(side.start, self.current, self.times) for side in sides]
        amperes, lasting = _at(self.current, self.times), torch.ones(len(X), dtype=torch.bool)
        for k, shells in enumerate(zip(*marches, strict=True)):
            found = [
                side.at(x.unsqueeze(1), amperes[k : k + 1], self._overpotential)
                for side, x in zip(sides, shells, strict=True)
            ]
            for surface, _ in found:
                lasting = lasting & (surface[:, 0] > 0.0) & (surface[:, 0] < 1.0)
            voltage = (found[1][1] - found[0][1])[:, 0]
            yield Moment(
                time=self.times[k],
                voltage=torch.where(lasting, voltage, math.nan),
                profiles={
                    name: x.expand(len(X), -1) for name, x in zip(_SIDES, shells, strict=True)
                },
            )

    # -- one electrode ----------------------------------------------------------------------------

    def _electrode(
        self, side: str, given: Mapping[str, Tensor], profiles: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Surface stoichiometry and potential (n, T), and shells (n, T, shells).

        Particles that are the same in all cells are followed once: n is 1 then.
        """
        own = self._side(side, given)
        surface, shells = own.law.follow(own.start, self.current, self.times, profiles)
        amperes = _at(self.current, self.times)
        return surface, own.potential(surface, amperes, self._overpotential), shells

    def _side(self, side: str, given: Mapping[str, Tensor]) -> _Side:
        """One electrode with its parameters."""
        electrode: Electrode = getattr(self.cell, side)
        sign = 1.0 if side == "negative" else -1.0
        one = torch.ones(1, dtype=torch.float64)
        factor = {name: given.get(f"{side}_{name}", one) for name in QUANTITIES[:4]}
        start = given.get(f"{side}_stoichiometry", one * electrode.stoichiometry)
        whole = electrode.active_fraction * electrode.thickness * self.cell.area
        volume = whole * factor["active_fraction"]  # m3 of active material
        outflow = sign / (3.0 * FARADAY * electrode.max_concentration * volume)  # of each ampere
        radius = electrode.radius * factor["radius"]
        rate = factor["diffusivity"] / radius.square()
        start, rate, outflow = torch.broadcast_tensors(start, rate, outflow)
        mesh = mesh_of(electrode, self.shells)
        law: _Linear | _Nonlinear
        if callable(electrode.diffusivity):
            law = _Nonlinear(mesh, electrode.diffusivity, rate, outflow, self.step)
        else:
            law = _Linear(mesh, electrode.diffusivity * rate, outflow)
        density = sign * (radius / (3.0 * volume)).unsqueeze(1)
        return _Side(electrode, law, start, density, factor["exchange_current"].unsqueeze(1))

    def _overpotential(self, ratio: Tensor) -> Tensor:
        """Over-potential of current densities relative to the exchange current."""
        thermal = GAS * self.cell.temperature / FARADAY
        if self.kinetics == "linear":
            return thermal * ratio
        return 2.0 * thermal * torch.asinh(0.5 * ratio)

    def _inside(self, df: pd.DataFrame) -> np.ndarray:
        """Codes (n, d) of a table; values outside the space are refused."""
        X = self.space.encode(df)
        outside = self.space.outside(X)
        if outside.any():
            row, column = np.argwhere(outside)[0].tolist()
            item = self.space.inputs[column]
            assert not isinstance(item, Categorical)
            raise UserError(
                f"row {row + 1}: {item.name} = {X[row, column]:g} is outside "
                f"{item.lower:g} to {item.upper:g}"
            )
        return X


@dataclass(frozen=True)
class _Side:
    """One electrode with its parameters.

    First stoichiometry is (n,); current density of an ampere and factor of the exchange current
    are (n, 1).
    """

    electrode: Electrode
    law: _Linear | _Nonlinear
    start: Tensor
    density: Tensor
    exchange: Tensor

    def potential(
        self, surface: Tensor, amperes: Tensor, over: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Potential (n, T) with stoichiometries (n, T) at the surface and currents (T,)."""
        exchange = self.electrode.exchange_current(surface) * self.exchange
        return self.electrode.potential(surface) + over(amperes * self.density / exchange)

    def at(
        self, shells: Tensor, amperes: Tensor, over: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Surface and potential (n, T) of shells (n, T, m)."""
        surface = self.law.surface(shells, amperes)
        return surface, self.potential(surface, amperes, over)


def paper_space() -> Space:
    """Factors of exchange current and diffusivity that arXiv 2312.17329 infers, in its ranges."""
    return Space(
        (
            Continuous("negative_exchange_current", 0.5, 4.0),
            Continuous("positive_diffusivity", 1.0, 10.0),
        )
    )


def check_space(space: Space) -> None:
    """Refuse a space with other than parameters of electrodes, all positive."""
    known = [f"{side}_{quantity}" for side in _SIDES for quantity in QUANTITIES]
    for item in space:
        if item.name not in known:
            raise UserError(f"the model has no parameter {item.name!r}{nearest(item.name, known)}")
        if not isinstance(item, Continuous) or item.lower <= 0.0:
            raise UserError(f"parameter {item.name!r} must be a number above 0")
        if item.name.endswith("stoichiometry") and item.upper >= 1.0:
            raise UserError(f"parameter {item.name!r} must stay below 1, found {item.upper:g}")


def times_of(times: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    """Times as numbers; refused unless they increase from 0 or later."""
    found = np.asarray(times, dtype=np.float64).reshape(-1)
    if not len(found) or not np.isfinite(found).all():
        raise UserError("times must be finite numbers, at least one")
    if found[0] < 0.0 or (np.diff(found) <= 0.0).any():
        raise UserError("times must increase, from 0 or later")
    return tuple(found.tolist())


def drive_of(current: float | Drive, times: tuple[float, ...]) -> Drive:
    """Pieces of a current until the last time; a constant one below 0 is refused."""
    last = times[-1]
    if isinstance(current, Drive):
        if current.times[-1] < last:
            raise UserError(
                f"the drive ends at {current.times[-1]:g} s, before the last time, {last:g} s"
            )
        return current
    if not 0.0 < current < math.inf:
        raise UserError(
            f"a constant current is a discharge and positive, found {current:g} A; "
            "give a charge as a Drive"
        )
    return Drive((max(last, 1e-9),), (float(current),))


def _at(drive: Drive, times: tuple[float, ...]) -> Tensor:
    """Current (T,) at each time; at the end of a piece still its own."""
    pieces = np.searchsorted(np.asarray(drive.times), np.asarray(times))
    return torch.tensor(np.asarray(drive.amperes)[pieces.clip(max=len(drive.times) - 1)])


# -- space -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mesh:
    """Shells of the unit ball over 4 pi.

    Parameters
    ----------
    volumes : Tensor (m,)
        They sum to 1/3.
    conductances : Tensor (m - 1,)
        Area of each inner face over the distance of the centres beside it.
    surface : tuple of float
        Weights of the outermost mean, of the next, and of the slope, in the value at the surface.
    rates, modes, input, output : Tensor (m,), (m, m), (m,), (m,)
        Eigenvalues of the decay; shells by modes; modes that one unit of outflow lowers; the
        value at the surface by modes.
    """

    volumes: Tensor
    conductances: Tensor
    surface: tuple[float, float, float]
    rates: Tensor
    modes: Tensor
    input: Tensor
    output: Tensor

    @property
    def mean(self) -> Tensor:
        """Weights (m,) of the shells in the mean."""
        return 3.0 * self.volumes


def mesh_of(electrode: Electrode, shells: int | None = None) -> Mesh:
    """Mesh of the particles of an electrode; its ``mean`` has the weights of the shells."""
    return _mesh((24 if callable(electrode.diffusivity) else 64) if shells is None else shells)


@lru_cache(maxsize=8)
def _mesh(shells: int) -> Mesh:
    """Mesh whose outermost shell is about a sixth as thick as the innermost."""
    s = np.linspace(0.0, 1.0, shells + 1)
    faces = s * (1.0 + 0.7 * (1.0 - s))
    faces /= faces[-1]
    cubes = faces**3
    volumes = np.diff(cubes) / 3.0
    centres = np.diff(faces**4) / 4.0 / volumes
    conductances = faces[1:-1] ** 2 / np.diff(centres)
    stiffness = np.zeros((shells, shells))
    inner = np.arange(shells - 1)
    stiffness[inner, inner] += conductances
    stiffness[inner + 1, inner + 1] += conductances
    stiffness[inner, inner + 1] = stiffness[inner + 1, inner] = -conductances
    root = np.sqrt(volumes)
    rates, vectors = np.linalg.eigh(stiffness / root[:, None] / root[None])
    rates[0], vectors[:, 0] = 0.0, root / np.linalg.norm(root)
    vectors[:, 1:] -= np.outer(vectors[:, 0], vectors[:, 0] @ vectors[:, 1:])  # keep no lithium
    modes = vectors / root[:, None]
    surface = _surface_weights(faces)
    output = surface[0] * modes[-1] + surface[1] * modes[-2]
    found = (volumes, conductances, rates, modes, modes[-1], output)
    v, k, r, m, i, o = (torch.from_numpy(np.ascontiguousarray(each)) for each in found)
    return Mesh(v, k, surface, r, m, i, o)


def _surface_weights(faces: np.ndarray) -> tuple[float, float, float]:
    """Weights that are exact for every parabola."""

    def mean(power: int, shell: int) -> float:
        """Mean of (rho - 1)^power over a shell."""
        a, b = faces[shell - 1], faces[shell]
        points, weights = np.polynomial.legendre.leggauss(5)
        rho = 0.5 * (a + b) + 0.5 * (b - a) * points
        return float((weights * rho**2 * (rho - 1.0) ** power).sum() / (weights * rho**2).sum())

    last, next_ = -1, -2
    # value = w0 mean_last + w1 mean_next + w2 slope for 1, rho - 1 and (rho - 1)^2
    matrix = np.array(
        [
            [1.0, 1.0, 0.0],
            [mean(1, last), mean(1, next_), 1.0],
            [mean(2, last), mean(2, next_), 0.0],
        ]
    )
    w0, w1, w2 = np.linalg.solve(matrix, np.array([1.0, 0.0, 0.0])).tolist()
    return w0, w1, w2


# -- time, diffusivity constant --------------------------------------------------------------------


@dataclass(frozen=True)
class _Linear:
    """Modes, integrated exactly.

    Parameters
    ----------
    mesh : Mesh
    rate : Tensor (n,)
        Diffusivity over the square of the radius.
    outflow : Tensor (n,)
        Slope at the surface times rate, of one ampere.
    """

    mesh: Mesh
    rate: Tensor
    outflow: Tensor

    def follow(
        self, start: Tensor, drive: Drive, times: tuple[float, ...], profiles: bool
    ) -> tuple[Tensor, Tensor]:
        """Surface (n, T), and shells (n, T, m) or an empty tensor, from uniform particles (n,)."""
        decay = self.rate.unsqueeze(1) * self.mesh.rates  # (n, m)
        whole = self.mesh.modes.new_zeros(self.mesh.modes.shape[0])
        whole[0] = 1.0 / float(self.mesh.modes[0, 0])
        state = start.unsqueeze(1) * whole
        surfaces, shells = [], []
        slope = self.mesh.surface[2] * self.outflow / self.rate
        for begin, end, amperes in _pieces(drive, times):
            wanted = _within(times, begin, end)
            force = -amperes * self.outflow.unsqueeze(1) * self.mesh.input
            modes = self._after(state, decay, force, torch.tensor([*wanted, end]) - begin)
            state, modes = modes[:, -1], modes[:, :-1]
            surfaces.append(modes @ self.mesh.output - (amperes * slope).unsqueeze(1))
            if profiles:
                shells.append(modes @ self.mesh.modes.T)
        return torch.cat(surfaces, 1), torch.cat(shells, 1) if profiles else start.new_empty(0)

    def march(self, start: Tensor, drive: Drive, times: tuple[float, ...]) -> Iterator[Tensor]:
        """Shells (n, m) at one time after the other; all are computed at once."""
        _, shells = self.follow(start, drive, times, profiles=True)
        yield from shells.unbind(1)

    def surface(self, shells: Tensor, amperes: Tensor) -> Tensor:
        """Values (n, T) at the surface, of shells (n, T, m) and currents (T,)."""
        last, next_, slope = self.mesh.surface
        means = last * shells[..., -1] + next_ * shells[..., -2]
        return means - slope * amperes * (self.outflow / self.rate).unsqueeze(1)

    @staticmethod
    def _after(state: Tensor, decay: Tensor, force: Tensor, t: Tensor) -> Tensor:
        """Modes (n, t, m) after times t of a constant force; the first mode does not decay."""
        lost = -torch.expm1(-decay[:, 1:].unsqueeze(1) * t.reshape(1, -1, 1))
        still = force[:, 1:] / decay[:, 1:]
        others = state[:, None, 1:] + (still - state[:, 1:]).unsqueeze(1) * lost
        first = state[:, :1] + force[:, :1] * t
        return torch.cat([first.unsqueeze(2), others], 2)


def _pieces(drive: Drive, times: tuple[float, ...]) -> list[tuple[float, float, float]]:
    """Begin, end and current of the pieces until the last time; the first holds time 0."""
    begins = (0.0, *drive.times[:-1])
    return [
        piece
        for piece in zip(begins, drive.times, drive.amperes, strict=True)
        if piece[0] < times[-1] or piece[0] == 0.0
    ]


def _within(times: tuple[float, ...], begin: float, end: float) -> list[float]:
    """Times in (begin, end], in [0, end] where begin is 0."""
    return [time for time in times if (begin < time or time == begin == 0.0) and time <= end]


# -- time, diffusivity not constant ----------------------------------------------------------------


@dataclass(frozen=True)
class _Nonlinear:
    """Steps of ROS2.

    Parameters
    ----------
    mesh : Mesh
    diffusivity : callable
        Of the stoichiometry.
    rate : Tensor (n,)
        Its factor over the square of the radius.
    outflow : Tensor (n,)
        Slope at the surface times rate and diffusivity, of one ampere.
    step : float
        Longest step, s.
    """

    mesh: Mesh
    diffusivity: Any
    rate: Tensor
    outflow: Tensor
    step: float

    def follow(
        self, start: Tensor, drive: Drive, times: tuple[float, ...], profiles: bool
    ) -> tuple[Tensor, Tensor]:
        """Surface (n, T), and shells (n, T, m) or the outermost, from uniform particles (n,)."""
        kept = slice(None) if profiles else slice(-2, None)
        found = torch.stack([x[:, kept] for x in self.march(start, drive, times)], 1)
        return self.surface(found, _at(drive, times)), found

    def march(self, start: Tensor, drive: Drive, times: tuple[float, ...]) -> Iterator[Tensor]:
        """Shells (n, m) at one time after the other, each as it is reached."""
        x = start.unsqueeze(1).expand(-1, len(self.mesh.volumes)).contiguous()
        for begin, end, amperes in _pieces(drive, times):
            wanted = _within(times, begin, end)
            flux = amperes * self.outflow
            now = begin
            if wanted and wanted[0] == 0.0:
                yield x
            for time in _grid(begin, min(end, times[-1]), wanted, self.step):
                x = self._advance(x, flux, time - now)
                now = time
                if time in wanted:
                    yield x

    def _conductance(self, x: Tensor) -> Tensor:
        """Conductances (n, m - 1) of the inner faces."""
        middle = 0.5 * (x[:, 1:] + x[:, :-1])
        return self.mesh.conductances * self.diffusivity(middle) * self.rate.unsqueeze(1)

    @staticmethod
    def _balance(x: Tensor, conductance: Tensor, flux: Tensor) -> Tensor:
        """What each shell gains (n, m), times its volume."""
        flux = flux.unsqueeze(1)
        return torch.cat([torch.zeros_like(flux), conductance * x.diff(dim=1), -flux], 1).diff(
            dim=1
        )

    def _advance(self, x: Tensor, flux: Tensor, h: float) -> Tensor:
        """One step of ROS2."""
        volumes, conductance = self.mesh.volumes, self._conductance(x)
        off = (-_GAMMA * h) * conductance
        none = torch.zeros_like(off[:, :1])
        beside = torch.cat([none, off, none], 1)
        diagonal = volumes - beside[:, :-1] - beside[:, 1:]
        matrix = _factorise(diagonal, beside[:, 1:])
        k1 = _Solve.apply(diagonal, off, self._balance(x, conductance, flux), matrix)
        y = x + h * k1
        balance = self._balance(y, self._conductance(y), flux)
        k2 = _Solve.apply(diagonal, off, balance - 2.0 * volumes * k1, matrix)
        return x + (1.5 * h) * k1 + (0.5 * h) * k2

    def surface(self, x: Tensor, amperes: Tensor) -> Tensor:
        """Values (n, T) at the surface, of shells (n, T, m) and currents (T,).

        The diffusivity there is found by fixed-point steps.
        """
        last, next_, slope = self.mesh.surface
        flux = amperes * self.outflow.unsqueeze(1)
        means = last * x[..., -1] + next_ * x[..., -2]
        at = x[..., -1]
        for _ in range(3):
            at = means - slope * flux / (self.rate.unsqueeze(1) * self.diffusivity(at))
        return at


def _grid(begin: float, end: float, wanted: Sequence[float], step: float) -> list[float]:
    """Ends of steps: from a thousandth of the longest step on each is longer than the last."""
    ends: list[float] = []
    now, h = begin, 1e-3 * step
    marks = sorted({*wanted, end} - {0.0})
    for mark in marks:
        while now < mark:
            steps = math.ceil((mark - now) / h - 0.01)
            now = mark if steps <= 1 else now + (h if steps > 2 else 0.5 * (mark - now))
            ends.append(now)
            h = min(1.5 * h, step)
    return ends


class _Factors:
    """Factors of one symmetric, positive definite, tridiagonal matrix made of n of them."""

    def __init__(self, diagonal: np.ndarray, off: np.ndarray) -> None:
        self.d, self.e, info = dpttrf(diagonal.reshape(-1), off.reshape(-1)[:-1])
        if info != 0:
            raise UserError("the diffusivity is not positive or not finite somewhere")

    def solve(self, right: Tensor) -> Tensor:
        x, _ = dpttrs(self.d, self.e, right.detach().contiguous().numpy().reshape(-1))
        return torch.from_numpy(x).reshape(right.shape)


def _factorise(diagonal: Tensor, off: Tensor) -> _Factors:
    return _Factors(diagonal.detach().numpy(), off.detach().numpy())


class _Solve(torch.autograd.Function):
    """Solution (n, m) of tridiagonal systems, differentiable in matrix and right side."""

    @staticmethod
    def forward(ctx: Any, diagonal: Tensor, off: Tensor, right: Tensor, matrix: _Factors) -> Tensor:
        x = matrix.solve(right)
        ctx.save_for_backward(x)
        ctx.matrix = matrix
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (x,) = ctx.saved_tensors
        adjoint = ctx.matrix.solve(gradients[0])
        between = -(adjoint[:, :-1] * x[:, 1:] + adjoint[:, 1:] * x[:, :-1])
        return -adjoint * x, between, adjoint, None
