r"""Physics-informed network of the single-particle model (arXiv 2312.17329).

**Fields.** With the gate :math:`g(t) = 1 - e^{-(t - t_0)/\tau}` and network outputs N, potentials
of the electrolyte and of the positive electrode (the negative one's is 0), and stoichiometries, are

.. math:: \phi_e = (s_e N_e + o_e) g + \phi_e^0(\theta), \qquad
    \phi_c = (s_c N_c + o_c) g + \phi_c^0(\theta),

.. math:: x_n = x_n^0 - x_n^0\, \sigma(N_n)\, g, \qquad x_p = x_p^0 + (1 - x_p^0)\, \sigma(N_p)\, g,

so that conditions at the start hold exactly; :math:`\phi^0` solve the kinetics there.

**Hierarchy.** A level with a parent corrects its frozen prediction: in place of o stands the
parent's potential less that at the start, s is a tenth as large, and with the parent's
stoichiometry :math:`x^{par}`, :math:`x = x^0 + (x^{par} - x^0) g + a N g` with a hundredth of the
amplitude in a, without the sigmoid. A parent may have been trained on the same box, at one
reference :math:`\theta` (and is evaluated there), or until a time :math:`t_0` from which its
child goes on.

**Residuals**, each inside a mean square with its weight w and scale:

====================  =====  =================================================================
kinetics, both sides  1      :math:`j(\eta)/j - 1`
diffusion             10     :math:`(\partial_t x - \rho^{-2}\partial_\rho(\rho^2 d\,
                             \partial_\rho x))\, T_h/2` over :math:`x_n^0` or :math:`1 - x_p^0`
centre                1      :math:`(d_0/q)\, \partial_\rho x`
surface               250    :math:`g\,((d_0/q)\,\partial_\rho x + d_0/d)`
data                  1      (prediction - observation) over the amplitude of the field
====================  =====  =================================================================

with :math:`d = \theta D(x)/R^2`, its value :math:`d_0` at the start, :math:`T_h` the time that the
current takes to empty the cell, and in g the time :math:`\tau` of the potentials. Here each
particle has its own relative radius as input, where the original has one absolute radius for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.progress import Listener
from understudy.core.space import Space
from understudy.data.cells import Cell
from understudy.models.physics.battery import (
    SIDES,
    CellData,
    CellPINN,
    Kinetics,
    Scales,
    current_ratio,
    paper_factors,
)
from understudy.models.physics.jet import Jet, cat, coordinates, stack
from understudy.models.physics.networks import Affine, GatedHeads
from understudy.models.physics.pinn import History, Training, frozen, gate
from understudy.models.physics.residuals import BOUNDARY, DATA, Batch, Box, Sampler, Term

AMPLITUDES = (0.07354643, 0.31091639)
"""Scales of the two potentials in the code that goes with the paper, V."""

CORRECTION, SMALL_CORRECTION = 0.1, 0.01
"""Shares of the amplitudes by which a level corrects its parent: potentials, stoichiometries."""

TAU = 1.0
"""Of the gate, s."""


@dataclass(frozen=True)
class CellFields:
    """Fields of E networks.

    Parameters
    ----------
    electrolyte, positive : Tensor (E, n)
        Potentials; the voltage is the second.
    stoichiometry : dict of str to Tensor (E, n)
        By electrode.
    """

    electrolyte: Tensor
    positive: Tensor
    stoichiometry: dict[str, Tensor]


class BatteryPINN(CellPINN):
    """Physics-informed network of the single-particle model.

    Parameters
    ----------
    cell : Cell
    current : float, optional
        A; 2C by default.
    duration : float
        Last time, s.
    parameters : Space, optional
        Factors to take as inputs; the paper's two by default.
    kinetics : {"linear", "butler-volmer"}
        The paper's default is linear.
    seeds : sequence of int
        One for each independent network.
    width : int
        Units of each layer.
    reference : mapping of str to float, optional
        Train at this one value of the parameters only (a lower level).
    parent : BatteryPINN, optional
        Lower level; it is frozen.
    start : float
        Time at which this level takes over from its parent, s.
    gates : (float, float)
        Times tau of the gates of potentials and of stoichiometries, s; 1 in the paper.
    surface_weight : float
        Of the residual at the surface; 250 in the paper.
    hard_centre : bool
        Whether the network sees the square of the radius, so that no lithium flows through the
        centre and the residual stays finite there. In the paper that is a residual, and 2 / rho
        makes a few points near the centre outweigh all others.

    Raises
    ------
    UserError
        Parameters that are no factors of the cell, a discharge that would empty or overfill a
        particle, a parent of another cell, current or number of networks.
    """

    def __init__(
        self,
        cell: Cell | None,
        current: float | None = None,
        duration: float = 1350.0,
        parameters: Space | None = None,
        kinetics: Kinetics = "linear",
        seeds: Sequence[int] = (0,),
        width: int = 20,
        reference: Mapping[str, float] | None = None,
        parent: BatteryPINN | None = None,
        start: float = 0.0,
        gates: tuple[float, float] = (TAU, TAU),
        surface_weight: float = 250.0,
        hard_centre: bool = False,
        scales: Scales | None = None,
    ) -> None:
        if scales is None:
            assert cell is not None
            scales = Scales.of(cell, 2.0 * cell.capacity if current is None else current)
        parameters = paper_factors() if parameters is None else parameters
        super().__init__(cell, scales, parameters, duration, kinetics, seeds, ("radius",))
        self.width, self.start, self.gates = width, float(start), gates
        self.surface_weight = surface_weight
        self.hard_centre = hard_centre
        self.reference = dict(reference) if reference is not None else None
        self._check_parent(parent)
        self.parent = None if parent is None else frozen(parent)
        self._reference = self._reference_row()
        generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        inputs = 1 + len(parameters)
        self.in_time = Affine(inputs, width, generators)
        self.in_radius = Affine(width + 1, width, generators)
        self.potentials = GatedHeads(width, width, 2, generators)
        self.particles = GatedHeads(width, width, 2, generators, bias=False)

    # -- fields -----------------------------------------------------------------------------------

    def potential_fields(self, time: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Potentials (E, n) at times (E, n) and parameters (E, n, d)."""
        found = self._potentials({"time": Jet(time.unsqueeze(0))}, theta)
        return found[0], found[1]

    def voltages(self, time: Tensor, theta: Tensor) -> Tensor:
        """Voltages (E, n) of each network at times (n,) and parameters (n, d); not checked."""
        before = time < self.start
        found = self._positive(time.clamp_min(self.start).unsqueeze(0), theta.unsqueeze(0))
        if self.parent is None or not bool(before.any()):
            return found
        return torch.where(before, self.parent.voltages(time, theta), found)

    def predict(self, time: Tensor, radius: Tensor, theta: Tensor) -> CellFields:
        """Fields of each network at times (n,), relative radii (n,) and parameters (n, d)."""
        self.check(time, theta)
        if bool(((radius < 0.0) | (radius > 1.0)).any()):
            raise UserError("a relative radius lies between 0, the centre, and 1, the surface")
        points = torch.cat([time[:, None], theta, radius[:, None]], 1).to(torch.float64)[None]
        at, rows = self._at(points)
        x = self.stoichiometry_fields(at, rows)
        electrolyte, positive = self._potentials({"time": at["time"]}, rows)
        return CellFields(
            electrolyte, positive, {side: x.value[:, k] for k, side in enumerate(SIDES)}
        )

    def _at(
        self, points: Tensor, first: Sequence[str] = (), second: Sequence[str] = ()
    ) -> tuple[dict[str, Jet], Tensor]:
        """Time and radius as jets (E, n), and parameters (E, n, d)."""
        found = coordinates(points, self.names, first, second)
        return found, points[..., 1:-1]

    def _latent(self, time: Jet, theta: Tensor) -> Jet:
        """Features (E, n, width) of time and parameters."""
        scaled = self.scaled(theta)
        since = (1.0 / self.duration) * time
        columns = [since]
        columns += [Jet(each.unsqueeze(0)) for each in scaled.unbind(-1)]
        return self.in_time(stack(columns)).tanh()

    def _gate(self, time: Jet, of: int = 0) -> Jet:
        """Gate of the potentials, 0, or of the stoichiometries, 1."""
        return gate(time, self.gates[of], self.start)

    def _potentials(self, at: Mapping[str, Jet], theta: Tensor) -> tuple[Tensor, Tensor]:
        """Potentials (E, n) of electrolyte and positive electrode."""
        time = Jet(at["time"].parts[:1])
        N = self.potentials(self._latent(time, theta)).value  # (E, 2, n)
        g = self._gate(time).value
        found, share = self.initial(theta), 1.0
        offset: tuple[Tensor | float, Tensor | float] = (0.0, 0.0)
        if self.parent is not None:
            share = CORRECTION
            then = time.value.clamp_max(self.start) if self.start else time.value
            base = self.parent.potential_fields(then, self._of_parent(theta))
            if self.start:
                found = base
            else:
                offset = base[0] - found[0], base[1] - found[1]
        return tuple((share * AMPLITUDES[k] * N[:, k] + offset[k]) * g + found[k] for k in range(2))

    def _positive(self, time: Tensor, theta: Tensor) -> Tensor:
        """Potential (E, n) of the positive electrode alone, without the cost of the other."""
        moment = Jet(time.unsqueeze(0))
        N = self.potentials.values(self._latent(moment, theta).value, 1)
        g, start = self._gate(moment).value, self.initial(theta)[1]
        if self.parent is None:
            return AMPLITUDES[1] * N * g + start
        then = time.clamp_max(self.start) if self.start else time
        base = self.parent._positive(then, self._of_parent(theta))
        if self.start:
            return CORRECTION * AMPLITUDES[1] * N * g + base
        return (CORRECTION * AMPLITUDES[1] * N + base - start) * g + start

    def stoichiometry_fields(self, at: Mapping[str, Jet], theta: Tensor) -> Jet:
        """Stoichiometries (E, 2, n) of both particles, with derivatives.

        Parameters
        ----------
        at : mapping of str to Jet
            Time and radius, scaled.
        theta : Tensor (E, n, d)
        """
        time, radius = at["time"], at["radius"]
        latent = self._latent(time, theta)
        inward = radius.square() if self.hard_centre else radius
        latent = self.in_radius(cat([latent, stack([inward])])).tanh()
        N = self.particles(latent)
        g = self._gate(time, 1)[:, None]
        begin = self._starts()
        amplitude = torch.stack([-begin[0], 1.0 - begin[1]])  # of a whole discharge
        if self.parent is None:
            return amplitude * (N.sigmoid() * g) + begin
        correction = (SMALL_CORRECTION * amplitude) * (N * g)
        with torch.no_grad():
            if self.start:
                then = {"time": Jet(time.value.clamp_max(self.start).unsqueeze(0))}
                base = self.parent.stoichiometry_fields(
                    {**then, "radius": _only(radius, "radius")}, self._of_parent(theta)
                )
            else:
                base = self.parent.stoichiometry_fields(at, self._of_parent(theta))
        if self.start:
            return correction + base
        return correction + (base - begin) * g + begin

    def _starts(self) -> Tensor:
        """Stoichiometries (2, 1) at the start."""
        begin = [side.start for side in self.scales.sides()]
        return self._lower.new_tensor(begin).unsqueeze(1)

    def _of_parent(self, theta: Tensor) -> Tensor:
        """Where the parent is evaluated: its one reference, if it has one."""
        assert self.parent is not None
        return self.parent.at_reference(theta)

    def at_reference(self, theta: Tensor) -> Tensor:
        """Parameters (E, n, d): those given, or those of the one cell that the network knows."""
        row = self._reference
        return theta if row is None else row.to(theta.device).expand_as(theta)

    # -- training ---------------------------------------------------------------------------------

    def samplers(self) -> Mapping[str, Sampler]:
        """Inside of the particles, and their surfaces and centres."""
        bounds = {"time": (self.start, self.duration)}
        box = Box({**bounds, **self._ranges(), "radius": (0.0, 1.0)}, dict(self.reference or {}))
        return {"interior": box, "boundary": box.hold(radius=1.0)}

    def residuals(self, points: Tensor) -> dict[str, Tensor]:
        """Unweighted residuals (E, n) at points (n, 2 + d): time, parameters, relative radius."""
        rows = points.to(torch.float64).expand(len(self.seeds), *points.shape)
        batch = Batch({"interior": rows, "boundary": rows}, {})
        return {term.name: term.residual.detach() for term in self._physics(batch)}

    def terms(self, batch: Batch) -> list[Term]:
        """Residuals of the equations, and of data where there are some."""
        return [*self._physics(batch), *self._observed()]

    def _physics(self, batch: Batch) -> list[Term]:
        return [
            *(self._diffusion(batch["interior"]) if "interior" in batch.points else []),
            *(self._boundary(batch["boundary"]) if "boundary" in batch.points else []),
        ]

    def _diffusion(self, points: Tensor) -> list[Term]:
        at, theta = self._at(points, ("time", "radius"), ("radius",))
        x, radius = self.stoichiometry_fields(at, theta), at["radius"].value
        terms = []
        for k, (side, law, scales) in enumerate(self._sides()):
            u, factor = x[:, k], self.factor(f"{side}_diffusivity", theta)
            spread = u.dd("radius") + 2.0 / radius * u.d("radius")
            inflow = law.diffusion(u.value) * spread
            inflow = inflow + law.diffusion.slope(u.value) * u.d("radius").square()
            scale = 0.5 * self.scales.hours / (scales.start if k == 0 else 1.0 - scales.start)
            residual = scale * (u.d("time") - factor * inflow)
            terms.append(Term(f"diffusion {side}", residual, 10.0, points="interior"))
        return terms

    def _boundary(self, points: Tensor) -> list[Term]:
        n = points.shape[1]
        centre = torch.cat([points[..., :-1], torch.zeros_like(points[..., -1:])], -1)
        surface = torch.cat([points[..., :-1], torch.ones_like(points[..., -1:])], -1)
        both = torch.cat([surface, centre], 1)
        at, theta = self._at(both, ("radius",))
        x = self.stoichiometry_fields(at, theta)
        time, theta = points[..., 0], points[..., 1:-1]
        potentials = self.potential_fields(time, theta)
        g = self._gate(Jet(time.unsqueeze(0))).value  # of the potentials: lithium flows at once
        terms = []
        for k, (side, law, scales) in enumerate(self._sides()):
            u, slope = x.value[:, k, :n], x.d("radius")[:, k]
            factor = self.factor(f"{side}_diffusivity", theta)
            ratio = scales.diffusion / scales.flux
            flux = ratio * slope[:, :n] + scales.diffusion / (factor * law.diffusion(u))
            solid = potentials[1] if k else torch.zeros_like(potentials[1])
            eta = solid - potentials[0] - law.potential(u)
            exchange = law.exchange(u) * self.factor(f"{side}_exchange_current", theta)
            carried = exchange * current_ratio(eta, self.scales.thermal, self.kinetics)
            made = {
                f"kinetics {side}": (carried / scales.density - 1.0, 1.0),
                f"surface {side}": (g * flux, self.surface_weight),
                f"centre {side}": (ratio * factor * slope[:, n:], 1.0),
            }
            terms += [
                Term(name, residual, weight, BOUNDARY, "boundary")
                for name, (residual, weight) in made.items()
            ]
        return terms

    def _observed(self) -> list[Term]:
        data = self.data
        if data is None:
            return []
        found = self.potential_fields(data.at[None, :, 0], data.at[None, :, 1:])
        weight = 1.0 if data.weight is None else data.weight
        terms = [Term("voltage", (found[1] - data.voltage) / AMPLITUDES[1], weight, DATA)]
        if data.electrolyte is not None:
            residual = (found[0] - data.electrolyte) / AMPLITUDES[0]
            terms.append(Term("electrolyte", residual, weight, DATA))
        if data.inside is not None and data.stoichiometry is not None:
            at, theta = self._at(data.inside[None])
            x = self.stoichiometry_fields(at, theta).value
            begin = self._starts()
            amplitude = torch.stack([begin[0], 1.0 - begin[1]])
            residual = (x - data.stoichiometry.T) / amplitude
            weight = 1.0 if data.inside_weight is None else data.inside_weight
            terms += [
                Term(f"stoichiometry {side}", residual[:, k], weight, DATA)
                for k, side in enumerate(SIDES)
            ]
        return terms

    def _sides(self) -> list[tuple[str, Any, Any]]:
        return list(zip(SIDES, self.laws(), self.scales.sides(), strict=True))

    # -- plumbing ---------------------------------------------------------------------------------

    def _check_parent(self, parent: BatteryPINN | None) -> None:
        if self.reference is not None and set(self.reference) != set(self.parameters_space.names):
            raise UserError(f"a reference has a value of each of {self.parameters_space.names}")
        if parent is None:
            if self.start:
                raise UserError("a level that starts later needs a parent until then")
            return
        same = parent.scales == self.scales and parent.kinetics == self.kinetics
        if not same or parent.parameters_space.names != self.parameters_space.names:
            raise UserError("the parent was trained on another cell, current, law or parameters")
        if len(parent.seeds) not in (1, len(self.seeds)):
            raise UserError(f"{len(self.seeds)} networks need as many parents, or one")
        if not parent.start <= self.start < self.duration:
            raise UserError("a level starts when its parent does, or later")
        if (self.start or self.duration) > parent.duration:
            raise UserError(f"the parent ends at {parent.duration:g} s, before it is needed")

    def _reference_row(self) -> Tensor | None:
        if self.reference is None:
            return None
        row = [self.reference[name] for name in self.parameters_space.names]
        return torch.tensor(row, dtype=torch.float64)

    def settings(self) -> dict[str, Any]:
        """JSON-able arguments that make an untrained twin."""
        return {
            **super().settings(),
            "width": self.width,
            "reference": self.reference,
            "start": self.start,
            "gates": list(self.gates),
            "hard_centre": self.hard_centre,
            "parent": None if self.parent is None else self.parent.settings(),
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Untrained twin of the network that `settings` described."""
        parent = settings["parent"]
        return cls(
            **cls._arguments(settings),
            width=settings["width"],
            reference=settings["reference"],
            parent=None if parent is None else cls.from_settings(parent),
            start=settings["start"],
            gates=(settings["gates"][0], settings["gates"][1]),
            hard_centre=settings["hard_centre"],
        )


class HierarchicalPINN:
    """Levels of a hierarchy, each of which corrects the one before.

    Parameters
    ----------
    stages : sequence of BatteryPINN
        In order; each has the one before as its parent.
    """

    def __init__(self, stages: Sequence[BatteryPINN]) -> None:
        if not stages:
            raise UserError("a hierarchy needs at least one level")
        for below, above in pairwise(stages):
            if above.parent is not below:
                raise UserError("each level of a hierarchy has the one before as its parent")
        self.stages = tuple(stages)

    def fit(
        self,
        trainings: Sequence[Training | None],
        listener: Listener | None = None,
        data: CellData | None = None,
    ) -> list[History]:
        """Train one level after the other; a level with None is kept as it is."""
        if len(trainings) != len(self.stages):
            raise UserError(f"{len(self.stages)} levels need as many trainings")
        return [
            stage.fit(training, listener, data if stage.reference is None else None)
            for stage, training in zip(self.stages, trainings, strict=True)
            if training is not None
        ]

    @property
    def last(self) -> BatteryPINN:
        """The finest level, which predicts, is saved, and is calibrated."""
        return self.stages[-1]

    def voltage(self, time: Tensor, theta: Tensor) -> Tensor:
        """Mean voltage (n, T) of the finest level."""
        return self.last.voltage(time, theta)


def _only(jet: Jet, name: str) -> Jet:
    """Jet with the derivatives along one coordinate alone."""
    first = (name,) if name in jet.first else ()
    return jet.along(first, (name,) if name in jet.second else ())
