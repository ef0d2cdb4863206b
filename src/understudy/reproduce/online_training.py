r"""Claims of online training (Meyer et al. 2023, arXiv 2306.16133, and companions), measured.

Online and offline training have the same network, the same number of updates, the same batches'
size and the same memory; each has the best of the same settings, and is judged by its best
validation on the same fixed runs. Where qualities are compared, solvers and trainer share a virtual
clock, so that updates are equal to the batch; where speeds are, solvers are real processes.
"""

from __future__ import annotations

from statistics import fmean

from understudy.core.linalg import one_thread
from understudy.reproduce.claims import Claim, Scale
from understudy.reproduce.online.comparisons import errors_by_buffer, errors_by_sampler
from understudy.reproduce.online.networks import fno_problem, heat_problem, mp_pde_problem
from understudy.reproduce.online.processes import (
    fast_stream,
    long_stream,
    rates_by_buffer,
    stream_with_kills,
)
from understudy.reproduce.online.setting import SIZES, Budget, Size
from understudy.reproduce.online.training import contest


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` has heat on 32 x 32 nodes and 50 steps; 1000 runs online against 50 offline.
    seed : int
        Of the first repetition; the others follow it.
    """
    size = SIZES[scale]
    with one_thread():
        return [
            *_diversity(size, seed),
            *_ranking(size, seed),
            _slowed(size, seed),
            *_resources(size, seed),
            _faults(size, seed),
            _breed(size, seed),
        ]


# -- claims on quality -------------------------------------------------------------------------


def _diversity(size: Size, seed: int) -> list[Claim]:
    heat, fno, mp_pde = (
        contest(problem, spent, size.validation, seed)
        for problem, spent in (
            (heat_problem(size), size.heat),
            (fno_problem(size), size.fno),
            (mp_pde_problem(size), size.mp_pde),
        )
    )
    return [
        Claim.over_seeds(
            heat.gains,
            statement="Online training improves the predictions of a fully connected network",
            paper_figure="abstract: by 68 %",
            metric=(
                f"fall of the validation error (MSE), heat on {size.points}^2 nodes, "
                f"{size.heat.online} runs online against {size.heat.offline} offline, "
                f"{size.heat.updates} updates each"
            ),
            bar=0.4,
            direction="at least",
            reason=heat.said,
        ),
        Claim.over_seeds(
            fno.gains,
            statement="Online training improves the predictions of a Fourier neural operator",
            paper_figure="abstract: by 16 %",
            metric=_waves_metric(size, size.fno),
            bar=0.05,
            direction="at least",
            reason=fno.said,
        ),
        Claim.over_seeds(
            mp_pde.gains,
            statement="Online training improves the predictions of a message-passing solver",
            paper_figure="abstract: by 7 %",
            metric=_waves_metric(size, size.mp_pde),
            bar=0.0,
            direction="at least",
            reason=mp_pde.said,
        ),
    ]


def _waves_metric(size: Size, spent: Budget) -> str:
    return (
        f"fall of the validation error (MSE of {size.window} steps from {size.window}), E3 on "
        f"{size.waves} points, {spent.online} runs online against {spent.offline} offline, "
        f"{spent.updates} updates each"
    )


def _ranking(size: Size, seed: int) -> list[Claim]:
    spent, seeds = size.ranking, range(seed, seed + size.ranking.seeds)
    errors = errors_by_buffer(size, seeds)
    said = "mean errors " + ", ".join(f"{name} {fmean(v):.3g}" for name, v in errors.items())
    metric = (
        f"heat on {size.points}^2 nodes, two runs at a time, buffer of {spent.offline} runs, "
        f"{spent.updates} updates each"
    )
    return [
        Claim.over_seeds(
            _ratios(seeds, errors["FIFO"], errors["Reservoir"]),
            statement="A queue (FIFO) is worse than a reservoir at the same number of updates",
            paper_figure="arXiv 2309.16743; figure not at hand",
            metric=f"validation error of FIFO over that of the reservoir; {metric}",
            bar=1.0,
            direction="at least",
            reason=said,
        ),
        Claim.over_seeds(
            _ratios(seeds, errors["FIFO"], errors["FIRO"]),
            statement="A queue (FIFO) is worse than random order (FIRO)",
            paper_figure="arXiv 2309.16743; figure not at hand",
            metric=f"validation error of FIFO over that of FIRO; {metric}",
            bar=1.0,
            direction="at least",
            reason=said,
        ),
        Claim.over_seeds(
            _ratios(seeds, errors["Reservoir"], errors["FIRO"]),
            statement="A reservoir is as good as random order (FIRO) or better",
            paper_figure="arXiv 2309.16743; figure not at hand",
            metric=f"validation error of the reservoir over that of FIRO; {metric}",
            bar=1.05,
            direction="at most",
            reason=said,
        ),
    ]


def _ratios(seeds: range, over: list[float], under: list[float]) -> dict[int, float]:
    """Quotient of each seed."""
    return dict(zip(seeds, (a / b for a, b in zip(over, under, strict=True)), strict=True))


def _breed(size: Size, seed: int) -> Claim:
    spent, seeds = size.breed, range(seed, seed + size.breed.seeds)
    worst, means = errors_by_sampler(size, seeds)
    gains = _ratios(seeds, worst["Breed"], worst["uniform"])
    return Claim.over_seeds(
        {own: 1.0 - ratio for own, ratio in gains.items()},
        statement="Breed lowers the error where it is largest",
        paper_figure="arXiv 2410.05860; figure not at hand",
        metric=(
            "fall of the mean error of the worst tenth of validation runs against uniform "
            f"sampling; Lorenz system, {spent.online} runs, {spent.updates} updates"
        ),
        bar=0.1,
        direction="at least",
        reason=(
            f"worst tenth {fmean(worst['Breed']):.3g} against {fmean(worst['uniform']):.3g}, all "
            f"{fmean(means['Breed']):.3g} against {fmean(means['uniform']):.3g}; mutations of 0.1"
        ),
    )


# -- claims on processes -----------------------------------------------------------------------


def _slowed(size: Size, seed: int) -> Claim:
    """Solvers in processes that make a fifth of what the trainer could take."""
    alone, rates = rates_by_buffer(size, seed)
    said = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
    return Claim.over_seeds(
        {seed: rates["Reservoir"] / max(rates["FIFO"], rates["FIRO"])},
        statement="With slow solvers a reservoir trains on while queues wait",
        paper_figure="arXiv 2309.16743: 13 times the throughput, of another comparison",
        metric=(
            "batches a second of the reservoir over the faster of FIFO and FIRO, two solver "
            "processes that make a fifth of what the trainer could take"
        ),
        bar=3.0,
        direction="at least",
        reason=f"batches a second: {said}; the trainer alone {alone:.3g}",
    )


def _resources(size: Size, seed: int) -> list[Claim]:
    """A stream ten times the buffer: memory, disk, and how long a trainer waits for it."""
    long, fast = long_stream(size, seed), fast_stream(size, seed)
    return [
        Claim.over_seeds(
            {seed: long.held / long.capacity},
            statement="Memory is bounded by the buffer, whatever streams through it",
            paper_figure="method; no figure",
            metric="largest number of samples held over the capacity",
            bar=1.0,
            direction="at most",
            reason=(
                f"{long.streamed / 2**20:.0f} MiB streamed through a buffer of "
                f"{long.buffer / 2**20:.0f} MiB; resident memory rose by at most "
                f"{long.peak / 2**20:.0f} MiB, by {long.grown / 2**20:.0f} MiB at the end"
            ),
        ),
        Claim.over_seeds(
            {seed: float(long.others)},
            statement="Nothing but checkpoints is written to disk",
            paper_figure="method; no figure",
            metric="other files left in the folder of a study with checkpoints",
            bar=0.0,
            direction="at most",
            reason=f"a checkpoint of at most {long.written / 2**20:.1f} MiB, written every second",
        ),
        Claim.over_seeds(
            {seed: fast.trainer_wait / fast.seconds},
            statement="With fast solvers the trainer does not wait",
            paper_figure="method; no figure",
            metric=(
                "share of the time after the first batch that the trainer waits for the buffer, "
                f"heat on {size.points}^2 nodes, two solver processes"
            ),
            bar=0.05,
            direction="at most",
            reason=(
                f"{fast.samples_per_second:.0f} samples a second; the first batch came after "
                f"{fast.startup_seconds:.1f} s, in which the processes start"
            ),
        ),
    ]


def _faults(size: Size, seed: int) -> Claim:
    """A worker is killed for one run in ten."""
    struck, report = stream_with_kills(size, seed)
    simulations = 10 * size.killed
    expected = simulations * heat_problem(size).frames
    used = report.repetitions
    return Claim.over_seeds(
        {seed: used.get(1, 0) / expected if set(used) == {1} else 0.0},
        statement="Studies survive killed workers, and no time step is lost or doubled",
        paper_figure="method; no figure",
        metric=f"share of the {expected} time steps that were used exactly once, queue (FIFO)",
        bar=1.0,
        direction="at least",
        reason=(
            f"{struck} of 2 workers' processes killed in {simulations} runs, "
            f"{report.restarts} restarts, {report.finished} runs finished, "
            f"{len(report.dropped)} dropped"
        ),
    )
