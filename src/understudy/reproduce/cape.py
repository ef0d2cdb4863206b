r"""Claims of CAPE (Takamoto, Alesiani & Niepert 2023, arXiv 2304.14118), measured.

Advection at five speeds and Burgers' equation at seven viscosities are those of PDEBench (arXiv
2210.07182), computed anew. Every network sees one field, from which the speed cannot be told, and
is trained by the same growing rollouts, on the same batches for the same number of steps, with the
paper's optimiser. Errors are normalised root mean square errors of rollouts from the first field
alone, averaged over times and trajectories that were not trained on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from understudy.core.field_metrics import nrmse, spectrum
from understudy.core.linalg import one_thread
from understudy.core.simulator import FieldSimulator
from understudy.models.operators.cape import CAPE, ConcatParameters, ParameterConditioned
from understudy.models.operators.curriculum import CurriculumRollout, Schedule
from understudy.models.operators.fno import FNO, SpectralConv
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.training import Training
from understudy.models.operators.unet import PlainUNet
from understudy.reproduce.claims import Claim, Scale
from understudy.simulate.pde.advection import Advection
from understudy.simulate.pde.conservation import Burgers

SPEEDS = (0.2, 0.4, 0.7, 2.0, 4.0)
UNSEEN_SPEEDS = (0.1, 0.3, 0.5, 1.0, 1.5, 3.0)
FASTER = 5.0
VISCOSITIES = (0.002, 0.007, 0.02, 0.04, 0.2, 0.4, 2.0)
UNSEEN_VISCOSITY = 0.004
POINTS = 128
INTERVAL = 0.05
"""Time between two fields, 2/40 as in the paper."""

BANDS = {"low": (0, 4), "mid": (4, 12), "high": (12, POINTS // 2 + 1)}
"""Wave numbers from the first to before the last."""

_TEST_SEED, _VALIDATION_SEED = 1_000_000_000, 900_000_000
Build = Callable[[], FieldNetwork]
Fitted = Mapping[int, Mapping[str, CurriculumRollout]]
"""Trained networks by seed and name."""


@dataclass(frozen=True)
class _Size:
    """What a scale spends.

    Trajectories a parameter, their times, optimiser steps and batch size; trajectories and times of
    tests; the U-Nets' width, optimiser steps and steps of a rollout; trajectories a viscosity of
    Burgers' equation, optimiser steps and how much finer than 128 points it is computed.
    """

    runs: int
    times: int
    steps: int
    batch_size: int
    test_runs: int
    test_times: int
    long_times: int
    features: int
    unet_steps: int
    unet_unroll: int
    burgers_runs: int
    burgers_steps: int
    seeds: int
    refinement: int
    timings: int
    warmup_epochs: float = 3.0
    device: str = "cpu"


_SIZES = {
    Scale.SMOKE: _Size(2, 3, 4, 4, 1, 4, 5, 2, 3, 2, 2, 3, 1, 1, 5, warmup_epochs=0.5),
    Scale.CPU: _Size(90, 11, 1200, 10, 10, 21, 41, 8, 500, 5, 30, 500, 1, 4, 40),
    Scale.PAPER: _Size(
        900, 41, 9000, 50, 100, 41, 41, 32, 9000, 40, 900, 12_600, 3, 8, 40, device="cuda"
    ),
}


@dataclass(frozen=True)
class _Data:
    """Trajectories ``(N, T, 1, 128)`` of a parameter ``(N, 1)`` for training, and to validate."""

    fields: Tensor
    numbers: Tensor
    validation: tuple[Tensor, Tensor]


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` has 90 trajectories of 11 times a speed, 1200 steps in batches of 10 and one
        seed; ``paper`` 900 of 41 times, 100 passes in batches of 50 and three seeds on a GPU.
    seed : int
        Of the first repetition; the others follow it.
    """
    size = _SIZES[scale]
    seeds = range(seed, seed + size.seeds)
    with one_thread():
        cost = _cost(size, seed)
        advection = {s: _advection(size, s) for s in seeds}
        fitted = {s: _fit_all(size, advection[s], s) for s in seeds}
        return [
            *_adaptation(size, fitted),
            *_curriculum(size, fitted),
            *cost,
            _bands(size, seeds),
        ]


# -- data -----------------------------------------------------------------------------------


def _trajectories(
    simulator: FieldSimulator, values: Sequence[float], runs: int, first: int
) -> tuple[Tensor, Tensor]:
    """So many runs of each value of the equation's parameter, each from a seed of its own."""
    name = simulator.space.names[0]
    rows = [(value, first + i * runs + j) for i, value in enumerate(values) for j in range(runs)]
    table = pd.DataFrame(rows, columns=[name, "seed"])
    return simulator.fields(table), torch.tensor(table[[name]].to_numpy(), dtype=torch.float32)


