r"""Claims of Adriaensen, Rakotoarison, Müller & Hutter (2023, arXiv 2310.20447), measured.

All methods predict noisy values after a cut-off T of a curve's epochs; their score is the mean log
density of what came, on the scale of the prior, so that 0.1 nat is a tenth in density. Beside the
shipped network stand Markov chains with the same prior (`MCMCExtrapolator`) and the last value with
the error it has on the prior. Curves are fresh draws of the prior, and those of
`understudy.data.learning_curves`, which no method has seen.

Early stopping is the paper's vertical model selection: networks are trained in a given order, a run
that is stopped is not taken up again, and the best validation accuracy of any epoch is what counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.linalg import one_thread
from understudy.data.learning_curves import EPOCHS as RUN
from understudy.data.learning_curves import learning_curve_sets, load_learning_curves
from understudy.models.incontext.curve_mcmc import LastValue, MCMCExtrapolator
from understudy.models.incontext.curve_normaliser import CurveNormaliser
from understudy.models.incontext.curve_prior import EPOCHS, CurvePrior
from understudy.models.incontext.lcpfn import LCPFN
from understudy.reproduce.claims import Claim, Scale
from understudy.search.early_stopping import COARSE, PredictiveStopper

Floats = NDArray[np.float64]

CUTOFFS = (0.1, 0.2, 0.4, 0.8)
LEVELS = (0.5, 0.8, 0.9, 0.95)
PATIENCE = (0, 1, 5, 10, 20, 50)
BUDGET = 20
"""Whole runs that a selection may cost."""

M1 = MCMCExtrapolator(walkers=100, burn_in=500, samples=2000)
"""The paper's Markov chains of its speed comparison."""

SHORT = MCMCExtrapolator(walkers=26, burn_in=500, samples=50, thin=10)
"""The chains that are scored here: 500 moves to burn in, 500 from which 50 are kept."""


@dataclass(frozen=True)
class _Size:
    """What a scale spends."""

    seeds: int
    curves: int
    real: int
    chains: MCMCExtrapolator
    timed: MCMCExtrapolator
    epochs: int
    sets: int
    orders: int


