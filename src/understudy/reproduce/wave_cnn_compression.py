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

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from understudy.compress.a_priori import rebuilt
from understudy.core.cost import (
    count_bytes,
    count_macs,
    count_parameters,
    evaluating,
    latencies,
    peak_bytes,
)
from understudy.core.field_metrics import relative_l2
from understudy.core.linalg import one_thread
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.one_step import OneStepModel
from understudy.models.operators.one_way import OneWayNetwork
from understudy.models.operators.training import Training
from understudy.models.operators.wave_cnn import WaveCNN
from understudy.nn.one_way_filters import Way
from understudy.nn.one_way_network import OneWayPlan, set_way
from understudy.reproduce.claims import Claim, Scale
from understudy.simulate.pde.named import draw_parameters
from understudy.simulate.pde.wave import Wave

RANKS = (1, 2, 4)
_SHARED_AS = 2
"""The shared terms are so many that they have the weights of this rank of filters."""
_FEWER = 5.0
_WAYS: tuple[Way, ...] = ("chain", "recomputed", "composed")
"""In which one-way filters can be computed; which is taken unless one is named goes by sizes."""
_FIRST_SEED = 1000
"""Of the training runs of seed 0; learning rates were chosen on runs of smaller ones."""
_TEST_SEED = 1_000_000
_STATE = 3
"""Displacement, velocity and the speed of the medium."""


@dataclass(frozen=True)
class _Size:
    """What a scale spends.

    `train`, `held`, `test` and `few` are runs, `frames` the fields after the first of each,
    `rolled` the steps of a rollout; `timed` has channels, points a side, fields at a time and
    rounds.
    """

    points: int
    frames: int
    train: int
    held: int
    test: int
    few: int
    channels: int
    blocks: int
    steps: int
    seeds: int
    rolled: int
    timed: tuple[int, int, int, int]
    widths: tuple[float, float] = (0.05, 0.1)
    kernel: int = 5
    batch_size: int = 8
    device: str = "cpu"


_SIZES = {
    Scale.SMOKE: _Size(15, 6, 8, 4, 4, 4, 8, 1, 4, 1, 3, (8, 16, 2, 1)),
    Scale.CPU: _Size(31, 16, 200, 40, 60, 30, 16, 3, 600, 3, 10, (32, 32, 8, 12)),
    Scale.PAPER: _Size(
        *(255, 16, 1000, 100, 100, 100, 64, 3, 50_000, 3, 10, (64, 256, 16, 20)),
        widths=(0.03, 0.08),
        kernel=7,
        batch_size=16,
        device="cuda",
    ),
}

_RATES = {"dense": 3e-3, "narrow": 1e-2, "one-way": 1e-2}


@dataclass(frozen=True)
class _Runs:
    """Fields ``(N, T + 1, 3, n, n)`` of a seed; the test runs are the same for all."""

    train: Tensor
    held: Tensor
    test: Tensor
    simulator: Wave


@dataclass(frozen=True)
class _Fit:
    """A trained network and its relative errors of the displacement, means over fields."""

    model: OneStepModel
    one: float
    rolled: float
    train_one: float
    held_one: float

    @property
    def weights(self) -> int:
        return count_parameters(self.model.network)


