r"""What networks for lithium-ion cells share: scales, kinetics, files, and how they are calibrated.

With stoichiometry x, radius :math:`\rho = r/R` and the symbols of
`understudy.simulate.battery.spm`, of each electrode k (sign + negative, - positive):
:math:`q = \pm I/(3Q)`, the flux that the surface must carry, and
:math:`j = \pm IR/(3 \varepsilon A L)`, its current density. Over-potentials follow the linear law
:math:`j = i_0 F \eta / (R_g T)` or :math:`j = 2 i_0 \sinh(F \eta / (2 R_g T))`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import torch
from torch import Tensor

from understudy.core import artifact
from understudy.core.errors import UserError
from understudy.core.progress import Listener
from understudy.core.space import Continuous, Space, nearest
from understudy.data.cells import FARADAY, GAS, Cell, Electrode, Table
from understudy.models.physics.pinn import PINN, History, Training

if TYPE_CHECKING:
    from botorch.posteriors import Posterior

Kinetics: TypeAlias = Literal["linear", "butler-volmer"]
SIDES = ("negative", "positive")
FACTORS = tuple(f"{side}_{what}" for side in SIDES for what in ("exchange_current", "diffusivity"))
"""What a network may take as parameters: factors of the cell's own laws."""

KIND = "cell-network"
LIMIT = 10.0
"""Argument of the hyperbolic sine beyond which it goes on as a straight line."""


@dataclass(frozen=True)
class SideScales:
    """Numbers of one electrode.

    Parameters
    ----------
    start : float
        Stoichiometry at the start, x0.
    flux : float
        q, 1/s.
    density : float
        j, A/m2.
    diffusion : float
        D(x0)/R^2, 1/s.
    exchange : float
        i0(x0), A/m2.
    potential : float
        U(x0), V.
    """

    start: float
    flux: float
    density: float
    diffusion: float
    exchange: float
    potential: float


@dataclass(frozen=True)
class Scales:
    """All that a trained network needs to know of its cell.

    Parameters
    ----------
    cell : str
        Its name.
    negative, positive : SideScales
    current : float
        Of the discharge, A.
    hours : float
        Seconds that the current takes to empty the nominal capacity.
    thermal : float
        R_g T / F, V.
    """

    cell: str
    negative: SideScales
    positive: SideScales
    current: float
    hours: float
    thermal: float

    @classmethod
    def of(cls, cell: Cell, current: float) -> Scales:
        """Scales of a cell under a constant current."""
        sides = [
            _side_scales(getattr(cell, side), sign * current, cell.area)
            for side, sign in zip(SIDES, (1.0, -1.0), strict=True)
        ]
        seconds = 3600.0 * cell.capacity / current
        thermal = GAS * cell.temperature / FARADAY
        return cls(cell.name, sides[0], sides[1], current, seconds, thermal)

    def sides(self) -> tuple[SideScales, SideScales]:
        """Negative, then positive."""
        return self.negative, self.positive

    def last_time(self) -> float:
        """Seconds until the mean of a particle is empty or full."""
        a, c = self.negative, self.positive
        return min(a.start / (3.0 * a.flux), (1.0 - c.start) / (-3.0 * c.flux))


def _side_scales(electrode: Electrode, current: float, area: float) -> SideScales:
    volume = electrode.active_fraction * electrode.thickness * area
    x0 = torch.tensor(electrode.stoichiometry, dtype=torch.float64)
    D = electrode.diffusivity
    return SideScales(
        start=electrode.stoichiometry,
        flux=current / (3.0 * FARADAY * volume * electrode.max_concentration),
        density=current * electrode.radius / (3.0 * volume),
        diffusion=float(D(x0) if callable(D) else D) / electrode.radius**2,
        exchange=float(electrode.exchange_current(x0)),
        potential=float(electrode.potential(x0)),
    )


@dataclass(frozen=True)
class SideLaws:
    """Laws of one electrode, tabulated: D(x)/R^2, i0(x) and U(x)."""

    diffusion: Table
    exchange: Table
    potential: Table

    @classmethod
    def of(cls, electrode: Electrode) -> SideLaws:
        """Tabulate at 20001 points."""
        D = electrode.diffusivity
        curve = D if callable(D) else lambda x: torch.full_like(x, D)
        return cls(
            Table.of(lambda x: curve(x) / electrode.radius**2),
            Table.of(electrode.exchange_current),
            Table.of(electrode.potential),
        )


def limited_sinh(z: Tensor) -> Tensor:
    """Hyperbolic sine; beyond 10 its tangent, so that gradients neither burst nor vanish."""
    inside = z.clamp(-LIMIT, LIMIT)
    return inside.sinh() + (z - inside) * math.cosh(LIMIT)


def current_ratio(overpotential: Tensor, thermal: float, kinetics: Kinetics) -> Tensor:
    """Current density over the exchange current."""
    if kinetics == "linear":
        return overpotential / thermal
    return 2.0 * limited_sinh(overpotential / (2.0 * thermal))


