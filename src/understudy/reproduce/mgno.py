r"""Claims of MgNO (He, Liu & Xu 2024, arXiv 2310.19809), measured.

Pairs are of Darcy's flow, in the media of :mod:`understudy.simulate.pde.darcy`, and of Helmholtz'
equation without flux through its sides. Every network has about as many weights as MgNO, or more,
is trained with the same loss (the paper's :math:`H^1`) on as many steps as take the time of those
of MgNO, which is told from the fastest of some steps of either, in turns, so that a busy machine
changes little. Learning rates, the frequencies and the padding of the FNO and the normalisation of
the U-Net were chosen for each network on other data: rates among 1e-3, 3e-3 and 1e-2, where MgNO
diverges, and up to 3e-2 where 1e-2 was best.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median, stdev
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.field_metrics import relative_l2
from understudy.core.grid import Grid
from understudy.core.linalg import one_thread
from understudy.core.loop import Event
from understudy.core.simulator import FieldSimulator
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.fno import FNO, Pointwise, SpectralConv
from understudy.models.operators.mgno import HelmholtzMgNO, MgNO, Padding
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.sobolev import DifferenceLoss, SobolevLoss
from understudy.models.operators.training import Training
from understudy.models.operators.unet import PlainUNet
from understudy.reproduce.claims import Claim, Scale
from understudy.simulate.pde.darcy import Darcy, Medium
from understudy.simulate.pde.helmholtz import Helmholtz

Loss = Callable[[Tensor, Tensor], Tensor]
_TEST_SEED = 1_000_000_000
_EDGE = 1.0 / 16.0
"""Share of a side that is called near the boundary: four of 64 points."""


@dataclass(frozen=True)
class _Size:
    """What a scale spends: points along a side, pairs, steps of MgNO; and how large it is.

    `short` are its steps where a difference shows early.
    """

    points: int
    train: int
    test: int
    steps: int
    short: int
    seeds: int
    width: int
    depth: int
    levels: int
    modes: int
    frequency: float
    helmholtz_width: int
    helmholtz_depth: int
    batch_size: int = 4
    device: str = "cpu"


_SIZES = {
    Scale.SMOKE: _Size(16, 16, 8, 4, 4, 1, 4, 2, 3, 4, 200.0, 2, 1),
    Scale.CPU: _Size(32, 200, 100, 600, 200, 3, 16, 3, 4, 12, 450.0, 6, 2),
    Scale.PAPER: _Size(256, 1000, 100, 62_500, 62_500, 3, 24, 4, 6, 12, 1000.0, 20, 4, 8, "cuda"),
}

_RATES = {"MgNO": 3e-3, "FNO": 2e-2, "U-Net": 1e-2, "U-NO": 2e-2}
_TIMED = (4, 6)
"""Turns and steps by which times of steps are compared."""


@dataclass(frozen=True)
class _Pairs:
    """Coefficients x and solutions y, ``(N, 1, n, n)``, for training and for tests."""

    grid: Grid
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


@dataclass(frozen=True)
class _Fit:
    """What a training came to: relative errors, means over fields."""

    model: FieldMap
    weights: int
    steps: int
    h1: float
    l2: float
    train_l2: float
    edge: float


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` has 32 x 32 points and 200 pairs, ``paper`` 256 x 256 points and 1000 pairs on a
        GPU.
    seed : int
        Of the first repetition; the others follow it.
    """
    size = _SIZES[scale]
    seeds = range(seed, seed + size.seeds)
    with one_thread():
        bench = _Bench(size)
        rough = _darcy(size, "rough", seeds)
        on_rough = {
            name: bench.fits(name, partial(_network, name, size), rough, size.steps)
            for name in ("MgNO", "FNO", "U-Net", "U-NO")
        }
        multiscale = _darcy(size, "multiscale", seeds)
        on_multiscale = {
            name: bench.fits(name, partial(_network, name, size), multiscale, size.steps)
            for name in ("MgNO", "FNO")
        }
        return [
            *_errors(on_rough, on_multiscale),
            _overfitting(on_rough),
            *_ablations(bench, rough),
            _helmholtz(bench, seeds),
        ]


# -- data -----------------------------------------------------------------------------------


def _darcy(size: _Size, medium: Medium, seeds: Sequence[int]) -> dict[int, _Pairs]:
    simulator = Darcy(size.points, medium)
    return {seed: _pairs(simulator, "coefficient", size, seed) for seed in seeds}


def _pairs(simulator: FieldSimulator, given: str, size: _Size, seed: int) -> _Pairs:
    """Training pairs of a seed; the test pairs are the same for all."""
    first = (seed + 1) * 100_000
    x, y = _solved(simulator, given, range(first, first + size.train))
    test_x, test_y = _solved(simulator, given, range(_TEST_SEED, _TEST_SEED + size.test))
    return _Pairs(simulator.grid, x, y, test_x, test_y)