Fits = Mapping[int, _Fit]


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` has 31 x 31 points and 16 channels, ``paper`` 255 x 255 and 64 on a GPU.
    seed : int
        Of the first repetition; the others follow it.
    """
    size = _SIZES[scale]
    seeds = range(seed, seed + size.seeds)
    with one_thread():
        runs = {s: _simulated(size, s) for s in seeds}
        bench = _Bench(size, runs)
        dense = bench.fits("dense", partial(_dense, size))
        ways = {rank: bench.fits("one-way", partial(_one_way, size, rank)) for rank in RANKS}
        shared = bench.fits("one-way", partial(_shared, size))
        rank = _chosen(dense, ways)
        weights = next(iter(ways[rank].values())).weights
        narrow = bench.fits("narrow", partial(_narrow, size, weights))
        cut = {s: bench.truncated(fit.model, rank, s) for s, fit in dense.items()}
        few = {
            "dense": bench.fits("dense", partial(_dense, size), few=True),
            "one-way": bench.fits("one-way", partial(_one_way, size, rank), few=True),
        }
        return [
            *_errors(size, dense, ways, shared, rank),
            _overfitting(few, rank),
            *_times(size, seed, rank),
            *_controls(ways[rank], narrow, cut, rank),
        ]


# -- data -----------------------------------------------------------------------------------


def _simulated(size: _Size, seed: int) -> _Runs:
    simulator = Wave(points=size.points, steps=size.frames, medium="random")

    def fields(count: int, first: int) -> Tensor:
        table = draw_parameters(simulator, count, first, {"width": size.widths})
        parts = [simulator.fields(table.iloc[i : i + 20]) for i in range(0, count, 20)]
        return torch.cat(parts)

    return _Runs(
        train=fields(size.train, _FIRST_SEED + 2 * seed),
        held=fields(size.held, _FIRST_SEED + 2 * seed + 1),
        test=fields(size.test, _TEST_SEED),
        simulator=simulator,
    )


# -- networks -------------------------------------------------------------------------------


def _dense(size: _Size, channels: int | None = None) -> WaveCNN:
    return WaveCNN(
        *(_STATE, _STATE),
        channels=channels or size.channels,
        kernel=size.kernel,
        blocks=size.blocks,
    )


def _one_way(size: _Size, rank: int) -> OneWayNetwork:
    return OneWayNetwork(_dense(size), OneWayPlan(rank))


def _shared(size: _Size) -> OneWayNetwork:
    """Shared terms with no more weights a layer than filters of rank 2."""
    C, k = size.channels, size.kernel
    rank = max(_SHARED_AS * C * (C + 2 * k) // (2 * (C + k)), 1)
    return OneWayNetwork(_dense(size), OneWayPlan(rank, "shared"))


def _narrow(size: _Size, weights: int) -> WaveCNN:
    """The narrowest dense network of no fewer weights."""
    channels = 1
    while count_parameters(network := _dense(size, channels)) < weights:
        channels += 1
    return network


# -- training -------------------------------------------------------------------------------


class _Bench:
    """Trains networks for as many steps on the runs of each seed."""

    def __init__(self, size: _Size, runs: Mapping[int, _Runs]) -> None:
        self.size, self.runs = size, runs

    def fits(self, kind: str, make: Callable[[], FieldNetwork], few: bool = False) -> Fits:
        """Train a network on the runs of each seed, or on few of them and to the last step."""
        return {seed: self._fit(kind, make, seed, few) for seed in self.runs}

    def _fit(self, kind: str, make: Callable[[], FieldNetwork], seed: int, few: bool) -> _Fit:
        runs, size = self.runs[seed], self.size
        torch.manual_seed(seed)
        train = runs.train[: size.few] if few else runs.train
        model = OneStepModel(make()).fit(
            train,
            dt=runs.simulator.duration / size.frames,
            grid=runs.simulator.grid,
            channels=runs.simulator.channels,
            validation=None if few else (runs.held, None),
            training=Training(
                steps=size.steps,
                batch_size=size.batch_size,
                learning_rate=_RATES[kind],
                warmup=0.05,
                ema_decay=None,
                validate_every=max(size.steps // 4, 1),
                seed=seed,
                device=size.device,
                interrupt="raise",
            ),
        )
        return self._measured(model, runs, train)

    def truncated(self, model: OneStepModel, rank: int, seed: int) -> _Fit:
        """Network whose dense kernels are cut to a rank after training, and nothing more."""
        small, _ = rebuilt(model, OneWayPlan(rank), "truncated")
        return self._measured(small, self.runs[seed], self.runs[seed].train)

    def _measured(self, model: OneStepModel, runs: _Runs, train: Tensor) -> _Fit:
        steps = min(self.size.rolled, runs.test.shape[1] - 1)
        path = model.rollout(runs.test[:, 0], steps)[:, 0, -1]
        return _Fit(
            model=model,
            one=_step_error(model, runs.test),
            rolled=float(relative_l2(path[:, :1], runs.test[:, steps, :1]).mean()),
            train_one=_step_error(model, train[: self.size.few]),
            held_one=_step_error(model, runs.held),
        )


def _step_error(model: OneStepModel, fields: Tensor) -> float:
    """Relative error of the displacement after a step from each true field, mean."""
    given, true = fields[:, :-1].flatten(0, 1), fields[:, 1:].flatten(0, 1)
    return float(relative_l2(model.predict(given)[:, :1], true[:, :1]).mean())


def _chosen(dense: Fits, ways: Mapping[int, Fits]) -> int:
    """Rank of the least validation error among those of few enough weights; else the smallest."""
    some = min(dense)
    small = [r for r, fits in ways.items() if dense[some].weights >= _FEWER * fits[some].weights]
    return min(small or [min(ways)], key=lambda r: fmean(f.held_one for f in ways[r].values()))


# -- claims ---------------------------------------------------------------------------------


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


def _errors(
    size: _Size, dense: Fits, ways: Mapping[int, Fits], shared: Fits, rank: int
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
                f"{count_macs(before, _fields(size, 1)):,} and "
                f"{count_macs(after, _fields(size, 1)):,}"
            ),
        ),
        _memory(size, before, rank, min(dense)),
    ]


def _memory(size: _Size, dense: nn.Module, rank: int, seed: int) -> Claim:
    """Bytes of training, with the filters computed as they are unless told otherwise."""
    small = _one_way(size, rank)
    before, after = _training_bytes(dense, size), _training_bytes(small, size)
    found = {"dense": before, "one-way": after}
    for way in _WAYS:
        found[way] = _training_bytes(set_way(_one_way(size, rank), way), size)
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


def _fields(size: _Size, batch: int) -> Tensor:
    return torch.zeros(batch, _STATE, size.points, size.points)


def _training_bytes(network: nn.Module, size: _Size) -> tuple[int, int, int]:
    """Bytes of weights, gradients and two moments; kept for the gradient of a batch; at most."""
    network.train()
    device = next(network.parameters()).device
    u = _fields(size, size.batch_size).to(device)
    kept: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = network(u)
    del out
    held = sum(n for place, n in kept.items() if place not in own)
    return 4 * count_bytes(network), held, peak_bytes(_gradient(network, u), network)


def _overfitting(few: Mapping[str, Fits], rank: int) -> Claim:
    def gap(fit: _Fit) -> float:
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


_LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


def _times(size: _Size, seed: int, rank: int) -> list[Claim]:
    """Time of a prediction and of a step of training, in both layouts, for kernels of 3, 5, 7."""
    predicted: dict[int, dict[str, dict[str, float]]] = {}
    trained: dict[int, dict[str, dict[str, float]]] = {}
    for kernel in (3, 5, 7):
        predicted[kernel], trained[kernel] = _timed(size, seed, kernel, rank)
    channels, points, batch, _ = size.timed
    what = f"{channels} channels, {points} x {points} points, {batch} fields"
    entries: list[tuple[str, str, dict[int, dict[str, dict[str, float]]]]] = [
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


def _best(found: Mapping[str, Mapping[str, float]], name: str) -> float:
    return min(times[name] for times in found.values())


def _listed(found: Mapping[int, Mapping[str, Mapping[str, float]]]) -> str:
    return "; ".join(
        f"{kernel} x {kernel}, {layout}: "
        + ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in times.items())
        for kernel, layouts in found.items()
        for layout, times in layouts.items()
    )


def _timed(
    size: _Size, seed: int, kernel: int, rank: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Least seconds of predictions and of gradients by layout and network."""
    channels, points, batch, rounds = size.timed
    wide = replace(size, channels=channels, kernel=kernel)
    torch.manual_seed(seed)
    u = torch.randn(batch, _STATE, points, points).to(size.device)
    networks: dict[str, nn.Module] = {"dense": _dense(wide)}
    networks |= {f"rank {r}": _one_way(wide, r) for r in RANKS}
    ways = {f"rank {rank} {way}": set_way(_one_way(wide, rank), way) for way in _WAYS}
    # of one thread on a processor that others use too
    clock = time.perf_counter if size.device == "cuda" else time.process_time
    found: tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]] = ({}, {})
    for layout, memory_format in _LAYOUTS.items():
        for network in (*networks.values(), *ways.values()):
            network.to(size.device)
            _cnn(network).memory_format = memory_format
        calls = {name: _forward(network, u) for name, network in networks.items()}
        found[0][layout] = latencies(calls, rounds, clock)
        calls = {name: _gradient(network, u) for name, network in (networks | ways).items()}
        found[1][layout] = latencies(calls, rounds, clock)
    return found


def _cnn(network: nn.Module) -> WaveCNN:
    inner = network.network if isinstance(network, OneWayNetwork) else network
    assert isinstance(inner, WaveCNN)
    return inner


def _forward(network: nn.Module, u: Tensor) -> Callable[[], Any]:
    def call() -> Any:
        with evaluating(network):
            return network(u)

    return call


def _gradient(network: nn.Module, u: Tensor) -> Callable[[], Any]:
    network.train()

    def call() -> None:
        network.zero_grad()
        network(u).square().mean().backward()

    return call


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
