r"""Claims of Hassanaly et al. (2024, arXiv 2312.17329), measured.

The cell is the paper's, discharged at 2C for 1350 s with linear kinetics; unknown are factors of
the negative exchange current (0.5 to 4) and of the positive diffusivity (1 to 10). The truth is the
conservative `SingleParticleModel` with 32 shells in a particle, an order of magnitude finer in
voltage than what is measured here.

All networks are trained together, one pass for all: three seeds of each of a network that knows
the equations only (one level), one that also sees the discharges at the four corners of the box
(low data), and one that sees these and no equation. The hierarchy is a level at one reference and a
level that corrects it, each with half of the steps at as many points.

Calibration is measured twice: with the surrogate's predictions alone, and with the mean and
covariance of its error in 20 further runs of the solver, drawn from the prior
(`understudy.search.approximation_error`), for every surrogate the same runs.

What differs from the paper, for all networks alike, to train in a tenth of its steps: SOAP in
place of Adam; a network of the square of the radius, so that the centre needs no residual; the gate
of stoichiometries takes 300 s instead of 1 s, and the surface's weight is 30 instead of 250.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from understudy.core.linalg import one_thread
from understudy.data.cells import hassanaly2024
from understudy.models.physics.battery_spm import BatteryPINN
from understudy.models.physics.pinn import Training
from understudy.reproduce.battery.curves import (
    CORNERS,
    Calibrations,
    Curves,
    box_grid,
    errors_of,
    modes,
    of_networks,
    rivals,
    seconds_of,
)
from understudy.reproduce.battery.discharges import (
    UNSEEN,
    Discharges,
    centres,
    corner_data,
    further_runs,
)
from understudy.reproduce.claims import Claim, Scale
from understudy.simulate.battery import PyBaMMCell, SingleParticleModel

REFERENCE = {"negative_exchange_current": 0.5, "positive_diffusivity": 1.0}
_ABSTRACT = "Part II, abstract"


@dataclass(frozen=True)
class _Size:
    """What a scale spends."""

    steps: int
    polish: int
    points: int
    seeds: int
    grid: int
    noises: int
    timed: int
    seconds: float


_SIZES = {
    Scale.SMOKE: _Size(4, 2, 16, 2, 7, 2, 20, 1.0),
    Scale.CPU: _Size(5000, 25, 128, 3, 41, 3, 1000, 10.0),
    Scale.PAPER: _Size(30_000, 10_000, 128, 3, 61, 10, 1000, 120.0),
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
            *_hierarchy(study),
            *_low_data(study),
            *_calibration(study),
            *_speed(study),
        ]


# -- networks --------------------------------------------------------------------------------------


class _Study:
    """Networks of one run, and the truth."""

    def __init__(self, size: _Size, seed: int) -> None:
        self.size, self.truth = size, Discharges.made()
        self.seeds = tuple(range(seed, seed + size.seeds))
        self.data = corner_data(self.truth.model, 50, seed)
        self.one, self.informed, self.blind = self._together()
        self.two = self._hierarchy()
        corners = self.truth.model.evaluate(torch.tensor(CORNERS, dtype=torch.float64))
        self.rivals = rivals(corners, self.truth.times, size.seconds, seed)

    def _training(self, share: float, groups: Mapping[str, float | Tensor]) -> Training:
        n = self.size.points
        return Training(
            adam_steps=int(share * self.size.steps),
            lbfgs_steps=int(share * self.size.polish),
            rate=1e-2,
            last_rate=5e-5,
            optimizer="soap",
            points={"interior": 8 * n, "boundary": 4 * n},
            batches=8,
            groups=groups,
        )

    def _network(self, seeds: Sequence[int], **of: Any) -> BatteryPINN:
        return BatteryPINN(
            hassanaly2024(),
            seeds=seeds,
            gates=(1.0, 300.0),
            surface_weight=30.0,
            hard_centre=True,
            **of,
        )

    def _together(self) -> tuple[BatteryPINN, BatteryPINN, BatteryPINN]:
        """Physics alone, with data, and data alone: three seeds of each in one training."""
        k = len(self.seeds)
        whole = self._network(self.seeds * 3)
        physics = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64).repeat_interleave(k)
        seen = torch.tensor([0.0, 300.0, 300.0], dtype=torch.float64).repeat_interleave(k)
        groups = {"interior": physics, "boundary": physics, "data": seen}
        whole.fit(self._training(1.0, groups), data=self.data)
        return tuple(  # type: ignore[return-value]
            _part(whole, self._network(self.seeds), slice(i * k, (i + 1) * k)) for i in range(3)
        )

    def _hierarchy(self) -> BatteryPINN:
        level = self._network(self.seeds, reference=REFERENCE)
        level.fit(self._training(0.5, {}))
        above = self._network(self.seeds, parent=level)
        above.fit(self._training(0.5, {}))
        return above

    def voltage_errors(self, model: BatteryPINN) -> Tensor:
        """Mean over times of the errors (seeds, n) of each network, V."""
        times, theta = self.truth.times, self.truth.test
        with torch.no_grad():
            rows = times.repeat(len(theta)), theta.repeat_interleave(len(times), 0)
            found = model.voltages(*rows).reshape(-1, len(theta), len(times))
        return (found - self.truth.voltage).abs().mean(-1)

    def stoichiometry_errors(self, model: BatteryPINN) -> Tensor:
        """Relative L1 errors (seeds,) of both stoichiometries over all tests."""
        theta = self.truth.test
        solution = self.truth.model.solve(theta, profiles=True)
        few, radii = torch.arange(3, len(solution.times), 8), centres(self.truth.model)[::4]
        n, T, m = len(theta), len(few), len(radii)
        times = solution.times[few].repeat(n).repeat_interleave(m)
        rows = theta.repeat_interleave(T * m, 0)
        with torch.no_grad():
            found = model.predict(times, radii.repeat(n * T), rows).stoichiometry
        errors = []
        for side, x in found.items():
            exact = solution.profiles[side].expand(n, -1, -1)[:, few, ::4].reshape(-1)
            errors.append((x - exact).abs().sum(1) / exact.abs().sum())
        return torch.stack(errors).mean(0)


def _part(whole: BatteryPINN, empty: BatteryPINN, rows: slice) -> BatteryPINN:
    """Some networks of a stack, as a model of their own."""
    E = len(whole.seeds)
    state = {
        name: value.reshape(E, -1, *value.shape[1:])[rows].flatten(0, 1)
        for name, value in whole.state_dict().items()
    }
    empty.load_state_dict(state)
    return empty


# -- claims ----------------------------------------------------------------------------------------


def _by_seed(study: _Study, values: Tensor) -> dict[int, float]:
    return dict(zip(study.seeds, values.tolist(), strict=True))


def _hierarchy(study: _Study) -> list[Claim]:
    one, two = (study.voltage_errors(model).mean(1) for model in (study.one, study.two))
    inside = [study.stoichiometry_errors(model) for model in (study.one, study.two)]
    said = (
        f"one level is off by {1e3 * float(one.median()):.3g} mV in the median, two by "
        f"{1e3 * float(two.median()):.3g} mV"
    )
    return [
        Claim.over_seeds(
            _by_seed(study, two / one),
            statement="A hierarchy of levels improves a network that knows the equations only, at "
            "equal steps.",
            paper_figure="Abstract: significantly more accurate; the bar is ours",
            metric="mean |dV| of two levels over that of one",
            bar=0.67,
            direction="at most",
            reason=said,
        ),
        Claim.over_seeds(
            _by_seed(study, inside[1] / inside[0]),
            statement="The same holds for the concentrations inside the particles.",
            paper_figure="Abstract: significantly more accurate; the bar is ours",
            metric="relative L1 error of stoichiometries, two levels over one",
            bar=0.67,
            direction="at most",
        ),
    ]


def _rival_error(study: _Study, rival: Curves) -> float:
    rows = study.truth.test[list(UNSEEN)]
    return float((rival(rows)[0] - study.truth.voltage[list(UNSEEN)]).abs().mean())


def _low_data(study: _Study) -> list[Claim]:
    unseen = list(UNSEEN)
    errors = {
        name: 1e3 * study.voltage_errors(model)[:, unseen].mean(1)
        for name, model in (("informed", study.informed), ("blind", study.blind))
    }
    rivals = {name: 1e3 * _rival_error(study, rival) for name, rival in study.rivals.items()}
    mine = errors["informed"]
    claims = [
        Claim.over_seeds(
            _by_seed(study, mine),
            statement="With the equations and discharges at four corners the surrogate is off by "
            "about 2 mV.",
            paper_figure=f"{_ABSTRACT}: about 2 mV for the single-particle model; bar 3 mV",
            metric="mean |dV| at unseen parameters, mV",
            bar=3.0,
            direction="at most",
        ),
        Claim.over_seeds(
            _by_seed(study, errors["blind"] / mine),
            statement="The same network with the same data and no equation is clearly worse.",
            paper_figure="Implied by the low-data setting; the bar is ours",
            metric="mean |dV| without equations over that with them",
            bar=1.5,
            direction="at least",
        ),
    ]
    for name, error in rivals.items():
        claims.append(
            Claim.over_seeds(
                _by_seed(study, error / mine),
                statement=f"The network is better than {name} of the same four discharges.",
                paper_figure="Not in the paper: an honest baseline",
                metric=f"mean |dV| at unseen parameters of {name}, over the network's",
                bar=1.0,
                direction="at least",
                reason=f"{name}: {error:.3g} mV",
            )
        )
    return claims


# -- calibration -----------------------------------------------------------------------------------


_RUNS = 20
_TOO = "a polynomial of modes trained on these runs too"


def _calibration(study: _Study) -> list[Claim]:
    theta, times = box_grid(study.size.grid), study.truth.times
    truth = torch.tensor([2.0, 2.0], dtype=torch.float64)
    curve = study.truth.model.evaluate(truth[None])[0]
    surrogates: dict[str, Curves] = {
        "network": lambda theta: of_networks(study.informed, theta, times),
        **study.rivals,
    }
    tables = {"reference": (study.truth.model.evaluate(theta), torch.zeros(1))}
    tables |= {name: surrogate(theta) for name, surrogate in surrogates.items()}
    common = (theta, curve, truth, study.size.noises)
    alone = Calibrations.of(tables, *common)
    runs = further_runs(study.truth.model, _RUNS, seed=30)
    corners = torch.tensor(CORNERS, dtype=torch.float64)
    every = torch.cat([corners, runs.theta])
    tables[_TOO] = modes(torch.cat([study.truth.model.evaluate(corners), runs.y]), every)(theta)
    helped = Calibrations.of(tables, *common, errors_of(surrogates, runs))
    return [
        *_posterior(
            alone,
            "Calibration through the network finds the posterior of the solver itself.",
            "The 95 % region of the network's posterior holds the truth.",
            "Bayesian calibration from 100 voltages with 3 mV of noise at (2, 2)",
        ),
        *_posterior(
            helped,
            f"It does with the approximation error of {_RUNS} further runs in the likelihood.",
            f"With the approximation error of {_RUNS} further runs the region holds the truth.",
            "Not in the paper (Kaipio & Somersalo 2007); the bars are those above",
        ),
    ]


def _posterior(found: Calibrations, right: str, holds: str, source: str) -> list[Claim]:
    """Where the network's posterior lies, and whether it holds the truth."""
    return [
        Claim.over_seeds(
            found.shift["network"],
            statement=right,
            paper_figure=source,
            metric="largest distance of a posterior mean from the solver's, in its deviations",
            bar=1.0,
            direction="at most",
            reason=found.said(),
        ),
        Claim.over_seeds(
            found.held["network"],
            statement=holds,
            paper_figure=source,
            metric="share of noise draws in which it does",
            bar=0.9,
            direction="at least",
        ),
    ]