def overpotential(ratio: Tensor, thermal: float, kinetics: Kinetics) -> Tensor:
    """Inverse of `current_ratio`."""
    if kinetics == "linear":
        return thermal * ratio
    return 2.0 * thermal * torch.asinh(0.5 * ratio)


def paper_factors() -> Space:
    """The two factors that arXiv 2312.17329 infers, in its ranges."""
    return Space(
        (
            Continuous("negative_exchange_current", 0.5, 4.0),
            Continuous("positive_diffusivity", 1.0, 10.0),
        )
    )


@dataclass(frozen=True)
class CellData:
    """Observed fields of discharges.

    Parameters
    ----------
    at : Tensor (n, 1 + d)
        Times and parameters of the potentials.
    voltage : Tensor (n,)
    electrolyte : Tensor (n,), optional
        Potential of the electrolyte.
    inside : Tensor (m, 2 + d), optional
        Times, parameters and relative radii of the stoichiometries.
    stoichiometry : Tensor (m, 2), optional
        Of both electrodes.
    weight, inside_weight : Tensor (E, n) and (E, m), optional
        Inside the squares, of each network: 0 where a network is not shown an observation.
    """

    at: Tensor
    voltage: Tensor
    electrolyte: Tensor | None = None
    inside: Tensor | None = None
    stoichiometry: Tensor | None = None
    weight: Tensor | None = None
    inside_weight: Tensor | None = None


