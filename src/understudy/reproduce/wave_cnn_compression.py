"""Claims of convolutions compressed a priori for waves (arXiv 2304.04964), measured.

The task is reconstructed, for the paper's data are not public: a pulse in a square of random speed
(:class:`understudy.simulate.pde.wave.Wave`), whose displacement and velocity a residual network of
eight convolutions of 5 x 5 points carries on by eight steps of the solver. Dense convolutions and
one-way filters of one, two and four terms, and of shared ones, are trained for as many steps on
the same clips; the two ends of the network stay dense and are counted. Which rank stands for the
method is decided by the validation runs, among those with a fifth of the weights or fewer.
Learning rates were chosen on other data, of 3e-3 and 1e-2 for dense and per-filter networks; the
others have the latter.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import fmean

from torch import nn

from understudy.core.cost import count_macs
from understudy.core.linalg import one_thread
from understudy.nn.one_way_network import set_way
from understudy.reproduce.claims import Claim, Scale
from understudy.reproduce.waves.costs import Seconds, timed, training_bytes
from understudy.reproduce.waves.networks import (
    RANKS,
    WAYS,
    dense_network,
    narrow_network,
    one_way_network,
    shared_network,
)
from understudy.reproduce.waves.setting import SIZES, Size, simulated, zero_fields
from understudy.reproduce.waves.training import Bench, Fit, Fits

_FEWER = 5.0
"""Quotient of weights, dense over one-way, from which on a rank may stand for the method."""


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` has 31 x 31 points and 16 channels, ``paper`` 255 x 255 and 64 on a GPU.
    seed : int
        Of the first repetition; the others follow it.
    """
    size = SIZES[scale]
    seeds = range(seed, seed + size.seeds)
    with one_thread():
        runs = {s: simulated(size, s) for s in seeds}
        bench = Bench(size, runs)
        dense = bench.fits("dense", partial(dense_network, size))
        ways = {rank: bench.fits("one-way", partial(one_way_network, size, rank)) for rank in RANKS}
        shared = bench.fits("one-way", partial(shared_network, size))
        rank = _chosen(dense, ways)
        weights = next(iter(ways[rank].values())).weights
        narrow = bench.fits("narrow", partial(narrow_network, size, weights))
        cut = {s: bench.truncated(fit.model, rank, s) for s, fit in dense.items()}
        few = {
            "dense": bench.fits("dense", partial(dense_network, size), few=True),
            "one-way": bench.fits("one-way", partial(one_way_network, size, rank), few=True),
        }
        return [
            *_errors(size, dense, ways, shared, rank),
            _overfitting(few, rank),
            *_times(size, seed, rank),
            *_controls(ways[rank], narrow, cut, rank),
        ]


def _chosen(dense: Fits, ways: Mapping[int, Fits]) -> int:
    """Rank of the least validation error among those of few enough weights; else the smallest."""
    some = min(dense)
    small = [r for r, fits in ways.items() if dense[some].weights >= _FEWER * fits[some].weights]
    return min(small or [min(ways)], key=lambda r: fmean(f.held_one for f in ways[r].values()))


# -- claims ---------------------------------------------------------------------------------


def _errors(
    size: Size, dense: Fits, ways: Mapping[int, Fits], shared: Fits, rank: int
) -> list[Claim]:
    rows = [
        _row("dense", dense),
        *(_row(f"rank {r}", fits) for r, fits in ways.items()),
        _row("shared", shared),
    ]
    table = f"errors of a step and of {size.rolled}: " + "; ".join(rows)
    before, after = (next(iter(fits.values())).model.network for fits in (dense, ways[rank]))
    held = f"rank {rank}, of the least validation error among ranks of a fifth of the weights"
    return [
        Claim.over_seeds(
            _ratios(ways[rank], dense, "one"),
            statement="One-way convolutions carry waves on by a step as well as dense ones",
            paper_figure="abstract: equivalent performance",
            metric="relative error of a step, one-way over dense, equal steps",
            bar=1.2,
            direction="at most",
            reason=f"{held}; {table}",
        ),
        Claim.over_seeds(
            _ratios(ways[rank], dense, "rolled"),
            statement=f"They do so over {size.rolled} steps",
            paper_figure="abstract: equivalent performance",
            metric=f"relative error after {size.rolled} steps, one-way over dense",
            bar=1.2,
            direction="at most",
            reason=f"rank {rank}; errors as above",
        ),
        Claim.over_seeds(
            {seed: fit.weights / ways[rank][seed].weights for seed, fit in dense.items()},
            statement="They have fewer trainable parameters",
            paper_figure="abstract: fewer parameters and less memory",
            metric="parameters of the whole network, dense over one-way",
            bar=_FEWER,
            direction="at least",
            reason=(
                f"rank {rank}; the two ends stay dense; MACs a field "
                f"{count_macs(before, zero_fields(size, 1)):,} and "
                f"{count_macs(after, zero_fields(size, 1)):,}"
            ),
        ),
        _memory(size, before, rank, min(dense)),
    ]