# -- speed -----------------------------------------------------------------------------------------


def _speed(study: _Study) -> list[Claim]:
    n, times = study.size.timed, study.truth.times
    single = _part(study.informed, study._network(study.seeds[:1]), slice(0, 1))
    g = torch.Generator().manual_seed(3)
    theta = torch.tensor([0.5, 1.0]) + torch.tensor([3.5, 9.0]) * torch.rand(n, 2, generator=g)
    theta = theta.double()

    def network(rows: Tensor) -> None:
        with torch.no_grad():
            for part in rows.split(100):
                single.voltage(times, part)

    peer = PyBaMMCell(
        hassanaly2024(), space=study.truth.model.space, times=times.tolist(), current=0.0378
    )
    few = pd.DataFrame(theta[:10].numpy(), columns=study.truth.model.space.names).to_dict("records")
    one = seconds_of(lambda: peer.run(few[0]), 9)
    many = seconds_of(lambda: [peer.run(row) for row in few], 3) / len(few)
    own = replace_shells(study.truth.model)
    batch = seconds_of(lambda: own.evaluate(theta), 3) / n
    alone, together = (
        seconds_of(lambda: network(theta[:1]), 21),
        seconds_of(lambda: network(theta), 3) / n,
    )
    said = (
        f"a curve takes PyBaMM {1e3 * one:.2g} ms, the network {1e3 * alone:.2g} ms; of {n} curves "
        f"at once each takes the network {1e3 * together:.2g} ms, and our own solver "
        f"{1e3 * batch:.2g} ms"
    )
    seeds = study.seeds[:1]
    return [
        Claim(
            statement="One curve comes faster from the network than from PyBaMM's solver.",
            paper_figure="Not in the paper for this model; the bar is ours",
            metric="CPU time of PyBaMM's SPM over that of the network, one curve",
            bar=2.0,
            direction="at least",
            measured=one / alone,
            seeds=seeds,
            reason=said,
        ),
        Claim(
            statement="A thousand curves at once do too.",
            paper_figure="Not in the paper for this model; the bar is ours",
            metric="CPU time of PyBaMM's SPM over that of the network, each of 1,000 curves",
            bar=10.0,
            direction="at least",
            measured=many / together,
            seeds=seeds,
        ),
        Claim(
            statement="The network is faster than a solver that takes many parameters at once.",
            paper_figure="Not in the paper: an honest baseline",
            metric="CPU time of `SingleParticleModel` over that of the network, each of 1,000",
            bar=1.0,
            direction="at least",
            measured=batch / together,
            seeds=seeds,
        ),
    ]


def replace_shells(model: SingleParticleModel) -> SingleParticleModel:
    """The same model as a user would run it, with its default mesh."""
    return SingleParticleModel(model.cell, model.current, model.times, model.space, model.kinetics)