class CellPINN(PINN):
    """Voltage of a cell over time and parameters, by E networks that obey its equations.

    It has what calibration asks of a surrogate: ``space`` (time and the parameters), ``targets``,
    and a differentiable ``posterior``, whose variance is that of the networks about their mean.

    Parameters
    ----------
    cell : Cell or None
        None only for a network that was read from a file, which cannot be trained.
    scales : Scales
    parameters : Space
        Factors to take as inputs, see `FACTORS`.
    duration : float
        s.
    kinetics : {"linear", "butler-volmer"}
    seeds : sequence of int
    inner : sequence of str
        Further coordinates: radius and, in a finer model, depth.
    """

    targets = ("voltage",)
    _lower: Tensor
    _upper: Tensor

    def __init__(
        self,
        cell: Cell | None,
        scales: Scales,
        parameters: Space,
        duration: float,
        kinetics: Kinetics,
        seeds: Sequence[int],
        inner: Sequence[str],
    ) -> None:
        super().__init__(("time", *parameters.names, *inner), seeds)
        check_factors(parameters)
        if kinetics not in ("linear", "butler-volmer"):
            raise UserError(f'kinetics is "linear" or "butler-volmer", found {kinetics!r}')
        if not 0.0 < scales.current < math.inf:
            raise UserError(f"the current of a discharge is positive, found {scales.current:g} A")
        if not 0.0 < duration < scales.last_time():
            raise UserError(
                f"a discharge of {duration:g} s at {scales.current:g} A would empty or overfill a "
                f"particle, which takes {scales.last_time():.0f} s"
            )
        self.cell, self.scales, self.parameters_space = cell, scales, parameters
        self.duration, self.kinetics = float(duration), kinetics
        time = Continuous("time", 0.0, self.duration, "s")
        self.space = Space((time, *parameters.inputs))
        bounds = [(float(item.lower), float(item.upper)) for item in parameters]  # type: ignore[union-attr]
        lower, upper = torch.tensor(bounds, dtype=torch.float64).T
        self.register_buffer("_lower", lower.clone(), persistent=False)
        self.register_buffer("_upper", upper.clone(), persistent=False)
        self._laws = tuple(SideLaws.of(getattr(cell, side)) for side in SIDES) if cell else ()
        self.data: CellData | None = None

    # -- what a user calls ------------------------------------------------------------------------

    def voltages(self, time: Tensor, theta: Tensor) -> Tensor:
        """Voltages (E, n) of each network at times (n,) and parameters (n, d)."""
        raise NotImplementedError

    def voltage(self, time: Tensor, theta: Tensor) -> Tensor:
        """Mean voltage (n, T) of the networks at times (T,) and parameters (n, d).

        Differentiable in both.

        Raises
        ------
        UserError
            A time or a parameter outside the box that the networks were trained on.
        """
        n, T = len(theta), len(time)
        self.check(time, theta)
        times = time.to(torch.float64).expand(n, T).reshape(-1)
        rows = theta.to(torch.float64).unsqueeze(1).expand(n, T, -1).reshape(n * T, -1)
        return self.voltages(times, rows).mean(0).reshape(n, T)

    def posterior(self, X: Tensor, observation_noise: bool = False) -> Posterior:
        """Voltage at X (*batch, q, 1 + d), time first: mean and spread of the networks."""
        from understudy.core.posterior import independent_gaussian

        flat = X.to(torch.float64).reshape(-1, X.shape[-1])
        found = self.voltages(flat[:, 0], flat[:, 1:]).reshape(-1, *X.shape[:-1], 1)
        variance = found.var(0) if len(found) > 1 else torch.zeros_like(found[0])
        return independent_gaussian(found.mean(0), variance.clamp_min(1e-14))

    def fit(
        self,
        training: Training | None = None,
        listener: Listener | None = None,
        data: CellData | None = None,
    ) -> History:
        """Train; what was observed of discharges is one more kind of residual."""
        self._check_trainable()
        if data is not None:
            self.check(data.at[:, 0], data.at[:, 1:])
        self.data = data
        return super().fit(training, listener)

    def _check_trainable(self) -> None:
        """Refuse a network without the laws that it is to obey."""
        self.laws()

    def _ranges(self) -> dict[str, tuple[float, float]]:
        """Least and greatest value of each parameter."""
        ends = zip(self._lower.tolist(), self._upper.tolist(), strict=True)
        return dict(zip(self.parameters_space.names, ends, strict=True))

    def check(self, time: Tensor, theta: Tensor) -> None:
        """Refuse times (T,) or parameters (n, d) outside the trained box."""
        d = len(self.parameters_space)
        if theta.ndim != 2 or theta.shape[1] != d:
            raise UserError(f"parameters must have shape (n, {d}), found {tuple(theta.shape)}")
        names = self.parameters_space.names
        columns = [("time", time, 0.0, self.duration)]
        bounds = zip(names, theta.unbind(1), self._lower, self._upper, strict=True)
        columns += [(name, each, float(low), float(high)) for name, each, low, high in bounds]
        for name, values, low, high in columns:
            room = 1e-9 * (high - low)
            values = values.detach()
            bad = ~((values >= low - room) & (values <= high + room))
            if bool(bad.any()):
                raise UserError(
                    f"{name} = {float(values[bad][0]):g} is outside {low:g} to {high:g}, the range "
                    "that the network was trained on"
                )

    # -- files ------------------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """JSON-able arguments that make an untrained twin."""
        return {
            "class": type(self).__name__,
            "scales": asdict(self.scales),
            "parameters": json.loads(self.parameters_space.to_json()),
            "duration": self.duration,
            "kinetics": self.kinetics,
            "seeds": list(self.seeds),
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Untrained twin of the network that `settings` described."""
        raise NotImplementedError

    @staticmethod
    def _arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments that every network of a cell has, as `settings` described them."""
        return {
            "cell": None,
            "duration": settings["duration"],
            "parameters": Space.from_json(json.dumps(settings["parameters"])),
            "kinetics": settings["kinetics"],
            "seeds": settings["seeds"],
            "scales": scales_from(settings["scales"]),
        }

    def save(self, path: str | Path) -> Path:
        """Write to a ``.us`` file; `load_network` reads it."""
        tensors = {name: value for name, value in self.state_dict().items()}
        return artifact.write(path, {"kind": KIND, "network": self.settings()}, tensors)

    # -- for subclasses ---------------------------------------------------------------------------

    def laws(self) -> tuple[SideLaws, SideLaws]:
        """Laws of both electrodes, which training needs."""
        if not self._laws:
            raise UserError("a network that was read from a file has no cell and cannot be trained")
        return self._laws[0], self._laws[1]

    def factor(self, name: str, theta: Tensor) -> Tensor:
        """Factor (...,) of that name among parameters (..., d); 1 where it is none of them."""
        names = self.parameters_space.names
        if name not in names:
            return torch.ones_like(theta[..., 0])
        return theta[..., names.index(name)]

    def scaled(self, theta: Tensor) -> Tensor:
        """Parameters (..., d) from their lower ends, over the middles of their ranges."""
        return (theta - self._lower) / (0.5 * (self._lower + self._upper))

    def initial(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Potentials (...,) of electrolyte and positive electrode at the start."""
        both = []
        for side, scales in zip(SIDES, self.scales.sides(), strict=True):
            exchange = scales.exchange * self.factor(f"{side}_exchange_current", theta)
            eta = overpotential(scales.density / exchange, self.scales.thermal, self.kinetics)
            both.append(eta + scales.potential)
        return -both[0], both[1] - both[0]


def check_factors(space: Space) -> None:
    """Refuse a space with other inputs than factors above 0."""
    for item in space:
        if item.name not in FACTORS:
            raise UserError(
                f"the network takes no parameter {item.name!r}{nearest(item.name, FACTORS)}"
            )
        if not isinstance(item, Continuous) or item.lower <= 0.0:
            raise UserError(f"parameter {item.name!r} must be a number above 0")


def scales_from(settings: Mapping[str, Any]) -> Scales:
    """Scales that `dataclasses.asdict` took apart."""
    sides = {side: SideScales(**settings[side]) for side in SIDES}
    return Scales(**{**settings, **sides})