def _solved(simulator: FieldSimulator, given: str, seeds: range) -> tuple[Tensor, Tensor]:
    x, y = [], []
    for start in range(0, len(seeds), 100):
        runs = pd.DataFrame({"seed": seeds[start : start + 100]})
        x.append(simulator.inputs(runs)[given].unsqueeze(1).float())
        y.append(simulator.fields(runs)[:, 0])
    return torch.cat(x), torch.cat(y)


# -- networks -------------------------------------------------------------------------------


class _UNO(FieldNetwork):
    """A U-shaped neural operator in the manner of U-NO (arXiv 2204.11127).

    Spectral layers whose grids halve twice on the way down and double on the way up, channels
    growing as grids shrink, with the fields of the way down beside those of the way up.
    """

    kind = "u-no"

    def __init__(self, in_channels: int, out_channels: int, modes: int, width: int) -> None:
        super().__init__()
        self.settings = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "modes": modes,
            "width": width,
        }
        half = modes // 2
        self.lift = Pointwise(in_channels + 2, width)
        # (inward, outward, frequencies, change of resolution)
        self.layout = (
            (width, 2 * width, modes, 0.5),
            (2 * width, 4 * width, half, 0.5),
            (4 * width, 2 * width, half // 2, 2.0),
            (4 * width, width, half, 2.0),
        )
        self.spectral = nn.ModuleList(SpectralConv(i, o, (m, m)) for i, o, m, _ in self.layout)
        self.pointwise = nn.ModuleList(Pointwise(i, o) for i, o, _, _ in self.layout)
        self.project = nn.ModuleList([Pointwise(2 * width, 64), Pointwise(64, out_channels)])

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        axes = [torch.arange(n, dtype=u.dtype, device=u.device) / n for n in u.shape[2:]]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(u), -1, -1, -1)
        v = self.lift(torch.cat([u, grid], dim=1))
        kept: list[Tensor] = []
        for spectral, pointwise, (_, _, _, factor) in zip(
            self.spectral, self.pointwise, self.layout, strict=True
        ):
            kept.append(v)
            v = F.gelu(spectral(v, add=pointwise(v)))
            v = F.interpolate(v, scale_factor=factor, mode="bilinear")
            if factor > 1:
                v = torch.cat([v, kept[len(self.layout) - len(kept)]], dim=1)
        hidden, out = self.project
        return torch.as_tensor(out(F.gelu(hidden(v))))


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _no_smaller(make: Callable[[int], FieldNetwork], weights: int) -> FieldNetwork:
    """The first network of rising width that has at least so many weights."""
    width = 1
    while _count(network := make(width)) < weights:
        width += 1
    return network


def _mgno(size: _Size, padding: Padding = "zeros", levels: int | None = None) -> MgNO:
    cycle = [(1, 0)] * ((levels or size.levels) - 1) + [(2, 0)]
    return MgNO(1, 1, size.width, size.depth, cycle, padding_mode=padding, restrict="rhs")


def _helmholtz_mgno(size: _Size) -> HelmholtzMgNO:
    cycle = [(1, 0)] * (min(size.levels, 5) - 1) + [(2, 0)]
    points = (size.points, size.points)
    return HelmholtzMgNO(1, 1, points, size.helmholtz_width, size.helmholtz_depth, cycle)


