r"""Physics-informed network of the pseudo-two-dimensional model, with integral regularisers.

After Hassanaly et al. (2024, arXiv 2312.17336). The training code of that paper was never
published: the states, the integral terms R1 and R2 and the hierarchy follow what its companion code
says of them; how they are made dimensionless, R3, R4 and the amplitudes are ours.

**States**, over relative depth z of a region (n, s, p), its thickness L, and relative radius
:math:`\rho`; with the latent features of (t), (t, z) and (t, z, rho) shared by all heads:
:math:`\gamma = c_e / c_e^0 = e^{0.3 N g}`, potentials :math:`\phi_e` and :math:`V` as in
`understudy.models.physics.battery_spm`, :math:`\phi_n = \omega z N` and
:math:`\phi_p = V + \omega (1 - z) N` with :math:`\omega = I L / (\sigma A)`, stoichiometries x, and
the current density of the particles' surface, :math:`J = R J^{SPM}`, R a network output of its own.
With a single-particle parent, its fields are the base of V, phi_e and x, and :math:`R = 1 + N`.

**Residuals**, with :math:`\ell = \ln \gamma`, :math:`B = \epsilon^p`, s = 1, 0, -1 in n, s, p,
:math:`\chi = 2 V_T (1 - t_+) TDF` and
:math:`i = -(B \kappa A / (L I)) (\phi_{e,z} - \chi \ell_z)`, the share of the current that ions
carry:

.. math::
    \tfrac{F c_0 A L}{I} \Big( \epsilon \gamma_t - \tfrac{B}{L^2} (D \gamma_z)_z \Big)
        = (1 - t_+) s R - i\, t_+' \gamma_z, \qquad i_z = s R, \qquad (\phi / \omega)_{zz} = s R,

.. math::
    x_t = \rho^{-2} (\rho^2 d\, x_\rho)_\rho, \qquad
    \tfrac{d_0}{q} x_\rho(1) = - R \tfrac{d_0}{d}, \qquad
    R = \tfrac{2 i_0 \sqrt\gamma}{J^{SPM}} \sinh \tfrac{\eta}{2 V_T},

no flux of ions at the collectors, none of lithium through the centres (the network sees rho
squared), the whole current there in the solid, and continuous
:math:`\ell, \phi_e` and fluxes between regions.

**Regularisers**, by Gauss-Legendre rules at times and parameters of their own:
R1, R2 (`ChargeBalance`): the mean of R over each electrode is 1; R3 (`SaltBalance`): the mean of
:math:`\gamma` over the cell is 1; R4 (`LithiumInventory`): the mean of x over particles and depth
is :math:`x^0 - 3 q t`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import Space
from understudy.data.cells import FARADAY, Cell, Electrolyte, Table
from understudy.models.physics.battery import (
    SIDES,
    CellPINN,
    Kinetics,
    Scales,
    current_ratio,
    paper_factors,
)
from understudy.models.physics.battery_spm import AMPLITUDES, CORRECTION, BatteryPINN
from understudy.models.physics.jet import Jet, cat, coordinates, stack
from understudy.models.physics.networks import Affine, GatedHeads
from understudy.models.physics.pinn import frozen, gate, gauss_legendre
from understudy.models.physics.residuals import (
    BOUNDARY,
    DATA,
    REGULARISATION,
    Batch,
    Box,
    Sampler,
    Term,
)

REGIONS = ("negative", "separator", "positive")
SALT_AMPLITUDE = 0.3
"""Of the logarithm of the salt's relative concentration."""

_SIGN = (1.0, 0.0, -1.0)
_HIGHEST = 4.0  # relative concentration of salt up to which its laws are tabulated
_HEADS = 10  # salt in 3 regions, its potential in 3, two solid potentials, two currents


@dataclass(frozen=True)
class ChargeBalance:
    """R1 and R2: the particles of an electrode carry the whole current.

    Parameters
    ----------
    weight : float
        Inside the square.
    points : int
        Nodes of the rule over an electrode; 64 random ones in the original.
    """

    weight: float = 10.0
    points: int = 8


@dataclass(frozen=True)
class SaltBalance:
    """R3: the electrolyte keeps its salt."""

    weight: float = 10.0
    points: int = 8


@dataclass(frozen=True)
class LithiumInventory:
    """R4: an electrode holds what it held, less what the current took.

    Parameters
    ----------
    weight : float
    points : int
        Nodes along the depth, and along the radius.
    """

    weight: float = 10.0
    points: int = 4


