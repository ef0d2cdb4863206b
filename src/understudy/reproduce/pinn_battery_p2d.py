r"""Claims of Hassanaly et al. (2024, arXiv 2312.17336), measured.

The cell is the paper's, discharged at 2C for 1350 s; unknown
are the factors of the negative exchange current and of the positive diffusivity. The truth is
PyBaMM's Doyle-Fuller-Newman model with the same laws.

The paper's training code was never published, so the network itself is a reconstruction
(`understudy.models.physics.battery_p2d`). All networks have one single-particle network as parent,
trained first on its own equations and its own solver's curves at the four corners. They start with
the linear law of kinetics and go on with that of Butler and Volmer after half of the steps. They
are trained together, one pass for all, three seeds of each: with the voltages of 4, 9 and 16
discharges, or of none; with the charge balance of both electrodes, and without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from understudy.core.linalg import one_thread
from understudy.data.cells import hassanaly2024
from understudy.models.physics.battery import CellData
from understudy.models.physics.battery_p2d import P2DPINN, ChargeBalance
from understudy.models.physics.battery_spm import BatteryPINN
from understudy.models.physics.pinn import Training, gauss_legendre
from understudy.reproduce.battery.curves import (
    CORNERS,
    Calibrations,
    Curves,
    box_grid,
    of_networks,
    rivals,
    seconds_of,
)
from understudy.reproduce.claims import Claim, Scale
from understudy.simulate.battery import PyBaMMCell, SingleParticleModel

EVERY = 4
"""Times of a discharge from one that a network is shown to the next."""

_ABSTRACT = "Abstract"
_ARMS = (
    ("4 discharges", 2, True),
    ("4 discharges, no balance", 2, False),
    ("equations alone", 0, True),
    ("equations alone, no balance", 0, False),
    ("9 discharges", 3, True),
    ("16 discharges", 4, True),
)
"""Name, side of the square of discharges that are shown, and whether charge is balanced."""


@dataclass(frozen=True)
class _Size:
    """What a scale spends."""

    parent: int
    steps: int
    polish: int
    points: int
    seeds: int
    grid: int
    fine: int
    noises: int
    timed: int
    seconds: float


_SIZES = {
    Scale.SMOKE: _Size(3, 3, 1, 8, 2, 4, 7, 2, 10, 1.0),
    Scale.CPU: _Size(1500, 1200, 20, 32, 3, 15, 41, 3, 1000, 8.0),
    Scale.PAPER: _Size(30_000, 30_000, 10_000, 128, 3, 15, 61, 10, 1000, 120.0),
}


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
    seed : int
        The first of the networks' seeds.
    """
    with one_thread():
        study = _Study(_SIZES[scale], seed)
        return [
            *_low_data(study),
            *_regularisers(study),
            *_speed(study),
            *_calibration(study),
        ]