_TINY = MCMCExtrapolator(walkers=26, burn_in=10, samples=5, thin=2)
_SIZES = {
    Scale.SMOKE: _Size(1, 5, 2, _TINY, _TINY, 3, 2, 5),
    Scale.CPU: _Size(3, 100, 20, SHORT, M1, RUN, 8, 40),
    Scale.PAPER: _Size(3, 1000, 80, replace(M1, samples=200, thin=10), M1, RUN, 8, 40),
}


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` scores 100 curves of the prior over three seeds and 20 of each real set and metric,
        ``paper`` 1000 and 80 with longer chains.
    seed : int
        Of the first repetition; the others follow it.
    """
    size = _SIZES[scale]
    network = LCPFN()
    seeds = range(seed, seed + size.seeds)
    with one_thread():
        speed = _speed(network, size, seed)
    return [
        *_accuracy(network, size, seeds),
        *speed,
        *_real_curves(network, size, seed),
        *_early_stopping(network, size, seed),
    ]


# -- curves of the prior --------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """What a network and chains got on the same curves.

    Parameters
    ----------
    network, chains : array (cut-offs,)
        Mean log density.
    coverage : array (levels,)
        Share of the values in the network's central intervals, over all cut-offs.
    """

    network: Floats
    chains: Floats
    coverage: Floats


def _accuracy(network: LCPFN, size: _Size, seeds: Sequence[int]) -> list[Claim]:
    found = {seed: _prior_scores(network, size, seed) for seed in seeds}
    table = "; ".join(
        f"{cut:.0%}: network {fmean(s.network[k] for s in found.values()):.3f}, "
        f"chains {fmean(s.chains[k] for s in found.values()):.3f}"
        for k, cut in enumerate(CUTOFFS)
    )
    facts = network.pfn.facts
    made = f"{network.pfn.parameters:,} weights, trained on {facts.get('data_sets', 0):,} curves"
    paper = "Table 3: network P3 1.76, 2.13, 2.40, 2.52, chains M1 1.628, 1.939, 2.265, 2.469"
    metric = "mean log density of unseen values of curves of the prior, {} cut-off (nat)"

    def claim(values: Callable[[Scores], float], **said: Any) -> Claim:
        return Claim.over_seeds(
            {seed: values(s) for seed, s in found.items()},
            paper_figure=paper,
            **said,
        )

    return [
        claim(
            lambda s: s.network[0],
            statement="The network extrapolates from a tenth of a curve.",
            metric=metric.format("10 %"),
            bar=1.25,
            direction="at least",
            reason=f"{table}; {made}",
        ),
        claim(
            lambda s: s.network[2],
            statement="The network extrapolates from two fifths of a curve.",
            metric=metric.format("40 %"),
            bar=2.0,
            direction="at least",
        ),
        claim(
            lambda s: s.chains[0] - s.network[0],
            statement="It predicts no worse than Markov chains with the same prior.",
            metric="log density of the chains less that of the network, 10 % cut-off (nat)",
            bar=0.3,
            direction="at most",
            reason=(
                f"below 0 the network is better; chains of {size.chains.walkers} walkers, "
                f"{size.chains.burn_in} moves to burn in"
            ),
        ),
        claim(
            lambda s: float(np.diff(s.network).min()),
            statement="The more of a curve is seen, the better is the rest predicted.",
            metric="least rise of the log density from a cut-off to the next (nat)",
            bar=0.0,
            direction="at least",
        ),
        Claim.over_seeds(
            {s: float(np.abs(v.coverage - LEVELS).max()) for s, v in found.items()},
            statement="Its intervals hold what they say on curves of the prior.",
            paper_figure="not in the paper",
            metric="largest error of the coverage of 50, 80, 90 and 95 % intervals",
            bar=0.03,
            direction="at most",
        ),
    ]


def _prior_scores(network: LCPFN, size: _Size, seed: int) -> Scores:
    generator = torch.Generator().manual_seed(1000 + seed)
    _, noisy = CurvePrior().curves(size.curves, EPOCHS, generator, torch.float64)
    chains = replace(size.chains, seed=seed)
    scores, inside = [], []
    for cut in CUTOFFS:
        T = math.ceil(cut * EPOCHS)
        ahead, y = torch.arange(T + 1, EPOCHS + 1), noisy[:, T:]
        bars = network.predict(noisy[:, :T], ahead)
        theirs = chains.predict(noisy[:, :T], ahead).log_density(y.T)
        scores.append((float(bars.log_density(y).mean()), float(theirs.mean())))
        inside.append(_inside(bars.cdf(y)))
    ours, other = np.array(scores).T
    return Scores(ours, other, np.concatenate(inside).mean(0))


def _inside(pit: Tensor) -> Floats:
    """Whether values of these probabilities are in the central intervals: (cells, levels)."""
    away = (pit.flatten().unsqueeze(1) - 0.5).abs()
    return (away < 0.5 * torch.tensor(LEVELS)).double().numpy()


# -- speed ----------------------------------------------------------------------------------------


def _speed(network: LCPFN, size: _Size, seed: int) -> list[Claim]:
    """CPU time of one curve on one thread: prediction and log density of all epochs after 20."""
    generator = torch.Generator().manual_seed(2000 + seed)
    _, noisy = CurvePrior().curves(20, EPOCHS, generator, torch.float64)
    T, ahead = 20, torch.arange(21, EPOCHS + 1)

    def ask(k: int) -> None:
        network.predict(noisy[k : k + 1, :T], ahead).log_density(noisy[k : k + 1, T:])

    def sampled(chains: MCMCExtrapolator) -> None:
        chains.predict(noisy[:1, :T], ahead).log_density(noisy[:1, T:].T)

    ask(0)
    ours = median(_seconds(partial(ask, k)) for k in range(len(noisy)))
    short = _seconds(partial(sampled, size.chains))
    walker = _walker_by_walker(noisy[0, :T].numpy(), size.timed, seed)
    said = (
        f"one curve: network {1e3 * ours:.1f} ms; {size.timed.walkers} walkers one by one "
        f"{walker:.1f} s; {size.chains.walkers} walkers in batches {short:.2f} s"
    )
    common: dict[str, Any] = {"seeds": (seed,), "direction": "at least", "bar": 1000.0}
    figure = "abstract: over 10,000 times faster; Table 3: 0.004 to 0.05 s beside 54 s (M1)"
    return [
        Claim(
            statement="One pass is orders of magnitude faster than the Markov chains of the paper.",
            paper_figure=figure,
            metric="CPU time of M1 (100 walkers, 2500 moves, emcee) / network's",
            measured=walker / ours,
            reason=said,
            **common,
        ),
        Claim(
            statement="So it is beside chains that move all walkers at once.",
            paper_figure=figure,
            metric="CPU time of 26 walkers, 1000 moves, in batches / network's",
            measured=short / ours,
            reason=(
                "these chains are far faster than the paper's: shorter, and half of the walkers "
                "are evaluated in one call; the network is larger than the paper's P1 and P2"
            ),
            **common,
        ),
        Claim(
            statement="Asking takes no time worth speaking of.",
            paper_figure="Table 3: 0.004 to 0.05 s",
            metric="median CPU time of one extrapolation, one thread (ms)",
            bar=100.0,
            direction="at most",
            measured=1e3 * ours,
            seeds=(seed,),
        ),
    ]


def _seconds(work: Callable[[], object]) -> float:
    """CPU time, which other work on the machine does not lengthen; one thread, so no less."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _walker_by_walker(values: Floats, chains: MCMCExtrapolator, seed: int) -> float:
    """Seconds of the same chains by emcee, which asks for the density of one walker at a time."""
    try:
        import emcee
    except ImportError:
        raise UserError("this reproduction times emcee as a baseline: pip install emcee") from None
    density = _WalkerDensity(values)
    generator = torch.Generator().manual_seed(seed)
    start, _ = CurvePrior().accepted(chains.walkers, EPOCHS, generator, torch.float64)
    sampler = emcee.EnsembleSampler(chains.walkers, start.shape[1], density)
    moves = chains.burn_in + chains.samples * chains.thin
    return _seconds(lambda: sampler.run_mcmc(start.numpy(), moves))


class _WalkerDensity:
    """Log density of one vector of variables of the paper's prior, in NumPy."""

    def __init__(self, values: Floats) -> None:
        self._values, self._laws = values, CurvePrior().laws
        self._t = np.arange(1.0, EPOCHS + 1.0)

    def __call__(self, z: Floats) -> float:
        prior = 0.0
        for law, value in zip(self._laws, z, strict=True):
            if law.kind == "normal":
                prior -= 0.5 * ((value - law.first) / law.second) ** 2
            elif not law.first <= value <= law.second:
                return -math.inf
        t = self._t
        (w1, w2, w3, c1, a1, log_alpha, c2, a2, a3, b3, log_kappa, log_delta, log_sd) = z
        with np.errstate(over="ignore", under="ignore"):
            f = w1 * (c1 - a1 * t ** -np.exp(log_alpha)) + w2 * (c2 - a2 / np.log(t + 1.0))
            f += w3 * (a3 - (a3 - b3) * np.exp(-np.exp(log_kappa) * t ** np.exp(log_delta)))
        if not (f[-1] > f[0] and f.min() >= 0.0 and f.max() <= 1.0):
            return -math.inf
        away = (self._values - f[: len(self._values)]) / np.exp(log_sd)
        return float(prior - 0.5 * away @ away - len(away) * log_sd)


# -- real curves ----------------------------------------------------------------------------------


def _real_curves(network: LCPFN, size: _Size, seed: int) -> list[Claim]:
    """Mean rank, over data sets and metrics, of the mean log density at each cut-off."""
    tasks = _tasks(size, seed)
    scores = np.empty((len(tasks), len(CUTOFFS), 3))
    inside = []
    chains, last = replace(size.chains, seed=seed), LastValue(seed=seed)
    for k, cut in enumerate(CUTOFFS):
        T = math.ceil(cut * RUN)
        ahead = torch.arange(T + 1, RUN + 1)
        curves = torch.cat(tasks)
        y = curves[:, T:]
        bars = network.predict(curves[:, :T], ahead)
        by_method = [
            bars.log_density(y).mean(1),
            chains.predict(curves[:, :T], ahead).log_density(y.T).mean(0),
            last.predict(curves[:, :T], ahead).log_density(y.T).mean(0),
        ]
        parts = torch.stack(by_method, 1).split([len(task) for task in tasks])
        scores[:, k] = torch.stack([part.mean(0) for part in parts]).numpy()
        inside.append(_inside(bars.cdf(y)).reshape(len(tasks), -1, len(LEVELS)).mean(1))
    ranks = (-scores).argsort(-1).argsort(-1).mean(0) + 1.0
    per_task = np.mean(inside, axis=0)
    coverage = per_task.mean(0)
    means = scores.mean(0)
    table = "; ".join(
        f"{cut:.0%}: network {m[0]:.2f} (rank {r[0]:.2f}), chains {m[1]:.2f} ({r[1]:.2f}), last "
        f"value {m[2]:.2f} ({r[2]:.2f})"
        for cut, m, r in zip(CUTOFFS, means, ranks, strict=True)
    )
    return [
        Claim(
            statement="On curves of real networks it is competitive with Markov chains.",
            paper_figure="mean ranks on four benchmarks, competitive with chains",
            metric="cut-offs of 4 at which the network's mean rank is no worse than the chains'",
            bar=2,
            direction="at least",
            measured=int((ranks[:, 0] <= ranks[:, 1]).sum()),
            seeds=(seed,),
            reason=f"{len(tasks)} sets and metrics, {len(tasks[0])} curves each; {table}",
        ),
        Claim(
            statement="Its intervals hold what they say on curves of real networks.",
            paper_figure="not in the paper",
            metric="largest error of the coverage of 50, 80, 90 and 95 % intervals",
            bar=0.10,
            direction="at most",
            measured=float(np.abs(coverage - LEVELS).max()),
            seeds=(seed,),
            reason="; ".join(
                f"{level:.0%} intervals hold {accuracy:.1%} of accuracies and {loss:.1%} of losses"
                for level, accuracy, loss in zip(
                    LEVELS, per_task[::2].mean(0), per_task[1::2].mean(0), strict=True
                )
            ),
        ),
    ]


def _tasks(size: _Size, seed: int) -> list[Tensor]:
    """Normalised curves (n, 50), a random few of each set and metric."""
    rng = np.random.default_rng(seed)
    tasks = []
    for name in learning_curve_sets()[: size.sets]:
        curves = load_learning_curves(name)
        loss = CurveNormaliser.log_loss(math.log(curves.classes))
        for normaliser, values in ((CurveNormaliser(), curves.accuracy), (loss, curves.log_loss)):
            rows = rng.choice(len(values), size.real, replace=False)
            tasks.append(normaliser(torch.from_numpy(values[rows])))
    return tasks


# -- early stopping -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """Regret of a method, averaged over orders of the runs.

    Parameters
    ----------
    regret : array (budget,)
        Gap to the best accuracy of any run, after so many epochs.
    """

    regret: Floats

    def speed_up(self, method: Selection) -> float:
        """How many times sooner the method reaches what this one has at last.

        Below 1, where it does not: the share of this one's time in which this one reached what the
        method has at last.
        """
        if method.regret[-1] <= self.regret[-1]:
            return _first(self.regret, self.regret[-1]) / _first(method.regret, self.regret[-1])
        return _first(self.regret, method.regret[-1]) / _first(self.regret, self.regret[-1])


def _first(regret: Floats, level: float) -> int:
    return int((regret <= level + 1e-12).argmax()) + 1


def _early_stopping(network: LCPFN, size: _Size, seed: int) -> list[Claim]:
    methods = ["no stop", "fine", "coarse", *(f"patience {k}" for k in PATIENCE)]
    names = learning_curve_sets()[: size.sets]
    found = [_selections(network, name, size, seed) for name in names]
    ups = {m: [f["no stop"].speed_up(f[m]) for f in found] for m in methods}
    area = {m: _area_ratio(found, m) for m in methods}
    final = {m: fmean(float(f[m].regret[-1]) for f in found) for m in methods}
    best = min((m for m in methods if m.startswith("patience")), key=lambda m: area[m])
    table = "; ".join(
        f"{m}: {fmean(ups[m]):.2f} times faster, regret {area[m]:.2f} of no stop's, at last "
        f"{final[m]:.4f}"
        for m in methods[1:]
    )
    sets = ", ".join(f"{n} {u:.1f}" for n, u in zip(names, ups["fine"], strict=True))
    paper = (
        "abstract: 2 to 6 times faster on 45 of 53 data sets; 3.3 times on average of two suites"
    )
    return [
        Claim(
            statement="Stopping by its forecasts makes the selection of a network faster.",
            paper_figure=paper,
            metric="epochs of no stop / epochs to the same accuracy, mean over data sets",
            bar=1.5,
            direction="at least",
            measured=fmean(ups["fine"]),
            seeds=(seed,),
            reason=f"{size.orders} orders of each set; {sets}; {table}",
        ),
        Claim(
            statement="So it does on most data sets.",
            paper_figure="abstract: 45 of 53 data sets",
            metric="share of the data sets on which it is faster than no stop",
            bar=45 / 53,
            direction="at least",
            measured=fmean(float(up > 1.0) for up in ups["fine"]),
            seeds=(seed,),
        ),
        Claim(
            statement="At any time it has found better networks than the best patience.",
            paper_figure="regret over the budget, against six patiences",
            metric="regret over the budget / that of the best patience, geometric mean",
            bar=1.0,
            direction="at most",
            measured=area["fine"] / area[best],
            seeds=(seed,),
            reason=f"the best of {len(PATIENCE)} is {best}, chosen after the fact",
        ),
    ]


def _area_ratio(found: Sequence[Mapping[str, Selection]], method: str) -> float:
    """Regret summed over the budget as a share of no stop's, geometric mean over sets."""
    ratios = [f[method].regret.sum() / f["no stop"].regret.sum() for f in found]
    return float(np.exp(np.log(ratios).mean()))


def _selections(network: LCPFN, name: str, size: _Size, seed: int) -> dict[str, Selection]:
    """Regret of each method on one data set."""
    curves = load_learning_curves(name).accuracy
    limits = forecast_limits(network, curves, min(size.epochs, RUN - 1))
    coarse = np.full_like(limits, np.inf)
    for share in COARSE:
        coarse[:, math.ceil(share * RUN) - 1] = limits[:, math.ceil(share * RUN) - 1]
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(len(curves)) for _ in range(size.orders)])
    never = np.full_like(limits, np.inf)
    selections = {
        "no stop": select(curves, never, orders),
        "fine": select(curves, limits, orders),
        "coarse": select(curves, coarse, orders),
    }
    for k in PATIENCE:
        selections[f"patience {k}"] = select(curves, patience_limits(curves, k), orders)
    return selections


def forecast_limits(network: LCPFN, curves: Floats, epochs: int) -> Floats:
    r"""Value at or above which the best so far stops a run after each epoch.

    The rule of `PredictiveStopper`, :math:`P(y_{t'} > y_{best}) \le \delta` for all t', is that the
    best so far is at least the largest :math:`1 - \delta` quantile of what is to come.

    Parameters
    ----------
    network : LCPFN
    curves : array (n, 50)
        Accuracies.
    epochs : int
        After which the rule decides, from the first on.

    Returns
    -------
    array (n, 50)
        Infinite after the other epochs.
    """
    normaliser = CurveNormaliser()
    g = normaliser(torch.from_numpy(curves)).float()
    level = torch.tensor([1.0 - PredictiveStopper(RUN, network).delta])
    limits = np.full(curves.shape, np.inf)
    for T in range(1, epochs + 1):
        bars = network.predict(g[:, :T], torch.arange(T + 1, RUN + 1))
        highest = bars.quantile(level)[0].amax(1).double()
        limits[:, T - 1] = normaliser.inverse(highest).numpy()
    return limits


def patience_limits(curves: Floats, patience: int) -> Floats:
    """The same for `Patience`: whatever the best so far, a run without a better one is stopped."""
    best_at = np.maximum.accumulate(
        np.where(curves > _before(curves), np.arange(curves.shape[1]), 0), axis=1
    )
    waited = np.arange(curves.shape[1]) - best_at
    return np.where(waited > patience, -np.inf, np.inf)


def _before(curves: Floats) -> Floats:
    """Best value before each epoch."""
    best = np.maximum.accumulate(curves, axis=1)
    return np.hstack([np.full((len(curves), 1), -np.inf), best[:, :-1]])


def select(curves: Floats, limits: Floats, orders: NDArray[np.int_]) -> Selection:
    """Train runs in given orders, each until its rule stops it or its last epoch.

    Parameters
    ----------
    curves, limits : array (n, epochs)
        Values, and the best so far that stops a run after each epoch.
    orders : array of int (k, n)

    Returns
    -------
    Selection
        Over a budget of 20 whole runs.
    """
    k, m = len(orders), curves.shape[1]
    budget = BUDGET * m
    spent = np.zeros(k, dtype=np.int64)
    best = np.full(k, -np.inf)
    reached = np.full((k, budget + m), -np.inf)
    last = np.arange(m) == m - 1
    for runs in orders.T:
        so_far = np.maximum(best[:, None], np.maximum.accumulate(curves[runs], axis=1))
        stop = ((so_far >= limits[runs]) | last).argmax(1)
        at = spent[:, None] + np.arange(m)
        used = (np.arange(m) <= stop[:, None]) & (at < budget)
        rows, columns = np.nonzero(used)
        reached[rows, at[rows, columns]] = so_far[rows, columns]
        going = spent < budget
        best = np.where(going, so_far[np.arange(k), stop], best)
        spent = np.where(going, spent + stop + 1, spent)
    regret = curves.max() - np.maximum.accumulate(reached[:, :budget], axis=1)
    return Selection(regret.mean(0))