def _memory(size: Size, dense: nn.Module, rank: int, seed: int) -> Claim:
    """Bytes of training, with the filters computed as they are unless told otherwise."""
    small = one_way_network(size, rank)
    before, after = training_bytes(dense, size), training_bytes(small, size)
    found = {"dense": before, "one-way": after}
    for way in WAYS:
        found[way] = training_bytes(set_way(one_way_network(size, rank), way), size)
    listed = "; ".join(
        f"{name} {kept / 1e6:.2f} and {most / 1e6:.2f} MB"
        for name, (_, kept, most) in found.items()
    )
    return Claim(
        statement="They need less memory in training",
        paper_figure="abstract: less memory",
        metric=(
            "bytes of weights, gradients, Adam's moments and what is kept for the gradient, "
            "dense over one-way"
        ),
        bar=1.0,
        direction="at least",
        measured=sum(before[:2]) / sum(after[:2]),
        seeds=(seed,),
        reason=(
            f"rank {rank}; weights, gradients and moments {before[0] / 1e6:.2f} and "
            f"{after[0] / 1e6:.2f} MB; kept for the gradient of a batch of {size.batch_size}, and "
            f"most at once while it is computed, gradients included: {listed}"
        ),
    )


def _overfitting(few: Mapping[str, Fits], rank: int) -> Claim:
    def gap(fit: Fit) -> float:
        return 100.0 * (fit.one - fit.train_one)

    both = {seed: gap(fit) - gap(few["dense"][seed]) for seed, fit in few["one-way"].items()}
    rows = "; ".join(
        f"{name} {100 * _mean(fits, 'train_one'):.2f} % in training, "
        f"{100 * _mean(fits, 'one'):.2f} % on tests"
        for name, fits in few.items()
    )
    return Claim.over_seeds(
        both,
        statement="Few runs are overfitted less",
        paper_figure="abstract: overfitting reduced",
        metric="gap of test to training error of a step, one-way less dense, in percent",
        bar=0.0,
        direction="at most",
        reason=f"rank {rank}, trained on few runs; {rows}",
    )


def _times(size: Size, seed: int, rank: int) -> list[Claim]:
    """Time of a prediction and of a step of training, in both layouts, for kernels of 3, 5, 7."""
    predicted: dict[int, Seconds] = {}
    trained: dict[int, Seconds] = {}
    for kernel in (3, 5, 7):
        predicted[kernel], trained[kernel] = timed(size, seed, kernel, rank)
    channels, points, batch, _ = size.timed
    what = f"{channels} channels, {points} x {points} points, {batch} fields"
    entries = [
        ("Predictions take less time", "a prediction", predicted),
        ("A step of training takes less time", "a step of training", trained),
    ]
    return [
        Claim(
            statement=statement,
            paper_figure="abstract: prediction and training time cut",
            metric=(
                f"processor time of {name}, one thread, dense over one-way of rank {rank}, kernels "
                f"of 5 x 5, {what}"
            ),
            bar=1.0,
            direction="at least",
            measured=_best(found[5], "dense") / _best(found[5], f"rank {rank}"),
            seeds=(seed,),
            reason=f"each in its faster layout; {_listed(found)}",
        )
        for statement, name, found in entries
    ]


def _controls(way: Fits, narrow: Fits, cut: Fits, rank: int) -> list[Claim]:
    return [
        Claim.over_seeds(
            _ratios(narrow, way, "one"),
            statement="A narrower dense network of no fewer weights is worse",
            paper_figure="control",
            metric=f"relative error of a step, narrower dense over one-way of rank {rank}",
            bar=1.0,
            direction="at least",
            reason=_row("narrower dense", narrow) + "; " + _row(f"rank {rank}", way),
        ),
        Claim.over_seeds(
            _ratios(cut, way, "one"),
            statement="Dense kernels cut to the same rank after training are much worse",
            paper_figure="control",
            metric=f"relative error of a step, truncated over one-way of rank {rank}",
            bar=2.0,
            direction="at least",
            reason=_row("truncated", cut),
        ),
    ]


# -- in words -------------------------------------------------------------------------------


def _ratios(above: Fits, below: Fits, what: str) -> dict[int, float]:
    return {seed: getattr(fit, what) / getattr(below[seed], what) for seed, fit in above.items()}


def _mean(fits: Fits, what: str) -> float:
    return fmean(getattr(fit, what) for fit in fits.values())


def _row(name: str, fits: Fits) -> str:
    weights = next(iter(fits.values())).weights
    return (
        f"{name} {100 * _mean(fits, 'one'):.2f} % and {100 * _mean(fits, 'rolled'):.1f} % "
        f"({weights:,} weights)"
    )


def _best(found: Seconds, name: str) -> float:
    return min(times[name] for times in found.values())


def _listed(found: Mapping[int, Seconds]) -> str:
    return "; ".join(
        f"{kernel} x {kernel}, {layout}: "
        + ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in times.items())
        for kernel, layouts in found.items()
        for layout, times in layouts.items()
    )