class _Study:
    """The truth, and networks of all arms."""

    def __init__(self, size: _Size, seed: int) -> None:
        self.size = size
        self.seeds = tuple(range(seed, seed + size.seeds))
        self.solver = SingleParticleModel()
        self.times = torch.tensor(self.solver.times, dtype=torch.float64)
        self.peer = PyBaMMCell(
            hassanaly2024(), "DFN", 0.0378, self.solver.times, space=self.solver.space
        )
        self.test = self._test()
        self.voltage = self.solved(self.test)
        self.corners = self.solved(torch.tensor(CORNERS, dtype=torch.float64))
        self.whole = self._trained()
        self.errors = self._errors()

    @staticmethod
    def _test() -> Tensor:
        """(2, 2) and eight random parameters (9, 2)."""
        g = torch.Generator().manual_seed(12)
        low, high = torch.tensor([0.5, 1.0]), torch.tensor([4.0, 10.0])
        random = low + (high - low) * torch.rand(8, 2, generator=g)
        return torch.cat([torch.tensor([[2.0, 2.0]]), random]).double()

    def solved(self, theta: Tensor) -> Tensor:
        """Voltages (n, T) of the truth at parameters (n, 2)."""
        table = pd.DataFrame(theta.numpy(), columns=self.solver.space.names)
        return self.peer.curve(table)[1]

    def _parent(self) -> BatteryPINN:
        corners = torch.tensor(CORNERS, dtype=torch.float64)
        few = self.times[::EVERY]
        linear = SingleParticleModel(kinetics="linear").evaluate(corners)
        data = CellData(_rows(few, corners), linear[:, ::EVERY].reshape(-1))
        parent = BatteryPINN(
            hassanaly2024(),
            seeds=self.seeds[:1],
            gates=(1.0, 300.0),
            surface_weight=30.0,
            hard_centre=True,
        )
        n = self.size.points
        parent.fit(
            Training(
                adam_steps=self.size.parent,
                lbfgs_steps=self.size.polish,
                rate=1e-2,
                last_rate=5e-5,
                optimizer="soap",
                points={"interior": 32 * n, "boundary": 16 * n},
                batches=8,
                groups={"data": 300.0},
            ),
            data=data,
        )
        return parent

    def _data(self) -> CellData:
        """Voltages of all squares of discharges; weights (E, n) say which a network is shown."""
        theta, shown = _squares()
        few = self.times[::EVERY]
        weights = []
        for _, side, _ in _ARMS:
            mask = shown.get(side, torch.zeros(len(theta), dtype=torch.float64))
            share = mask.mean().clamp_min(1e-12)
            weights.append((mask / share.sqrt()).repeat_interleave(len(few)))
        weight = torch.stack(weights).repeat_interleave(len(self.seeds), 0)
        voltage = self.solved(theta)[:, ::EVERY].reshape(-1)
        return CellData(_rows(few, theta), voltage, weight=weight)

    def _trained(self) -> P2DPINN:
        k, n = len(self.seeds), self.size.points
        model = P2DPINN(
            hassanaly2024(),
            kinetics="linear",
            seeds=self.seeds * len(_ARMS),
            parent=self._parent(),
            regularisers=(ChargeBalance(),),
            gates=(1.0, 300.0),
        )
        balanced = torch.tensor([float(on) for _, _, on in _ARMS], dtype=torch.float64)
        groups: Mapping[str, float | Tensor] = {
            "data": 1000.0,
            "regularisation": balanced.repeat_interleave(k),
        }
        training = Training(
            adam_steps=self.size.steps // 2,
            lbfgs_steps=0,
            rate=1e-2,
            last_rate=1e-3,
            optimizer="soap",
            points={"interior": 8 * n, "ends": 2 * n, "integrals": 2 * n},
            batches=8,
            groups=groups,
        )
        data = self._data()
        model.fit(training, data=data)
        model.kinetics = "butler-volmer"
        model.fit(replace(training, rate=3e-3, last_rate=1e-4), data=data)
        return model

    def arm(self, name: str) -> slice:
        """Rows of the networks of an arm."""
        at = [arm[0] for arm in _ARMS].index(name)
        return slice(at * len(self.seeds), (at + 1) * len(self.seeds))

    def _errors(self) -> Tensor:
        """Mean |dV| (E,) of every network at the test, V."""
        with torch.no_grad():
            rows = _rows(self.times, self.test)
            found = self.whole.voltages(rows[:, 0], rows[:, 1:])
        return (found - self.voltage.reshape(-1)).abs().mean(1)

    def by_seed(self, values: Tensor) -> dict[int, float]:
        """One value a seed."""
        return dict(zip(self.seeds, values.tolist(), strict=True))

    def part(self, name: str, networks: int | None = None) -> P2DPINN:
        """Networks of an arm as a model of their own."""
        rows, E = self.arm(name), len(self.whole.seeds)
        rows = slice(rows.start, rows.start + (networks or len(self.seeds)))
        empty = P2DPINN(
            hassanaly2024(),
            seeds=self.whole.seeds[rows],
            parent=self.whole.parent,
            gates=self.whole.gates,
        )
        state = {
            key: value
            if key.startswith("parent.")
            else value.reshape(E, -1, *value.shape[1:])[rows].flatten(0, 1)
            for key, value in self.whole.state_dict().items()
        }
        empty.load_state_dict(state)
        return empty


def _rows(times: Tensor, theta: Tensor) -> Tensor:
    """Rows (n T, 3) of time and parameters."""
    return torch.cat([times.repeat(len(theta))[:, None], theta.repeat_interleave(len(times), 0)], 1)


def _squares() -> tuple[Tensor, dict[int, Tensor]]:
    """Parameters (n, 2) of all discharges, and which of them are in the square of each side."""
    squares = {side: {tuple(row) for row in box_grid(side).tolist()} for side in (2, 3, 4)}
    every = sorted(set().union(*squares.values()))
    masks = {
        side: torch.tensor([float(row in own) for row in every], dtype=torch.float64)
        for side, own in squares.items()
    }
    return torch.tensor(every, dtype=torch.float64), masks


