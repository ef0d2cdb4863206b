r"""Claims of Li, Rudner & Wilson (2024, arXiv 2305.20028), measured.

Every search starts from the same scrambled Sobol points for all surrogates at a seed, proposes by
the study's own acquisition functions and optimiser, and is judged by the best value after the last
run. The draws of networks and polynomials are new at each seed. How well a posterior over networks
is approximated is measured away from any search, on one posterior that all methods are given:
by the distance, at each of many inputs, between their draws of the function and those of long runs
of HMC,

.. math:: D^2 = 2\,E|X - Y| - E|X - X'| - E|Y - Y'| = 2 \int (F - G)^2 .
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from understudy.core.linalg import one_thread
from understudy.core.simulator import Simulator
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.bnn_study import (
    LinearisedLaplace,
    ModeEnsemble,
    study_surrogates,
)
from understudy.models.tabular.hmc import HMCSurrogate
from understudy.models.tabular.sghmc import SGHMCSurrogate
from understudy.reproduce.claims import Claim, Scale
from understudy.sample.diagnostics import diagnose
from understudy.search.bayesopt.loop import BayesOptLoop
from understudy.simulate.functions import Hartmann6
from understudy.simulate.objectives import (
    Ackley,
    Branin,
    BraninCurrin,
    NetworkDraw,
    ObjectiveFunction,
    PolynomialDraw,
)

PRIOR_VARIANCE, NOISE_VARIANCE = 1.0, 0.1
"""Of the posterior that samplers are compared on; noise in units of the outputs' variance."""

BRANIN_NOISE = 0.01
"""Noise variance that the three are given in the search, which spares a grid in every round."""

PROCESSES = ("gp", "gp-2024", "ibnn", "random")
INFERENCE = ("hmc", "sghmc", "ensemble")
LONG_SGHMC = "sghmc of five times the steps"


@dataclass(frozen=True)
class _Search:
    """How long a search is: Sobol points, rounds, and points of a round."""

    initial: int
    rounds: int
    q: int = 5


@dataclass(frozen=True)
class _Size:
    """What a scale spends."""

    inputs: int
    many: _Search
    few: _Search
    hartmann: _Search
    seeds: int
    fewer_seeds: int
    hidden: tuple[int, ...]
    dkl_steps: int
    ensemble_steps: int
    chain: int
    search_chain: int
    reference: tuple[int, int]
    rows: int


_SIZES = {
    Scale.SMOKE: _Size(
        8, _Search(5, 1), _Search(5, 1), _Search(5, 1), 1, 1, (4,), 5, 10, 10, 10, (20, 20), 10
    ),
    Scale.CPU: _Size(
        100,
        _Search(20, 8),
        _Search(10, 6),
        _Search(10, 10),
        *(5, 3, (32, 32), 1000, 1000, 500, 200, (150, 750), 30),
    ),
    Scale.PAPER: _Size(
        400,
        _Search(100, 50, 10),
        _Search(10, 19, 10),
        _Search(10, 19, 10),
        *(5, 5, (128, 128, 128), 5000, 1000, 500, 500, (1000, 4000), 40),
    ),
}