def _network(name: str, size: _Size, weights: int = 0) -> FieldNetwork:
    """MgNO, or another network of no fewer weights, or than those given."""
    if name == "MgNO":
        return _mgno(size)
    modes = size.modes
    make: dict[str, Callable[[int], FieldNetwork]] = {
        "FNO": lambda w: FNO(1, 1, (modes, modes), w, projection=64, padding=0.25),
        "U-Net": lambda w: PlainUNet(1, 1, 2, features=w, halvings=3, batch_norm=False),
        "U-NO": lambda w: _UNO(1, 1, min(modes, size.points // 4), w),
    }
    return _no_smaller(make[name], weights or _count(_mgno(size)))


# -- training -------------------------------------------------------------------------------


class _Bench:
    """Trains networks for equal times."""

    def __init__(self, size: _Size) -> None:
        self.size = size
        self._costs = {"MgNO": 1.0}

    def fits(
        self,
        name: str,
        make: Callable[[], FieldNetwork],
        pairs: Mapping[int, _Pairs],
        steps: int,
        loss: Loss | None = None,
        weight_decay: float = 1e-4,
    ) -> dict[int, _Fit]:
        """Train a network on the pairs of each seed, for the time of so many steps of MgNO.

        The part of the name before a comma is the network's, and says its learning rate.
        """
        plan = Training(
            batch_size=self.size.batch_size,
            learning_rate=_RATES[name.split(",")[0]],
            weight_decay=weight_decay,
            warmup=0.2,
            floor=0.005,
            ema_decay=None,
            clip_norm=None,
            device=self.size.device,
            interrupt="raise",
        )
        loss = loss or SobolevLoss()
        if name not in self._costs:
            self._costs[name] = self._cost(FieldMap(make(), loss=loss), plan, pairs)
        affordable = max(2, round(steps / self._costs[name]))
        return {
            seed: _trained(make, loss, some, replace(plan, steps=affordable, seed=seed))
            for seed, some in pairs.items()
        }

    def _cost(self, model: FieldMap, plan: Training, pairs: Mapping[int, _Pairs]) -> float:
        """Time of a step over that of a step of MgNO."""
        some = next(iter(pairs.values()))
        yardstick = FieldMap(_mgno(self.size), loss=SobolevLoss())
        turns, steps = _TIMED
        plan = replace(plan, steps=steps, learning_rate=1e-6)
        times = [
            (_fastest_step(model, plan, some), _fastest_step(yardstick, plan, some))
            for _ in range(turns)
        ]
        mine, its = (min(of) for of in zip(*times, strict=True))
        return mine / its


def _fastest_step(model: FieldMap, plan: Training, pairs: _Pairs) -> float:
    ends: list[float] = []

    def tick(event: Event) -> None:
        if plan.device == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    model.fit(pairs.x, pairs.y, grid=pairs.grid, training=plan, listener=tick)
    return min(b - a for a, b in itertools.pairwise(ends))


def _trained(make: Callable[[], FieldNetwork], loss: Loss, pairs: _Pairs, plan: Training) -> _Fit:
    torch.manual_seed(plan.seed)
    model = FieldMap(make(), loss=loss)
    model.fit(pairs.x, pairs.y, grid=pairs.grid, training=plan)
    return _measured(model, pairs, plan.steps)


def _measured(model: FieldMap, pairs: _Pairs, steps: int) -> _Fit:
    predicted, true = model.predict(pairs.test_x), pairs.test_y
    band = max(1, round(_EDGE * true.shape[-1]))
    edge = torch.ones(true.shape[2:], dtype=torch.bool)
    edge[band:-band, band:-band] = False
    return _Fit(
        model=model,
        weights=_count(model.network),
        steps=steps,
        h1=float(DifferenceLoss(pairs.grid.spacing)(predicted, true)),
        l2=float(relative_l2(predicted, true).mean()),
        train_l2=float(relative_l2(model.predict(pairs.x), pairs.y).mean()),
        edge=float(relative_l2(predicted[..., edge], true[..., edge]).mean()),
    )


Fits = Mapping[str, Mapping[int, _Fit]]


def _ratios(above: Mapping[int, _Fit], below: Mapping[int, _Fit], what: str) -> dict[int, float]:
    """Quotient of a measure for each seed."""
    return {seed: getattr(fit, what) / getattr(below[seed], what) for seed, fit in above.items()}


def _middle(values: Mapping[int, float], **claim: Any) -> Claim:
    """Claim on the median over seeds."""
    found = list(values.values())
    return Claim(
        measured=median(found),
        spread=stdev(found) if len(found) > 1 else math.nan,
        seeds=tuple(values),
        **claim,
    )


def _table(fits: Fits, *measures: Literal["h1", "l2", "train_l2", "edge"]) -> str:
    """Medians of errors in percent, weights and steps of each network."""
    names = {"h1": "H1", "l2": "L2", "train_l2": "training L2", "edge": "edge L2"}
    rows = []
    for name, runs in fits.items():
        some = next(iter(runs.values()))
        errors = ", ".join(
            f"{names[what]} {100 * median(getattr(fit, what) for fit in runs.values()):.2f} %"
            for what in measures
        )
        rows.append(f"{name} {errors} ({some.weights:,} weights, {some.steps:,} steps)")
    return "; ".join(rows)


# -- claims ---------------------------------------------------------------------------------


def _errors(on_rough: Fits, on_multiscale: Fits) -> list[Claim]:
    rough, multiscale = (_table(fits, "h1", "l2") for fits in (on_rough, on_multiscale))
    metric = "H1 error of MgNO over that of {}, {} media, equal time and loss, median"
    return [
        _middle(
            _ratios(on_rough["MgNO"], on_rough["FNO"], "h1"),
            statement="On rough media MgNO errs less than an FNO of no fewer weights",
            paper_figure="table of Darcy rough: H1 1.38 %, FNO some 5-8 % (from memory)",
            metric=metric.format("an FNO", "rough"),
            bar=0.6,
            direction="at most",
            reason=rough,
        ),
        _middle(
            _ratios(on_multiscale["MgNO"], on_multiscale["FNO"], "h1"),
            statement="On multiscale media MgNO errs less than an FNO of no fewer weights",
            paper_figure="table of Darcy multiscale: H1 1.76 %, FNO some 5-8 % (from memory)",
            metric=metric.format("an FNO", "multiscale"),
            bar=0.6,
            direction="at most",
            reason=multiscale,
        ),
        _middle(
            _ratios(on_rough["MgNO"], on_rough["U-Net"], "h1"),
            statement="MgNO errs less than a U-Net of no fewer weights",
            paper_figure="table of Darcy rough",
            metric=metric.format("a U-Net", "rough"),
            bar=1.0,
            direction="at most",
            reason="errors as in the first claim",
        ),
        _middle(
            _ratios(on_rough["MgNO"], on_rough["U-NO"], "h1"),
            statement="MgNO errs less than a U-shaped neural operator of no fewer weights",
            paper_figure="table of Darcy rough",
            metric=metric.format("a U-NO", "rough"),
            bar=1.0,
            direction="at most",
            reason="errors as in the first claim",
        ),
    ]


def _overfitting(on_rough: Fits) -> Claim:
    def gap(fit: _Fit) -> float:
        return fit.l2 / fit.train_l2

    both = zip(on_rough["MgNO"].items(), on_rough["FNO"].values(), strict=True)
    return _middle(
        {seed: gap(mgno) / gap(fno) for (seed, mgno), fno in both},
        statement="MgNO overfits less than a spectral operator",
        paper_figure="abstract",
        metric="L2 error on tests over that in training, of MgNO over FNO, rough media, median",
        bar=0.75,
        direction="at most",
        reason=_table(on_rough, "l2", "train_l2"),
    )


def _ablations(bench: _Bench, rough: Mapping[int, _Pairs]) -> list[Claim]:
    """Another padding, and no coarse levels, both against the whole network of equal time."""
    size = bench.size
    whole, circular, flat = (
        bench.fits(name, make, rough, size.short)
        for name, make in (
            ("MgNO", partial(_mgno, size)),
            ("MgNO, circular", partial(_mgno, size, "circular")),
            ("MgNO, one level", partial(_mgno, size, levels=1)),
        )
    )
    shift, first = 2 ** (size.levels - 1), min(circular)
    by_one = _defect(circular[first].model, rough[first].test_x, 1)
    return [
        _middle(
            _ratios(circular, whole, "edge"),
            statement="Boundary conditions enter by the padding",
            paper_figure="section on boundary conditions",
            metric=(
                "L2 error in the outer sixteenth, circular padding over zeros, Dirichlet's "
                "problem, median"
            ),
            bar=2.0,
            direction="at least",
            reason=_table({"zeros": whole, "circular": circular}, "edge", "l2"),
        ),
        _middle(
            {s: _defect(fit.model, rough[s].test_x, shift) for s, fit in circular.items()},
            statement="With circular padding a network commutes with shifts of a periodic field",
            paper_figure="property of the method",
            metric=f"largest deviation after a shift by {shift} points, over the largest value",
            bar=1e-5,
            direction="at most",
            reason=f"after a shift by 1 point {by_one:.2g}",
        ),
        _middle(
            _ratios(flat, whole, "l2"),
            statement="Coarse levels are what couples the whole field",
            paper_figure="ablation",
            metric=f"L2 error with 1 level over that with {size.levels}, rough media, median",
            bar=3.0,
            direction="at least",
            reason=_table({f"{size.levels} levels": whole, "1 level": flat}, "l2", "h1"),
        ),
    ]


def _defect(model: FieldMap, x: Tensor, shift: int) -> float:
    """By how much shifting before and after differ, over the largest value."""
    moved, still = model.predict(x.roll((shift, shift), (2, 3))), model.predict(x)
    return float((moved - still.roll((shift, shift), (2, 3))).abs().max() / still.abs().max())


def _helmholtz(bench: _Bench, seeds: Sequence[int]) -> Claim:
    size = bench.size
    simulator = Helmholtz(size.points, size.frequency)
    pairs = {seed: _pairs(simulator, "speed", size, seed) for seed in seeds}
    loss = DifferenceLoss(simulator.grid.spacing, weight=10.0, reduction="sum")
    weights = _count(_helmholtz_mgno(size))
    fits = {
        name: bench.fits(f"{name}, Helmholtz", make, pairs, size.short, loss, 1e-5)
        for name, make in (
            ("MgNO", partial(_helmholtz_mgno, size)),
            ("FNO", partial(_network, "FNO", size, weights)),
        )
    }
    return _middle(
        _ratios(fits["MgNO"], fits["FNO"], "h1"),
        statement="On Helmholtz' equation without flux at its sides MgNO errs less than an FNO",
        paper_figure="table of Helmholtz; figures not at hand",
        metric="H1 error of MgNO over that of an FNO of no fewer weights, equal time, median",
        bar=1.0,
        direction="at most",
        reason=_table(fits, "h1", "l2"),
    )