def _split(simulator: FieldSimulator, values: Sequence[float], runs: int, seed: int) -> _Data:
    fields, numbers = _trajectories(simulator, values, runs, (seed + 1) * 100_000)
    held = _trajectories(simulator, values, max(1, runs // 20), _VALIDATION_SEED + 100_000 * seed)
    return _Data(fields, numbers, held)


def _advection(size: _Size, seed: int) -> _Data:
    return _split(_moving(size.times), SPEEDS, size.runs, seed)


def _moving(times: int) -> Advection:
    return Advection(POINTS, times - 1, (times - 1) * INTERVAL)


def _steepening(times: int, refinement: int) -> Burgers:
    return Burgers(POINTS, times - 1, refinement, (times - 1) * INTERVAL)


# -- networks -------------------------------------------------------------------------------


def _fno(channels_in: int, channels_out: int, width: int) -> FNO:
    """Four blocks of 12 modes, 2 points of padding, as the paper has behind the block."""
    return FNO(channels_in, channels_out, [12], width, padding=2)


def _plain_fno() -> FieldNetwork:
    return _fno(1, 1, 36)


def _concat_fno() -> FieldNetwork:
    return ConcatParameters(_fno(2, 1, 36), 1)


def _cape_fno() -> ParameterConditioned:
    return ParameterConditioned(_fno(2, 2, 20), CAPE(1, 1, (POINTS,)))


def _plain_unet(features: int) -> FieldNetwork:
    return PlainUNet(1, 1, features=features, padding="circular")


def _cape_unet(features: int) -> FieldNetwork:
    return ParameterConditioned(
        PlainUNet(2, 2, features=features, padding="circular"), CAPE(1, 1, (POINTS,))
    )


def _fit(
    build: Build,
    data: _Data,
    size: _Size,
    seed: int,
    steps: int,
    schedule: Schedule = "tanh",
    unroll: int | None = None,
    told: bool = True,
    scaling: Literal["none", "log"] = "none",
) -> CurriculumRollout:
    """Train a network; one that is not told sees no parameter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build()
    model = CurriculumRollout(
        network,
        schedule=schedule,
        unroll=unroll,
        warmup_epochs=size.warmup_epochs,
        parameter_scaling=scaling,
    )
    held, numbers = data.validation
    training = Training(
        steps=steps,
        batch_size=size.batch_size,
        learning_rate=3e-3,
        weight_decay=1e-4,
        warmup=0.0,
        floor=1.0 / 32.0,
        ema_decay=None,
        clip_norm=None,
        validate_every=max(1, steps // 10),
        seed=seed,
        device=size.device,
        interrupt="raise",
    )
    return model.fit(
        data.fields,
        data.numbers if told else None,
        dt=INTERVAL,
        validation=(held, numbers if told else None),
        training=training,
    )


def _fit_all(size: _Size, data: _Data, seed: int) -> dict[str, CurriculumRollout]:
    """All networks on advection."""
    fit = partial(_fit, data=data, size=size, seed=seed)
    unet = partial(fit, steps=size.unet_steps, unroll=size.unet_unroll)
    return {
        "FNO": fit(_plain_fno, steps=size.steps, told=False),
        "FNO, concatenated": fit(_concat_fno, steps=size.steps),
        "CAPE-FNO": fit(_cape_fno, steps=size.steps),
        "teacher": fit(_cape_fno, steps=size.steps, schedule="teacher"),
        "autoregressive": fit(_cape_fno, steps=size.steps, schedule="autoregressive"),
        "U-Net": unet(partial(_plain_unet, size.features), told=False),
        "CAPE-U-Net": unet(partial(_cape_unet, size.features)),
    }


# -- errors ---------------------------------------------------------------------------------


def _rollout(model: CurriculumRollout, true: Tensor, numbers: Tensor) -> Tensor:
    """Predicted fields ``(B, T - 1, 1, 128)`` from the first of ``(B, T, 1, 128)``."""
    told = numbers if model.parameters else None
    return model.rollout(true[:, 0], true.shape[1] - 1, told)[:, 0, 1:]


def _by_speed(
    model: CurriculumRollout, speeds: Sequence[float], runs: int, times: int
) -> dict[float, float]:
    """Error of rollouts at each speed."""
    true, numbers = _trajectories(_moving(times), speeds, runs, _TEST_SEED)
    errors = nrmse(_rollout(model, true, numbers), true[:, 1:])
    means = errors.unflatten(0, (len(speeds), runs)).flatten(1).mean(1)
    return dict(zip(speeds, means.tolist(), strict=True))


def _per_seed(
    fitted: Fitted, names: Sequence[str], speeds: Sequence[float], runs: int, times: int
) -> dict[str, dict[int, float]]:
    """Mean error over speeds, by network and seed."""
    return {
        name: {
            s: fmean(_by_speed(models[name], speeds, runs, times).values())
            for s, models in fitted.items()
        }
        for name in names
    }


def _ratios(above: Mapping[int, float], below: Mapping[int, float]) -> dict[int, float]:
    return {seed: above[seed] / below[seed] for seed in above}


def _only(errors: Mapping[str, dict[int, float]], names: Sequence[str]) -> dict[str, Any]:
    return {name: errors[name] for name in names}


def _listed(model: CurriculumRollout, size: _Size) -> str:
    """Error at each unseen speed."""
    errors = _by_speed(model, UNSEEN_SPEEDS, size.test_runs, size.test_times)
    return ", ".join(f"{speed:g}: {error:.2f}" for speed, error in errors.items())


def _figures(errors: Mapping[str, Mapping[int, float]]) -> str:
    return ", ".join(f"{name} {fmean(by.values()):.3f}" for name, by in errors.items())


# -- claims ---------------------------------------------------------------------------------


def _adaptation(size: _Size, fitted: Fitted) -> list[Claim]:
    names = ("FNO", "FNO, concatenated", "CAPE-FNO", "U-Net", "CAPE-U-Net")
    at = partial(_per_seed, fitted, names, runs=size.test_runs, times=size.test_times)
    seen, unseen, faster = (at(speeds=v) for v in (SPEEDS, UNSEEN_SPEEDS, (FASTER,)))
    setting = f"{size.test_times} times"
    listed = ", ".join(f"{v:g}" for v in UNSEEN_SPEEDS)
    models = fitted[min(fitted)]
    each = "; ".join(f"{name} {_listed(models[name], size)}" for name in names[1:3])
    return [
        Claim.over_seeds(
            _ratios(seen["FNO"], seen["CAPE-FNO"]),
            statement="A network that is not told the parameter cannot stand in for all of them",
            paper_figure="abstract; no number of the paper is known here",
            metric=f"nRMSE of the FNO over that of CAPE-FNO at speeds seen in training, {setting}",
            bar=2.0,
            direction="at least",
            reason=f"seen: {_figures(seen)}",
        ),
        Claim.over_seeds(
            _ratios(unseen["CAPE-FNO"], unseen["FNO, concatenated"]),
            statement="Channel attention adapts to unseen parameters better than concatenation",
            paper_figure="abstract: consistent and significant improvements",
            metric=(
                f"nRMSE of CAPE-FNO over that of the FNO with a constant channel, speeds {listed}, "
                f"{setting}"
            ),
            bar=0.8,
            direction="at most",
            reason=(
                f"unseen: {_figures(_only(unseen, names[:3]))}; outside, at {FASTER:g}: "
                f"{_figures(_only(faster, names[:3]))}; by speed, first seed: {each}"
            ),
        ),
        Claim.over_seeds(
            _ratios(unseen["CAPE-U-Net"], unseen["U-Net"]),
            statement="The block serves a U-Net as well, at unseen parameters",
            paper_figure="abstract: any surrogate can be combined with it",
            metric=(
                f"nRMSE of a U-Net of {size.features} features with the block over that without, "
                f"speeds {listed}, {setting}"
            ),
            bar=0.8,
            direction="at most",
            reason=(
                f"{size.unet_steps} optimiser steps; unseen: {_figures(_only(unseen, names[3:]))}; "
                f"seen: {_figures(_only(seen, names[3:]))}"
            ),
        ),
    ]


def _curriculum(size: _Size, fitted: Fitted) -> list[Claim]:
    names = ("CAPE-FNO", "teacher", "autoregressive")
    at = partial(_per_seed, fitted, names, SPEEDS, size.test_runs)
    long, trained = at(size.long_times), at(size.times)
    metric = f"of CAPE-FNO, by nRMSE at speeds seen in training, {size.long_times} times"
    reason = (
        f"{size.long_times} times: {_figures(long)}; the {size.times} times of training: "
        f"{_figures(trained)}"
    )
    return [
        Claim.over_seeds(
            _ratios(long["teacher"], long["CAPE-FNO"]),
            statement="Rollouts that grow in training beat true inputs throughout",
            paper_figure="ablation of the curriculum; reconstructed",
            metric=f"true inputs throughout over growing rollouts {metric}",
            bar=1.5,
            direction="at least",
            reason=reason,
        ),
        Claim.over_seeds(
            _ratios(long["autoregressive"], long["CAPE-FNO"]),
            statement="Rollouts that grow in training beat own inputs from the start",
            paper_figure="ablation of the curriculum; reconstructed",
            metric=f"own inputs throughout over growing rollouts {metric}",
            bar=1.0,
            direction="at least",
            reason=reason,
        ),
    ]


def _cost(size: _Size, seed: int) -> list[Claim]:
    large, small = _plain_fno().eval(), _cape_fno().eval()
    taken = _step_seconds((large, small), size.timings)
    counts = [_entries(network) for network in (large, small)]
    return [
        Claim(
            statement="A step of the conditioned network takes little longer than the baseline's",
            paper_figure="the paper's sizes: width 20 behind the block, 36 without",
            metric="time of CAPE-FNO over that of the FNO, batches of 50, one thread",
            bar=1.5,
            direction="at most",
            measured=taken[1] / taken[0],
            seeds=(seed,),
            reason=f"{1e3 * taken[1]:.1f} ms and {1e3 * taken[0]:.1f} ms a step",
        ),
        Claim(
            statement="The conditioned network is the smaller one",
            paper_figure="68,230 and 72,509 entries in the official code",
            metric="entries of CAPE-FNO over those of the FNO, a complex number counted once",
            bar=1.0,
            direction="at most",
            measured=counts[1] / counts[0],
            seeds=(seed,),
            reason=f"{counts[1]:,} and {counts[0]:,}",
        ),
    ]


def _entries(network: FieldNetwork) -> int:
    """Parameters, of which the complex ones of spectral convolutions are kept as pairs."""
    pairs = sum(m.weight.numel() // 2 for m in network.modules() if isinstance(m, SpectralConv))
    return sum(p.numel() for p in network.parameters()) - pairs


@torch.no_grad()
def _step_seconds(networks: Sequence[FieldNetwork], repeats: int) -> list[float]:
    """Median seconds a step of each network, in turn, so that a busy machine strikes all alike."""
    u, p = torch.randn(50, 1, POINTS), torch.rand(50, 1)
    taken: list[list[float]] = [[] for _ in networks]
    for _ in range(repeats):
        for network, own in zip(networks, taken, strict=True):
            start = time.perf_counter()
            network(u, p)
            own.append(time.perf_counter() - start)
    return [median(own[2:]) for own in taken]


def _bands(size: _Size, seeds: Sequence[int]) -> Claim:
    """Burgers' equation at the smallest viscosity that was not trained on."""
    simulator = _steepening(size.test_times, size.refinement)
    true, numbers = _trajectories(simulator, (UNSEEN_VISCOSITY,), size.test_runs, _TEST_SEED)
    errors: dict[str, dict[int, float]] = {"FNO, concatenated": {}, "CAPE-FNO": {}}
    banded: dict[str, list[list[float]]] = {name: [] for name in errors}
    for seed in seeds:
        data = _split(
            _steepening(size.times, size.refinement), VISCOSITIES, size.burgers_runs, seed
        )
        for name, build in zip(errors, (_concat_fno, _cape_fno), strict=True):
            model = _fit(build, data, size, seed, size.burgers_steps, scaling="log")
            predicted = _rollout(model, true, numbers)
            errors[name][seed] = float(nrmse(predicted, true[:, 1:]).mean())
            banded[name].append(_banded(predicted, true[:, 1:]))
    by_band = "; ".join(
        f"{name} " + ", ".join(f"{fmean(found):.3f}" for found in zip(*banded[name], strict=True))
        for name in errors
    )
    return Claim.over_seeds(
        _ratios(errors["CAPE-FNO"], errors["FNO, concatenated"]),
        statement="Channel attention serves Burgers' equation at an unseen small viscosity",
        paper_figure="abstract: consistent improvements; no number of the paper is known here",
        metric=f"nRMSE of CAPE-FNO over that with constant channels, viscosity {UNSEEN_VISCOSITY}",
        bar=1.0,
        direction="at most",
        reason=(
            f"{_figures(errors)}; error over truth at wave numbers below 4, from 4 to 11 and from "
            f"12 on: {by_band}"
        ),
    )


def _banded(predicted: Tensor, true: Tensor) -> list[float]:
    """Root of the error's power over that of the truth in each band, over all fields."""
    error, truth = (spectrum(f, 1).square().sum((0, 1, 2)) for f in (predicted - true, true))
    return [float((error[a:b].sum() / truth[a:b].sum()).sqrt()) for a, b in BANDS.values()]