@dataclass
class _Bench:
    """Final values of searches, each run once.

    Values are large where a search was good.
    """

    size: _Size
    finals: dict[tuple[str, str, int], float] = field(default_factory=dict)

    def final(self, problem: str, surrogate: str, seed: int) -> float:
        """Best value, sign so that large is good, or hypervolume."""
        key = (problem, surrogate, seed)
        if key not in self.finals:
            objective, search = _PROBLEMS[problem](self.size, seed)
            model = None if surrogate == "random" else self.surrogate(problem, surrogate)
            loop = BayesOptLoop(
                objective, model, q=search.q, n_init=search.initial, n_iters=search.rounds,
                seed=seed,
            )  # fmt: skip
            sign = loop.problem.objectives[0].sign if len(loop.problem.objectives) == 1 else 1.0
            self.finals[key] = sign * loop.run().final
        return self.finals[key]

    def surrogate(self, problem: str, name: str) -> Surrogate:
        """Return the study's surrogate with networks and steps of this scale."""
        model = study_surrogates(low_dimensional=problem not in ("network", "polynomial"))[name]
        known, size = model.get_params(deep=False), self.size
        changes: dict[str, object] = {"hidden": size.hidden} if "hidden" in known else {}
        if name == "dkl":
            changes |= {"pretraining_steps": size.dkl_steps, "steps": size.dkl_steps}
        if name == "ensemble":
            changes |= {"steps": size.ensemble_steps}
        if name in INFERENCE and problem == "branin":
            changes |= {"prior_variance": PRIOR_VARIANCE}
            changes |= {"noise_mean" if name == "sghmc" else "noise_variance": BRANIN_NOISE}
        if name == "hmc":
            changes |= {"burn_in": size.search_chain, "samples": size.search_chain}
        if name == "sghmc":
            changes |= {"steps": 4 * size.chain, "burn_in": 2 * size.chain}
        return model.set_params(**changes)

    def means(self, problem: str, surrogates: Sequence[str], seeds: Sequence[int]) -> str:
        """Mean finals of surrogates, as text."""
        return ", ".join(
            f"{name} {fmean(self.final(problem, name, seed) for seed in seeds):.3g}"
            for name in surrogates
        )


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` has draws of 100 inputs, 60 runs a search and networks of two layers of 32;
        ``paper`` 400 inputs, 600 runs and three layers of 128.
    seed : int
        Of the first repetition; the others follow it.
    """
    size = _SIZES[scale]
    bench = _Bench(size)
    seeds, fewer = range(seed, seed + size.seeds), range(seed, seed + size.fewer_seeds)
    with one_thread():
        return [
            *_many_inputs(bench, seeds),
            *_inference(bench, fewer),
            *_hartmann(bench, fewer),
            _ranking(bench, fewer),
        ]


# -- problems -------------------------------------------------------------------------------------


def _network(size: _Size, seed: int) -> tuple[ObjectiveFunction, _Search]:
    return NetworkDraw(size.inputs, seed), size.many


def _polynomial(size: _Size, seed: int) -> tuple[ObjectiveFunction, _Search]:
    return PolynomialDraw(size.inputs, seed), size.many


_PROBLEMS: dict[str, Callable[[_Size, int], tuple[Simulator, _Search]]] = {
    "network": _network,
    "polynomial": _polynomial,
    "branin": lambda size, seed: (Branin(), size.few),
    "branin-currin": lambda size, seed: (BraninCurrin(), size.few),
    "ackley": lambda size, seed: (Ackley(10), size.few),
    "hartmann": lambda size, seed: (Hartmann6(), size.hartmann),
}


# -- 1: many inputs -------------------------------------------------------------------------------


def _many_inputs(bench: _Bench, seeds: Sequence[int]) -> list[Claim]:
    """I-BNN against the Gaussian process of the paper, and what else was run."""
    size, claims = bench.size, []
    runs = size.many.initial + size.many.rounds * size.many.q
    for problem in ("network", "polynomial"):
        won = {
            rival: {
                seed: float(bench.final(problem, "ibnn", seed) > bench.final(problem, rival, seed))
                for seed in seeds
            }
            for rival in ("gp", "gp-2024", "random")
        }
        others = ", ".join(
            f"{sum(won[rival].values()):.0f} of {len(seeds)} against {name}"
            for rival, name in (
                ("gp-2024", "a GP with the dimension-scaled prior of 2024"),
                ("random", "random points"),
            )
        )
        claims.append(
            Claim.over_seeds(
                won["gp"],
                statement=(
                    "Infinitely wide networks beat the standard Gaussian process in many "
                    f"dimensions: a {problem} draw"
                ),
                paper_figure="finding (v): I-BNN is strongest in high dimension",
                metric=(
                    f"share of seeds on which I-BNN's best of {runs} runs is larger, "
                    f"d = {size.inputs}"
                ),
                bar=0.8,
                direction="at least",
                reason=(
                    f"mean best {bench.means(problem, PROCESSES, seeds)}; not claimed: better on "
                    f"{others}"
                ),
            )
        )
    return claims


# -- 2: inference for finite networks -----------------------------------------------------------


class _SameInputs(SGHMCSurrogate):
    """SGHMC on the inputs that the other methods see, so that the posterior is the same."""

    def _standardised(self, U: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(U[0]), torch.ones_like(U[0])


def _approximations(size: _Size, seed: int) -> dict[str, Surrogate]:
    """Methods, all given the prior and the noise of one posterior."""
    given: dict[str, Any] = {"prior_variance": PRIOR_VARIANCE, "noise_variance": NOISE_VARIANCE}
    hidden, n = size.hidden, size.chain
    sghmc = _SameInputs(
        hidden=hidden,
        steps=4 * n,
        burn_in=2 * n,
        prior_variance=PRIOR_VARIANCE,
        noise_mean=NOISE_VARIANCE,
        noise_spread=1e-4,
        seed=seed,
    )
    return {
        "hmc": HMCSurrogate(hidden=hidden, burn_in=n, samples=n, seed=seed, **given),
        "sghmc": sghmc,
        LONG_SGHMC: clone(sghmc).set_params(steps=20 * n),
        "ensemble": ModeEnsemble(hidden=hidden, steps=size.ensemble_steps, seed=seed, **given),
        "lla": LinearisedLaplace(hidden=hidden, steps=size.ensemble_steps, seed=seed, **given),
    }  # fmt: skip


def _reference(size: _Size, seed: int) -> HMCSurrogate:
    burn_in, samples = size.reference
    return HMCSurrogate(
        hidden=size.hidden,
        prior_variance=PRIOR_VARIANCE,
        noise_variance=NOISE_VARIANCE,
        chains=4,
        burn_in=burn_in,
        samples=samples,
        path_length=0.4,
        jitter=0.2,
        mass="diagonal",
        seed=seed + 1000,
    )


def regression(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy wave on [0, 1] with a gap in the middle: inputs (n, 1) and outputs (n,)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.0, 0.65, rows)
    x = np.where(x > 0.35, x + 0.35, x)
    return x[:, None], np.sin(8.0 * x) + 0.25 * rng.standard_normal(rows)


def energy_distance(A: Tensor, B: Tensor) -> Tensor:
    """Energy distance (n,) of draws A (s, n) and B (t, n) at each of n points.

    The square root of :math:`2 E|X - Y| - E|X - X'| - E|Y - Y'|`, by the difference of the
    distribution functions.
    """
    joint, order = torch.cat([A, B]).sort(0)
    weight = torch.cat([A.new_full((len(A),), 1.0 / len(A)), A.new_full((len(B),), -1.0 / len(B))])
    apart = weight[order].cumsum(0)[:-1]
    return (2.0 * (apart.square() * joint.diff(dim=0)).sum(0)).clamp_min(0.0).sqrt()


@torch.no_grad()
def _draws(surrogate: Surrogate, X: Tensor, scale: float, seed: int) -> Tensor:
    """Draws (s, n) of the function: all that there are, or a thousand."""
    torch.manual_seed(seed)
    posterior = surrogate.posterior(X)
    values = getattr(posterior, "values", None)
    drawn = posterior.rsample(torch.Size([1000])) if values is None else values
    return drawn[..., 0] / scale


@dataclass(frozen=True)
class _Approximation:
    """Distances of each method from the reference at one seed, and of the reference to itself."""

    distance: Mapping[str, float]
    error: Mapping[str, float]
    rhat: float
    ten: float


def _approximate(size: _Size, seed: int) -> _Approximation:
    x, y = regression(size.rows, seed)
    X, scale = torch.linspace(0.0, 1.0, 60, dtype=torch.float64).unsqueeze(1), float(y.std(ddof=1))
    long = _reference(size, seed).fit(x, y)
    with torch.random.fork_rng(devices=[]):
        truth = _draws(long, X, scale, seed)
        fitted = {name: s.fit(x, y) for name, s in _approximations(size, seed).items()}
        draws = {name: _draws(s, X, scale, seed) for name, s in fitted.items()}
        some = truth[torch.randperm(len(truth))[:10]]
    by_chain = truth.reshape(-1, 4, len(X))
    return _Approximation(
        {name: float(energy_distance(d, truth).mean()) for name, d in draws.items()},
        {
            name: float((d.mean(0) - truth.mean(0)).square().mean().sqrt())
            for name, d in draws.items()
        },
        float(diagnose(by_chain).r_hat.max()),
        float(energy_distance(some, truth).mean()),
    )


def _inference(bench: _Bench, seeds: Sequence[int]) -> list[Claim]:
    found = {seed: _approximate(bench.size, seed) for seed in seeds}
    size = bench.size
    table = "; ".join(
        f"{name}: distance {fmean(f.distance[name] for f in found.values()):.3g}, error of the "
        f"mean {fmean(f.error[name] for f in found.values()):.3g}"
        for name in (*INFERENCE, LONG_SGHMC, "lla")
    )
    reference = (
        f"{table}; ten draws of the reference itself are at distance "
        f"{fmean(f.ten for f in found.values()):.3g}; R-hat of its predictions at most "
        f"{max(f.rhat for f in found.values()):.3f}"
    )
    metric = (
        "energy distance to long HMC, as a ratio, mean over 60 inputs; networks of "
        f"{' x '.join(map(str, size.hidden))}, n = {size.rows}"
    )
    claims = [
        Claim.over_seeds(
            {seed: f.distance[better] / f.distance[worse] for seed, f in found.items()},
            statement=statement,
            paper_figure="finding (ii): HMC is the best inference for finite networks",
            metric=f"{metric}: {better} over {worse}",
            bar=1.0,
            direction="at most",
            reason=reference,
        )
        for better, worse, statement in (
            ("hmc", "sghmc", "A short HMC run is nearer to the posterior than SGHMC"),
            ("sghmc", "ensemble", "SGHMC is nearer to the posterior than a deep ensemble"),
            (
                LONG_SGHMC,
                "ensemble",
                "SGHMC of five times the steps is nearer to the posterior than a deep ensemble",
            ),
        )
    ]
    ranks = {seed: _ranks(bench, "branin", INFERENCE, seed) for seed in seeds}
    claims.append(
        Claim.over_seeds(
            {seed: r["hmc"] - min(r["sghmc"], r["ensemble"]) for seed, r in ranks.items()},
            statement="HMC finds better points than SGHMC and ensembles: Branin's function",
            paper_figure="finding (ii)",
            metric=(
                "rank of HMC less that of the better of the two others, by the best of "
                f"{size.few.initial + size.few.rounds * size.few.q} runs"
            ),
            bar=0.0,
            direction="at most",
            reason=(
                "mean best, negated: "
                f"{bench.means('branin', (*INFERENCE, 'gp', 'ibnn', 'random'), seeds)}"
            ),
        )
    )
    return claims


def _ranks(bench: _Bench, problem: str, surrogates: Sequence[str], seed: int) -> dict[str, float]:
    """Ranks of surrogates at a seed, 1 the best; those that tie share."""
    finals = {name: bench.final(problem, name, seed) for name in surrogates}
    return {
        name: 1.0
        + sum(other > value for other in finals.values())
        + 0.5 * (sum(other == value for other in finals.values()) - 1)
        for name, value in finals.items()
    }


# -- 3: deep kernels and ensembles ----------------------------------------------------------------


def _hartmann(bench: _Bench, seeds: Sequence[int]) -> list[Claim]:
    def regret(name: str, seed: int) -> float:
        return max(-bench.final("hartmann", name, seed) - Hartmann6.minimum, 1e-6)

    shared = {
        "metric": (
            "binary logarithm of the ratio of regrets after "
            f"{bench.size.hartmann.initial + bench.size.hartmann.rounds * bench.size.hartmann.q} "
            "runs"
        ),
        "reason": (
            "mean regret: "
            + ", ".join(
                f"{name} {fmean(regret(name, seed) for seed in seeds):.3g}"
                for name in (*PROCESSES, "dkl", "ensemble")
            )
        ),
    }
    return [
        Claim.over_seeds(
            {s: math.log2(regret("dkl", s) / regret("gp", s)) for s in seeds},
            statement="Deep kernel learning is competitive with a Gaussian process: Hartmann's",
            paper_figure="finding (iii)",
            bar=1.0,
            direction="at most",
            **shared,
        ),
        Claim.over_seeds(
            {s: math.log2(regret("ensemble", s) / regret("gp", s)) for s in seeds},
            statement="Deep ensembles fall behind a Gaussian process: Hartmann's",
            paper_figure="finding (iv): ensembles perform poorly, they under-explore",
            bar=0.0,
            direction="at least",
            **shared,
        ),
    ]


# -- 4: ranking -----------------------------------------------------------------------------------

COMPARED: Mapping[str, tuple[str, ...]] = {
    "branin": (*PROCESSES, *INFERENCE),
    "branin-currin": PROCESSES,
    "ackley": PROCESSES,
    "hartmann": (*PROCESSES, "dkl", "ensemble"),
    "network": PROCESSES,
    "polynomial": PROCESSES,
}
"""What is ranked on each problem."""


def _ranking(bench: _Bench, seeds: Sequence[int]) -> Claim:
    """How often the same surrogate is first by its mean rank."""
    means = {
        problem: {
            name: fmean(_ranks(bench, problem, names, seed)[name] for seed in seeds)
            for name in names
        }
        for problem, names in COMPARED.items()
    }
    firsts = [min(ranks, key=lambda name: ranks[name]) for ranks in means.values()]
    most = max(firsts.count(name) for name in firsts)
    table = "; ".join(
        f"{problem}: "
        + ", ".join(f"{n} {r:.1f}" for n, r in sorted(ranks.items(), key=lambda i: i[1]))
        for problem, ranks in means.items()
    )
    return Claim(
        statement="Which surrogate is best depends on the problem: none is first everywhere",
        paper_figure="finding (i)",
        metric=f"problems of {len(means)} on which one surrogate has the best mean rank, at most",
        bar=len(means) - 1,
        direction="at most",
        measured=most,
        seeds=tuple(seeds),
        reason=f"mean ranks: {table}",
    )
