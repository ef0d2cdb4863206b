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

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from understudy.core.linalg import one_thread
from understudy.data.learning_curves import learning_curve_sets
from understudy.models.incontext.curve_mcmc import MCMCExtrapolator
from understudy.models.incontext.lcpfn import LCPFN
from understudy.reproduce.claims import Claim, Scale
from understudy.reproduce.extrapolation.scores import Scores, prior_scores, real_scores
from understudy.reproduce.extrapolation.selection import PATIENCE, area_ratio, selections_on
from understudy.reproduce.extrapolation.setting import CUTOFFS, LEVELS, SIZES, Size, moves
from understudy.reproduce.extrapolation.times import times_of_one


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
    size = SIZES[scale]
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


def _accuracy(network: LCPFN, size: Size, seeds: Sequence[int]) -> list[Claim]:
    found = {seed: prior_scores(network, size, seed) for seed in seeds}
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


# -- speed ----------------------------------------------------------------------------------------


def _speed(network: LCPFN, size: Size, seed: int) -> list[Claim]:
    """CPU time of one curve on one thread: prediction and log density of all epochs after 20."""
    times = times_of_one(network, size, seed)
    said = (
        f"one curve: network {1e3 * times.network:.1f} ms; {size.timed.walkers} walkers one by one "
        f"{times.one_by_one:.1f} s; {size.chains.walkers} walkers in batches {times.batched:.2f} s"
    )
    common: dict[str, Any] = {"seeds": (seed,), "direction": "at least", "bar": 1000.0}
    figure = "abstract: over 10,000 times faster; Table 3: 0.004 to 0.05 s beside 54 s (M1)"
    return [
        Claim(
            statement="One pass is orders of magnitude faster than the Markov chains of the paper.",
            paper_figure=figure,
            metric=f"CPU time of M1 ({_named(size.timed)}, emcee) / network's",
            measured=times.one_by_one / times.network,
            reason=said,
            **common,
        ),
        Claim(
            statement="So it is beside chains that move all walkers at once.",
            paper_figure=figure,
            metric=f"CPU time of {_named(size.chains)}, in batches / network's",
            measured=times.batched / times.network,
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
            measured=1e3 * times.network,
            seeds=(seed,),
        ),
    ]


def _named(chains: MCMCExtrapolator) -> str:
    return f"{chains.walkers} walkers, {moves(chains)} moves"


# -- real curves ----------------------------------------------------------------------------------


def _real_curves(network: LCPFN, size: Size, seed: int) -> list[Claim]:
    """Mean rank, over data sets and metrics, of the mean log density at each cut-off."""
    found = real_scores(network, size, seed)
    ranks = found.ranks
    table = "; ".join(
        f"{cut:.0%}: network {m[0]:.2f} (rank {r[0]:.2f}), chains {m[1]:.2f} ({r[1]:.2f}), last "
        f"value {m[2]:.2f} ({r[2]:.2f})"
        for cut, m, r in zip(CUTOFFS, found.scores.mean(0), ranks, strict=True)
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
            reason=f"{len(found.scores)} sets and metrics, {size.real} curves each; {table}",
        ),
        Claim(
            statement="Its intervals hold what they say on curves of real networks.",
            paper_figure="not in the paper",
            metric="largest error of the coverage of 50, 80, 90 and 95 % intervals",
            bar=0.10,
            direction="at most",
            measured=float(np.abs(found.coverage.mean(0) - LEVELS).max()),
            seeds=(seed,),
            reason="; ".join(
                f"{level:.0%} intervals hold {accuracy:.1%} of accuracies and {loss:.1%} of losses"
                for level, accuracy, loss in zip(
                    LEVELS, found.coverage[::2].mean(0), found.coverage[1::2].mean(0), strict=True
                )
            ),
        ),
    ]


# -- early stopping -------------------------------------------------------------------------------


def _early_stopping(network: LCPFN, size: Size, seed: int) -> list[Claim]:
    methods = ["no stop", "fine", "coarse", *(f"patience {k}" for k in PATIENCE)]
    names = learning_curve_sets()[: size.sets]
    found = [selections_on(network, name, size, seed) for name in names]
    ups = {m: [f["no stop"].speed_up(f[m]) for f in found] for m in methods}
    area = {m: area_ratio(found, m) for m in methods}
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