Regulariser: TypeAlias = ChargeBalance | SaltBalance | LithiumInventory


@dataclass(frozen=True)
class SaltLaws:
    """Laws of the electrolyte over its relative concentration, tabulated to 4, and geometry.

    ``factor`` is F c0 A / I, ``thickness`` of each region in m, ``ohm`` the potential that the
    current loses in the solid of each electrode, V.
    """

    diffusivity: Table
    conductivity: Table
    chi: Table
    transference: Table
    factor: float
    thickness: tuple[float, float, float]
    porosity: float
    slowing: float
    per_ampere: float
    ohm: tuple[float, float]

    @classmethod
    def of(cls, cell: Cell, salt: Electrolyte, scales: Scales) -> SaltLaws:
        """Tabulate at 20001 points."""
        T, c0, current = cell.temperature, salt.concentration, scales.current

        def table(law: Any) -> Table:
            return Table.of(lambda u: law(_HIGHEST * c0 * u.clamp_min(1e-6), T))

        def chi(c: Tensor, T: float) -> Tensor:
            return (
                2.0
                * scales.thermal
                * ((1.0 - salt.transference(c, T)) * salt.thermodynamic_factor(c, T))
            )

        thickness = (cell.negative.thickness, salt.separator, cell.positive.thickness)
        through = cell.area * salt.solid_conductivity
        return cls(
            diffusivity=table(salt.diffusivity),
            conductivity=table(salt.conductivity),
            chi=table(chi),
            transference=table(salt.transference),
            factor=FARADAY * c0 * cell.area / current,
            thickness=thickness,
            porosity=salt.porosity,
            slowing=salt.porosity**salt.bruggeman,
            per_ampere=cell.area / current,
            ohm=(current * thickness[0] / through, current * thickness[2] / through),
        )


@dataclass(frozen=True)
class _Depth:
    """Fields over the depth as jets (E, n): by region, and by electrode."""

    salt: list[Jet]
    electrolyte: list[Jet]
    solid: list[Jet]
    current: list[Jet]