# -- claims ----------------------------------------------------------------------------------------


def _low_data(study: _Study) -> list[Claim]:
    mine = {name: study.errors[study.arm(name)] for name, _, _ in _ARMS}
    four = mine["4 discharges"]
    spm = study.solver.evaluate(study.test)
    span = float((study.voltage.amax(0) - study.voltage.amin(0)).mean())
    base = float((spm - study.voltage).abs().mean())
    said = (
        f"the single-particle solver itself is off by {1e3 * base:.3g} mV; the curves of the test "
        f"span {1e3 * span:.3g} mV in the mean"
    )
    claims = [
        Claim.over_seeds(
            study.by_seed(1e3 * four),
            statement="With the equations and four discharges the surrogate is off by about 10 mV.",
            paper_figure=f"{_ABSTRACT}: about 10 mV; bar 15 mV",
            metric="mean |dV| at unseen parameters, mV",
            bar=15.0,
            direction="at most",
            reason=said,
        )
    ]
    for name in ("9 discharges", "16 discharges"):
        claims.append(
            Claim.over_seeds(
                study.by_seed(mine[name] / four),
                statement=f"With {name} it is better than with four.",
                paper_figure=f"{_ABSTRACT}: the error falls with more data",
                metric="mean |dV| over that with four discharges",
                bar=1.0,
                direction="at most",
            )
        )
    for name, rival in rivals(
        study.corners, study.times, study.size.seconds, study.seeds[0]
    ).items():
        error = _rival_error(study, rival)
        claims.append(
            Claim.over_seeds(
                study.by_seed(error / four),
                statement=f"The network is better than {name} of the same four discharges.",
                paper_figure="Not in the paper: an honest baseline",
                metric=f"mean |dV| at unseen parameters of {name}, over the network's",
                bar=1.0,
                direction="at least",
                reason=f"{name}: {1e3 * error:.3g} mV",
            )
        )
    return claims


def _rival_error(study: _Study, rival: Curves) -> float:
    return float((rival(study.test)[0] - study.voltage).abs().mean())


def _balances(study: _Study) -> Tensor:
    """Mean distance (E,) of the mean of R over an electrode from 1, at random points."""
    nodes, weights = gauss_legendre(12, 0.0, 1.0)
    g = torch.Generator().manual_seed(77)
    low, high = torch.tensor([10.0, 0.5, 1.0]), torch.tensor([1350.0, 4.0, 10.0])
    points = (low + (high - low) * torch.rand(100, 3, generator=g)).double()
    rows = points.repeat(len(nodes), 1)
    depth = nodes.repeat_interleave(len(points))
    away = []
    with torch.no_grad():
        for region in ("negative", "positive"):
            R = study.whole.predict(rows[:, 0], depth, rows[:, 1:], region)["current"]
            mean = (weights[:, None] * R.reshape(-1, len(nodes), len(points))).sum(1)
            away.append((mean - 1.0).abs().mean(1))
    return torch.stack(away).mean(0)


def _regularisers(study: _Study) -> list[Claim]:
    balance = _balances(study)
    claims = []
    for name in ("equations alone", "4 discharges"):
        with_, without = study.arm(name), study.arm(f"{name}, no balance")
        ratio = study.errors[without] / study.errors[with_]
        claims += [
            Claim.over_seeds(
                study.by_seed(ratio),
                statement=f"Without the charge balance voltages are worse ({name}).",
                paper_figure=f"{_ABSTRACT}: regularisation is needed; the bar is ours",
                metric="mean |dV| without the balance over that with it",
                bar=1.5,
                direction="at least",
                reason=f"{1e3 * float(study.errors[with_].mean()):.3g} mV with it, "
                f"{1e3 * float(study.errors[without].mean()):.3g} mV without",
            ),
            Claim.over_seeds(
                study.by_seed(balance[without]),
                statement=f"Without it electrodes carry another current than the cell's ({name}).",
                paper_figure=f"{_ABSTRACT}: regularisation is needed; the bar is ours",
                metric="mean |integral of j over the electrode / current - 1| without the balance",
                bar=0.2,
                direction="at least",
                reason=f"with it {float(balance[with_].mean()):.3g}",
            ),
        ]
    return claims


