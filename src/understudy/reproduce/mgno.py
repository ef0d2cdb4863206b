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

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median, stdev
from typing import Any, Literal

from torch import Tensor

from understudy.core.cost import count_parameters
from understudy.core.linalg import one_thread
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.sobolev import DifferenceLoss
from understudy.reproduce.claims import Claim, Scale
from understudy.reproduce.elliptic.networks import helmholtz_mgno, mgno, network_of
from understudy.reproduce.elliptic.setting import SIZES, Pairs, darcy_pairs, pairs_of
from understudy.reproduce.elliptic.training import Bench, Fit
from understudy.simulate.pde.helmholtz import Helmholtz

Fits = Mapping[str, Mapping[int, Fit]]


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
    size = SIZES[scale]
    seeds = range(seed, seed + size.seeds)
    with one_thread():
        bench = Bench(size)
        rough = darcy_pairs(size, "rough", seeds)
        on_rough = {
            name: bench.fits(name, partial(network_of, name, size), rough, size.steps)
            for name in ("MgNO", "FNO", "U-Net", "U-NO")
        }
        multiscale = darcy_pairs(size, "multiscale", seeds)
        on_multiscale = {
            name: bench.fits(name, partial(network_of, name, size), multiscale, size.steps)
            for name in ("MgNO", "FNO")
        }
        return [
            *_errors(on_rough, on_multiscale),
            _overfitting(on_rough),
            *_ablations(bench, rough),
            _helmholtz(bench, seeds),
        ]


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
    def gap(fit: Fit) -> float:
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


def _ablations(bench: Bench, rough: Mapping[int, Pairs]) -> list[Claim]:
    """Another padding, and no coarse levels, both against the whole network of equal time."""
    size = bench.size
    whole, circular, flat = (
        bench.fits(name, make, rough, size.short)
        for name, make in (
            ("MgNO", partial(mgno, size)),
            ("MgNO, circular", partial(mgno, size, "circular")),
            ("MgNO, one level", partial(mgno, size, levels=1)),
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


def _helmholtz(bench: Bench, seeds: Sequence[int]) -> Claim:
    size = bench.size
    simulator = Helmholtz(size.points, size.frequency)
    pairs = {seed: pairs_of(simulator, "speed", size, seed) for seed in seeds}
    loss = DifferenceLoss(simulator.grid.spacing, weight=10.0, reduction="sum")
    weights = count_parameters(helmholtz_mgno(size))
    fits = {
        name: bench.fits(f"{name}, Helmholtz", make, pairs, size.short, loss, 1e-5)
        for name, make in (
            ("MgNO", partial(helmholtz_mgno, size)),
            ("FNO", partial(network_of, "FNO", size, weights)),
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


# -- numbers --------------------------------------------------------------------------------


def _defect(model: FieldMap, x: Tensor, shift: int) -> float:
    """By how much shifting before and after differ, over the largest value."""
    moved, still = model.predict(x.roll((shift, shift), (2, 3))), model.predict(x)
    return float((moved - still.roll((shift, shift), (2, 3))).abs().max() / still.abs().max())


def _ratios(above: Mapping[int, Fit], below: Mapping[int, Fit], what: str) -> dict[int, float]:
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