class P2DPINN(CellPINN):
    """Physics-informed network of the pseudo-two-dimensional model.

    Parameters
    ----------
    cell : Cell
        With an electrolyte.
    current, duration, parameters, seeds, width
        As of `BatteryPINN`.
    kinetics : {"butler-volmer", "linear"}
    parent : BatteryPINN, optional
        A trained network of the single-particle model; it is frozen.
    regularisers : sequence of Regulariser
        ``(ChargeBalance(),)`` by default.
    gates : (float, float)
        Of the potentials, and of concentrations, s.
    lean : float
        Exponent by which times crowd towards the start.

    Raises
    ------
    UserError
        As `BatteryPINN`; and where the cell has no electrolyte.
    """

    def __init__(
        self,
        cell: Cell | None,
        current: float | None = None,
        duration: float = 1350.0,
        parameters: Space | None = None,
        kinetics: Kinetics = "butler-volmer",
        seeds: Sequence[int] = (0,),
        width: int = 20,
        parent: BatteryPINN | None = None,
        regularisers: Sequence[Regulariser] = (ChargeBalance(),),
        gates: tuple[float, float] = (1.0, 1.0),
        lean: float = 1.0,
        scales: Scales | None = None,
    ) -> None:
        if scales is None:
            assert cell is not None
            scales = Scales.of(cell, 2.0 * cell.capacity if current is None else current)
        parameters = paper_factors() if parameters is None else parameters
        inner = ("depth", "radius")
        super().__init__(cell, scales, parameters, duration, kinetics, seeds, inner)
        if cell is not None and cell.electrolyte is None:
            raise UserError(f"the cell {cell.name!r} has no electrolyte, which this model needs")
        self.width, self.gates, self.lean = width, gates, lean
        self.regularisers = tuple(regularisers)
        self._check_parent(parent)
        self.parent = None if parent is None else frozen(parent)
        generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        self.in_time = Affine(1 + len(parameters), width, generators)
        self.in_depth = Affine(width + 1, width, generators)
        self.in_radius = Affine(width + 1, width, generators)
        self.terminal = GatedHeads(width, width, 1, generators)
        self.depths = GatedHeads(width, width, _HEADS, generators)
        self.particles = GatedHeads(width, width, 2, generators, bias=False)
        salt = None if cell is None else cell.electrolyte
        self._salt = None if cell is None or salt is None else SaltLaws.of(cell, salt, self.scales)

    def _check_parent(self, parent: BatteryPINN | None) -> None:
        if parent is None:
            return
        if parent.scales != self.scales or parent.duration < self.duration:
            raise UserError("the parent was trained on another cell, current or a shorter time")
        if parent.parameters_space.names != self.parameters_space.names:
            raise UserError("the parent was trained on other parameters")
        if len(parent.seeds) not in (1, len(self.seeds)):
            raise UserError(f"{len(self.seeds)} networks need as many parents, or one")

    # -- fields -----------------------------------------------------------------------------------

    def voltages(self, time: Tensor, theta: Tensor) -> Tensor:
        """Voltages (E, n) of each network at times (n,) and parameters (n, d); not checked."""
        return self._terminal(time.unsqueeze(0), theta.unsqueeze(0))

    def predict(
        self, time: Tensor, depth: Tensor, theta: Tensor, region: str, radius: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Fields (E, n) at times (n,), relative depths (n,) of a region and parameters (n, d).

        Returns
        -------
        dict of str to Tensor
            ``salt``, its relative concentration; ``electrolyte``, its potential, V; in electrodes
            ``current``, relative to that of the single-particle model, ``solid``, V, and at
            relative radii ``stoichiometry``.
        """
        if region not in REGIONS:
            raise UserError(f"region is one of {', '.join(REGIONS)}, found {region!r}")
        self.check(time, theta)
        for name, values in (("depth", depth), ("radius", radius)):
            if values is not None and bool(((values < 0.0) | (values > 1.0)).any()):
                raise UserError(f"a relative {name} lies between 0 and 1")
        r = torch.ones_like(depth) if radius is None else radius
        points = torch.cat([time[:, None], theta, depth[:, None], r[:, None]], 1)[None]
        at, rows = self._at(points.to(torch.float64))
        k, fields = REGIONS.index(region), self._depth(at, rows)
        found = {"salt": fields.salt[k].value.exp(), "electrolyte": fields.electrolyte[k].value}
        if region != "separator":
            side = SIDES.index(region)
            omega = self._laws_of_salt().ohm[side] if self._salt else float("nan")
            base = self._terminal(at["time"].value, rows) if side else 0.0
            found["solid"] = base + omega * fields.solid[side].value
            found["current"] = fields.current[side].value
            if radius is not None:
                found["stoichiometry"] = self._stoichiometries(at, rows)[:, side].value
        return found

    def _at(
        self, points: Tensor, first: Sequence[str] = (), second: Sequence[str] = ()
    ) -> tuple[dict[str, Jet], Tensor]:
        """Coordinates as jets (E, n), and parameters (E, n, d)."""
        return coordinates(points, self.names, first, second), points[..., 1:-2]

    def _latent(self, time: Jet, theta: Tensor) -> Jet:
        columns = [(1.0 / self.duration) * time]
        columns += [Jet(each.unsqueeze(0)) for each in self.scaled(theta).unbind(-1)]
        return self.in_time(stack(columns)).tanh()

    def _latent_depth(self, at: Mapping[str, Jet], theta: Tensor) -> Jet:
        latent = self._latent(at["time"], theta)
        return self.in_depth(cat([latent, stack([at["depth"]])])).tanh()

    def _base(self, time: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Potentials (E, n) of the parent less those at the start, or 0."""
        if self.parent is None:
            none = torch.zeros_like(time)
            return none, none
        start = self.initial(theta)
        found = self.parent.potential_fields(time, self.parent.at_reference(theta))
        return found[0] - start[0], found[1] - start[1]

    def _terminal(self, time: Tensor, theta: Tensor) -> Tensor:
        """Voltages (E, n)."""
        N = self.terminal.values(self._latent(Jet(time.unsqueeze(0)), theta).value, 0)
        share = AMPLITUDES[1] * (1.0 if self.parent is None else CORRECTION)
        g = gate(Jet(time.unsqueeze(0)), self.gates[0]).value
        return (share * N + self._base(time, theta)[1]) * g + self.initial(theta)[1]

    def _depth(self, at: Mapping[str, Jet], theta: Tensor) -> _Depth:
        """Fields over the depth at the same relative depth of every region.

        Solid potentials are in units of omega, and that of the positive electrode from V.
        """
        time, z = at["time"], at["depth"]
        N = self.depths(self._latent_depth(at, theta))
        head = [N[:, k] for k in range(_HEADS)]
        slow, fast = gate(time, self.gates[1]), Jet(gate(time, self.gates[0]).parts[:1])
        offset, _ = self._base(time.value, theta)
        start, _ = self.initial(theta)
        one = 0.0 if self.parent is None else 1.0
        return _Depth(
            salt=[SALT_AMPLITUDE * (head[k] * slow) for k in range(3)],
            electrolyte=[
                (AMPLITUDES[0] * _still(head[3 + k]) + offset) * fast + start for k in range(3)
            ],
            solid=[_still(head[6]) * z, _still(head[7]) * (1.0 - z)],
            current=[head[8] + one, head[9] + one],
        )

    def _stoichiometries(self, at: Mapping[str, Jet], theta: Tensor) -> Jet:
        """Stoichiometries (E, 2, n)."""
        time, radius = at["time"], at["radius"]
        plain = {"time": time, "depth": Jet(at["depth"].parts[:1])}
        latent = self._latent_depth(plain, theta)
        N = self.particles(self.in_radius(cat([latent, stack([radius.square()])])).tanh())
        g = gate(time, self.gates[1])[:, None]
        begin = self._lower.new_tensor([s.start for s in self.scales.sides()]).unsqueeze(1)
        amplitude = torch.stack([-begin[0], 1.0 - begin[1]])
        if self.parent is None:
            return amplitude * (N.sigmoid() * g) + begin
        with torch.no_grad():
            at_parent = {"time": time, "radius": radius}
            base = self.parent.stoichiometry_fields(at_parent, self.parent.at_reference(theta))
        return (CORRECTION * amplitude) * (N * g) + base

    # -- training ---------------------------------------------------------------------------------

    def samplers(self) -> Mapping[str, Sampler]:
        """Inside, at the ends of the regions, and where integrals are taken."""
        bounds = {"time": (0.0, self.duration)}
        depths = {"depth": (0.0, 1.0), "radius": (0.0, 1.0)}
        inside = Box({**bounds, **self._ranges(), **depths}, {}, {"time": self.lean})
        return {"interior": inside, "ends": inside, "integrals": inside}

    def _check_trainable(self) -> None:
        super()._check_trainable()
        self._laws_of_salt()

    def residuals(self, points: Tensor) -> dict[str, Tensor]:
        """Unweighted residuals (E, n) at points (n, 3 + d): time, parameters, depth, radius."""
        rows = points.to(torch.float64).expand(len(self.seeds), *points.shape)
        batch = Batch({"interior": rows, "ends": rows, "integrals": rows}, {})
        return {term.name: term.residual.detach() for term in self.terms(batch)}

    def terms(self, batch: Batch) -> list[Term]:
        """Residuals of the equations, the integrals, and data where there are some."""
        found = [*self._interior(batch["interior"]), *self._ends(batch["ends"])]
        for kind in self.regularisers:
            found += self._integral(kind, batch["integrals"])
        data = self.data
        if data is not None:
            V = self._terminal(data.at[None, :, 0], data.at[None, :, 1:])
            weight = 1.0 if data.weight is None else data.weight
            residual = (V - data.voltage) / AMPLITUDES[1]
            found.append(Term("voltage", residual, weight, DATA))
        return found

    def _interior(self, points: Tensor) -> list[Term]:
        at, theta = self._at(points, ("time", "depth", "radius"), ("depth", "radius"))
        depth_at = {
            "time": at["time"].along(("time", "depth"), ("depth",)),
            "depth": at["depth"].along(("time", "depth"), ("depth",)),
        }
        fields = self._depth(depth_at, theta)
        return [*self._salt_terms(fields), *self._particle_terms(at, theta, fields)]

    def _salt_terms(self, fields: _Depth) -> list[Term]:
        laws, terms = self._laws_of_salt(), []
        for k, region in enumerate(REGIONS):
            L, B, s = laws.thickness[k], laws.slowing, _SIGN[k]
            ell, phi = fields.salt[k], fields.electrolyte[k]
            gamma = ell.exp()
            u = gamma.value / _HIGHEST
            R = fields.current[0 if k == 0 else 1].value * s if k != 1 else 0.0 * u
            slope = gamma.d("depth")
            D, D1 = laws.diffusivity(u), laws.diffusivity.slope(u) / _HIGHEST
            kappa, kappa1 = laws.conductivity(u), laws.conductivity.slope(u) / _HIGHEST
            chi, chi1 = laws.chi(u), laws.chi.slope(u) / _HIGHEST
            t, t1 = laws.transference(u), laws.transference.slope(u) / _HIGHEST
            drive = phi.d("depth") - chi * ell.d("depth")
            bend = phi.dd("depth") - chi1 * slope * ell.d("depth") - chi * ell.dd("depth")
            share = laws.per_ampere * B / L
            i, i_z = -share * kappa * drive, -share * (kappa1 * slope * drive + kappa * bend)
            spread = B / L**2 * (D * gamma.dd("depth") + D1 * slope.square())
            gained = laws.factor * L * (laws.porosity * gamma.d("time") - spread)
            mass = gained - (1.0 - t) * R + i * t1 * slope
            terms.append(Term(f"salt {region}", mass, points="interior"))
            terms.append(Term(f"charge {region}", i_z - R, points="interior"))
        return terms

    def _particle_terms(self, at: Mapping[str, Jet], theta: Tensor, fields: _Depth) -> list[Term]:
        inner = {
            "time": at["time"].along(("time", "radius"), ("radius",)),
            "radius": at["radius"].along(("time", "radius"), ("radius",)),
            "depth": at["depth"],
        }
        x, radius = self._stoichiometries(inner, theta), at["radius"].value
        ends = self._surface(at, theta)
        V, terms = self._terminal(at["time"].value, theta), list[Term]()
        g = gate(Jet(at["time"].value.unsqueeze(0)), self.gates[0]).value
        for k, (side, law, scales) in enumerate(
            zip(SIDES, self.laws(), self.scales.sides(), strict=True)
        ):
            factor, R = self.factor(f"{side}_diffusivity", theta), fields.current[k].value
            u, surface, slope = x[:, k], ends.value[:, k], ends.d("radius")[:, k]
            spread = u.dd("radius") + 2.0 / radius * u.d("radius")
            inflow = law.diffusion(u.value) * spread
            inflow = inflow + law.diffusion.slope(u.value) * u.d("radius").square()
            scale = 0.5 * self.scales.hours / (scales.start if k == 0 else 1.0 - scales.start)
            ratio = scales.diffusion / scales.flux
            flux = ratio * slope + R * scales.diffusion / (factor * law.diffusion(surface))
            omega = self._laws_of_salt().ohm[k]
            solid = omega * fields.solid[k].value + (V if k else 0.0)
            place = 0 if k == 0 else 2
            eta = solid - fields.electrolyte[place].value - law.potential(surface)
            exchange = law.exchange(surface) * (0.5 * fields.salt[place].value).exp()
            exchange = exchange * self.factor(f"{side}_exchange_current", theta)
            carried = exchange * current_ratio(eta, self.scales.thermal, self.kinetics)
            bent = fields.solid[k].dd("depth") - _SIGN[place] * R
            made = {
                f"diffusion {side}": (scale * (u.d("time") - factor * inflow), 10.0),
                f"surface {side}": (g * flux, 50.0),
                f"kinetics {side}": (carried / scales.density - R, 1.0),
                f"solid {side}": (bent, 1.0),
            }
            terms += [
                Term(name, residual, weight, points="interior")
                for name, (residual, weight) in made.items()
            ]
        return terms

    def _surface(self, at: Mapping[str, Jet], theta: Tensor) -> Jet:
        """Stoichiometries (E, 2, n) at the surface, with their slopes."""
        rows = {name: Jet(at[name].parts[:1]) for name in ("time", "depth")}
        one = torch.ones_like(at["radius"].value)
        rows["radius"] = Jet(torch.stack([one, one]), ("radius",))
        return self._stoichiometries(rows, theta)

    def _ends(self, points: Tensor) -> list[Term]:
        n = points.shape[1]
        low, high = points.clone(), points.clone()
        low[..., -2], high[..., -2] = 0.0, 1.0
        at, theta = self._at(torch.cat([low, high], 1), ("depth",))
        f, laws = self._depth(at, theta), self._laws_of_salt()
        salt, ions, level = [], [], []
        for k in range(3):
            gamma = f.salt[k].exp()
            u, L = gamma.value / _HIGHEST, laws.thickness[k]
            salt.append(laws.slowing * laws.factor / L * laws.diffusivity(u) * gamma.d("depth"))
            drive = f.electrolyte[k].d("depth") - laws.chi(u) * f.salt[k].d("depth")
            ions.append(-laws.per_ampere * laws.slowing / L * laws.conductivity(u) * drive)
            level.append((f.salt[k].value, f.electrolyte[k].value / AMPLITUDES[0]))
        first, last = slice(0, n), slice(n, 2 * n)
        made: dict[str, tuple[Tensor, ...]] = {
            "salt at collectors": (salt[0][:, first], salt[2][:, last]),
            "ions at collectors": (ions[0][:, first], ions[2][:, last]),
            "solid at collectors": (
                f.solid[0].d("depth")[:, first] + 1.0,
                f.solid[1].d("depth")[:, last] + 1.0,
            ),
            "solid at separator": (
                f.solid[0].d("depth")[:, last],
                f.solid[1].d("depth")[:, first],
            ),
        }
        for k, pair in enumerate(("negative", "positive")):
            here, there = (salt[k][:, last], salt[k + 1][:, first])
            made[f"salt flux {pair}"] = (here - there,)
            made[f"ion flux {pair}"] = (ions[k][:, last] - ions[k + 1][:, first],)
            for j, what in enumerate(("salt", "potential")):
                made[f"{what} step {pair}"] = (level[k][j][:, last] - level[k + 1][j][:, first],)
        return [
            Term(name, torch.cat(parts, 1), 10.0 if "step" in name else 1.0, BOUNDARY)
            for name, parts in made.items()
        ]

    def _integral(self, kind: Regulariser, points: Tensor) -> list[Term]:
        nodes, weights = gauss_legendre(kind.points, 0.0, 1.0)
        nodes, weights = nodes.to(points.device), weights.to(points.device)
        if isinstance(kind, LithiumInventory):
            return self._inventory(kind, points, nodes, weights)
        E, n, d = points.shape
        rows = points.unsqueeze(1).repeat(1, kind.points, 1, 1)
        rows[..., -2] = nodes[:, None]
        at, theta = self._at(rows.reshape(E, -1, d))
        fields = self._depth(at, theta)

        def mean(field: Tensor) -> Tensor:
            return (weights[:, None] * field.reshape(E, kind.points, n)).sum(1)

        if isinstance(kind, ChargeBalance):
            return [
                Term(f"charge balance {side}", mean(R.value) - 1.0, kind.weight, REGULARISATION)
                for side, R in zip(SIDES, fields.current, strict=True)
            ]
        thickness = self._laws_of_salt().thickness
        kept = sum(
            L / sum(thickness) * mean(ell.value.exp())
            for L, ell in zip(thickness, fields.salt, strict=True)
        )
        assert isinstance(kept, Tensor)
        return [Term("salt balance", kept - 1.0, kind.weight, REGULARISATION)]

    def _inventory(
        self, kind: LithiumInventory, points: Tensor, nodes: Tensor, weights: Tensor
    ) -> list[Term]:
        E, n, d = points.shape
        q = kind.points
        rows = points[:, None, None].repeat(1, q, q, 1, 1)
        rows[..., -2], rows[..., -1] = nodes[:, None, None], nodes[:, None]
        at, theta = self._at(rows.reshape(E, -1, d))
        x = self._stoichiometries(at, theta).value.reshape(E, 2, q, q, n)
        shell = 3.0 * weights * nodes.square()
        mean = torch.einsum("ekzrn,z,r->ekn", x, weights, shell / shell.sum())
        terms = []
        for k, (side, scales) in enumerate(zip(SIDES, self.scales.sides(), strict=True)):
            expected = scales.start - 3.0 * scales.flux * points[..., 0]
            scale = 1.0 / (3.0 * abs(scales.flux) * 0.5 * self.scales.hours)
            residual = scale * (mean[:, k] - expected)
            terms.append(Term(f"inventory {side}", residual, kind.weight, REGULARISATION))
        return terms

    # -- plumbing ---------------------------------------------------------------------------------

    def _laws_of_salt(self) -> SaltLaws:
        if self._salt is None:
            raise UserError("a network that was read from a file has no cell and cannot be trained")
        return self._salt

    def settings(self) -> dict[str, Any]:
        """JSON-able arguments that make an untrained twin."""
        return {
            **super().settings(),
            "width": self.width,
            "gates": list(self.gates),
            "parent": None if self.parent is None else self.parent.settings(),
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Untrained twin of the network that `settings` described."""
        parent = settings["parent"]
        return cls(
            **cls._arguments(settings),
            width=settings["width"],
            gates=(settings["gates"][0], settings["gates"][1]),
            parent=None if parent is None else BatteryPINN.from_settings(parent),
        )


def _still(jet: Jet) -> Jet:
    """The same field without its derivative along time, which is not needed."""
    first = tuple(name for name in jet.first if name != "time")
    return jet.along(first, jet.second)