def _speed(study: _Study) -> list[Claim]:
    n = study.size.timed
    single = study.part("4 discharges", 1)
    g = torch.Generator().manual_seed(3)
    theta = torch.tensor([0.5, 1.0]) + torch.tensor([3.5, 9.0]) * torch.rand(n, 2, generator=g)
    theta = theta.double()

    def network(rows: Tensor) -> None:
        with torch.no_grad():
            for part in rows.split(100):
                single.voltage(study.times, part)

    few = pd.DataFrame(theta[:5].numpy(), columns=study.solver.space.names).to_dict("records")
    one = seconds_of(lambda: study.peer.run(few[0]), 5)
    many = seconds_of(lambda: [study.peer.run(row) for row in few], 3) / len(few)
    alone = seconds_of(lambda: network(theta[:1]), 21)
    together = seconds_of(lambda: network(theta), 3) / n
    said = (
        f"PyBaMM takes {1e3 * one:.3g} ms for a curve of 100 times; the network {1e3 * alone:.2g} "
        f"ms, and {1e3 * together:.2g} ms for each of {n} at once; one thread"
    )
    return [
        Claim(
            statement="The surrogate is far faster than the standard integrator, for one curve.",
            paper_figure=f"{_ABSTRACT}: 2250 times; expected on a CPU 1e2 to 1e4",
            metric="CPU time of PyBaMM's DFN over that of the network, one curve of 100 times",
            bar=100.0,
            direction="at least",
            measured=one / alone,
            seeds=study.seeds[:1],
            reason=said,
        ),
        Claim(
            statement="It is, for a thousand sets of parameters at once.",
            paper_figure=f"{_ABSTRACT}: 2250 times; expected on a CPU 1e2 to 1e4",
            metric="CPU time of PyBaMM's DFN over that of the network, each of 1,000 curves",
            bar=100.0,
            direction="at least",
            measured=many / together,
            seeds=study.seeds[:1],
        ),
    ]


def _calibration(study: _Study) -> list[Claim]:
    size, truth = study.size, torch.tensor([2.0, 2.0], dtype=torch.float64)
    theta = box_grid(size.fine)
    tables = {"reference": (_splined(study), torch.zeros(1))}
    for name in ("4 discharges", "16 discharges"):
        tables[f"network, {name}"] = of_networks(study.part(name), theta, study.times)
    found_rivals = rivals(study.corners, study.times, size.seconds, study.seeds[0])
    tables |= {name: rival(theta) for name, rival in found_rivals.items()}
    curve = study.solved(truth[None])[0]
    found = Calibrations.of(tables, theta, curve, truth, size.noises)
    name = "network, 4 discharges"
    return [
        Claim.over_seeds(
            found.held[name],
            statement="The 95 % region of the network's posterior holds the truth.",
            paper_figure="Calibration from a synthetic voltage with 3 mV of noise at (2, 2)",
            metric="share of noise draws in which it does, four discharges",
            bar=0.9,
            direction="at least",
            reason=found.said(),
        ),
        Claim.over_seeds(
            found.shift[name],
            statement="Calibration through the network finds the posterior of the solver itself.",
            paper_figure="Calibration from a synthetic voltage; the bar is that of Part I",
            metric="largest distance of a posterior mean from the solver's, in its deviations",
            bar=1.0,
            direction="at most",
        ),
    ]


def _splined(study: _Study) -> Tensor:
    """Voltages (fine^2, T) between discharges on an even grid, by bicubic splines."""
    from scipy.interpolate import RectBivariateSpline

    side, fine = study.size.grid, study.size.fine
    a, b = (torch.linspace(low, high, side).double() for low, high in ((0.5, 4.0), (1.0, 10.0)))
    known = study.solved(box_grid(side)).reshape(side, side, -1)
    x, y = (torch.linspace(low, high, fine).double() for low, high in ((0.5, 4.0), (1.0, 10.0)))
    degree = min(3, side - 1)
    columns = [
        torch.from_numpy(
            RectBivariateSpline(a.numpy(), b.numpy(), known[..., t].numpy(), kx=degree, ky=degree)(
                x.numpy(), y.numpy()
            )
        ).reshape(-1)
        for t in range(known.shape[-1])
    ]
    return torch.stack(columns, 1)
