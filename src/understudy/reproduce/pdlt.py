r"""Claims of *The Principles of Deep Learning Theory*, measured on random and trained networks.

Roberts, Yaida & Hanin (2022, arXiv 2106.10165). No code is published with the book; the statements
are of its chapters 4, 5, 8, 9 and of its appendices, their figures worked out here from its
recursions. Networks of 50 layers have 100 units, random ones start from a first layer of variance
1, and trained ones learn scikit-learn's digits by plain stochastic gradient descent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import numpy as np
import torch

from understudy.nn.criticality import find_critical_point
from understudy.nn.gaussian_expectation import activation
from understudy.nn.random_networks import Ensemble
from understudy.nn.signal_propagation import LearningRates, SignalPropagation, optimal_aspect_ratio
from understudy.reproduce.claims import Claim, Scale
from understudy.reproduce.criticality.digits import best_accuracies, load_centred
from understudy.reproduce.criticality.fluctuations import (
    closed_vertex,
    collapse,
    deviations_of,
    full_vertex,
    residual_deviation,
    slope_of,
    tangent_statistics,
)
from understudy.reproduce.criticality.networks import depth_changes
from understudy.reproduce.criticality.rates import best_log_rates, rules_of
from understudy.reproduce.criticality.setting import BUDGETS, Budget


def run(scale: Scale, seed: int = 0) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``smoke`` shows that the path runs; ``paper`` draws 100,000 networks and trains wider ones.
    seed : int
        Of the first repetition; the others follow it.
    """
    budget = BUDGETS[scale]
    seeds = range(seed, seed + budget.seeds)
    return [
        *_kept_signals(budget, seeds),
        *_trainability(budget, seeds),
        *_universality(seeds),
        *_vertex(budget, seeds),
        *_tangent_kernel(budget, seeds),
        *_learning_rates(budget, seeds),
        *_residual(budget, seeds),
    ]


# -- 1: criticality keeps signals and gradients -------------------------------------------------


def _kept_signals(budget: Budget, seeds: Sequence[int]) -> Iterable[Claim]:
    gelu = find_critical_point("gelu")
    cases = {"relu": (0.0, 2.0, 1.0), "gelu": (gelu.C_b, gelu.C_W, gelu.K_star)}
    for name, (C_b, C_W, K1) in cases.items():
        found = {seed: depth_changes(name, C_b, C_W, K1, budget, seed) for seed in seeds}
        yield Claim.over_seeds(
            {seed: max(map(_factor, changes)) for seed, changes in found.items()},
            statement=f"At criticality neither K nor the gradients of {name} change with depth",
            paper_figure="Secs. 5.2 and 5.3.4: chi_par = chi_perp = 1",
            metric=f"largest factor over {budget.deep} layers, K and squared gradient norm",
            bar=3.0,
            direction="at most",
            reason=_heavy_tail(budget),
        )
    found = {seed: depth_changes("tanh", 0.0, 1.0, 1.0, budget, seed) for seed in seeds}
    K = SignalPropagation("tanh", 0.0, 1.0).variances(1.0, budget.deep)
    yield Claim.over_seeds(
        {s: max(_factor(c[0] / float(K[-1])), _factor(c[1])) for s, c in found.items()},
        statement="At criticality K of tanh falls as 1/(2l) and its gradients stay",
        paper_figure="Sec. 5.3.3: K = 1/(2l), p_perp = 1",
        metric="largest factor off: K against the recursion, squared gradient norm last over first",
        bar=3.0,
        direction="at most",
    )
    for C_W in (1.8, 2.2):
        expected = (C_W / 2.0) ** (budget.deep - 1)
        found = {seed: depth_changes("relu", 0.0, C_W, 1.0, budget, seed) for seed in seeds}
        yield Claim.over_seeds(
            {seed: _factor(changes[0] / expected) for seed, changes in found.items()},
            statement=f"Off criticality, C_W = {C_W}, K of ReLU changes exponentially",
            paper_figure=f"Sec. 5.2: factor (C_W/2)^{budget.deep - 1} = {expected:.3g}",
            metric="factor between the measured and the predicted change of K",
            bar=2.0,
            direction="at most",
            reason=_heavy_tail(budget),
        )


def _factor(value: float) -> float:
    """How far off 1, up or down."""
    return max(value, 1.0 / value) if value > 0.0 else math.inf


def _heavy_tail(budget: Budget) -> str:
    return (
        f"means over {budget.deep_networks} networks a seed; at depth/width {budget.deep / 100:g} "
        "single networks scatter log-normally, with a variance of ln K near 5 l/n for ReLU"
    )


def _trainability(budget: Budget, seeds: Sequence[int]) -> Iterable[Claim]:
    data = load_centred()
    for name in ("relu", "tanh"):
        table = best_accuracies(name, (0.7, 1.0, 1.4), budget, seeds, data)
        yield from _trainability_claims(name, table, budget, seeds)


def _trainability_claims(
    name: str, accuracy: Mapping[float, list[float]], budget: Budget, seeds: Sequence[int]
) -> Iterable[Claim]:
    means = ", ".join(
        f"{fmean(a):.3f} at {factor:g} (squared gradients times "
        f"{_backward(name, factor, budget):.2g})"
        for factor, a in accuracy.items()
    )
    every = (
        f"mean accuracy at C_W over its critical value, with what the recursion says of the "
        f"gradients over the depth: {means}; each network at the best of six learning rates; "
        f"depth/width is {budget.deep / 100:g}"
    )
    setup = f"{budget.deep} layers of 100 units, {budget.training_steps} steps"
    yield Claim.over_seeds(
        dict(zip(seeds, accuracy[1.0], strict=True)),
        statement=f"A deep {name} network trains at criticality",
        paper_figure="Sec. 5.3.4 and ch. 9: criticality makes deep networks trainable",
        metric=f"test accuracy on digits, {setup}",
        bar=0.9,
        direction="at least",
        reason=every,
    )
    off = [a for factor, a in accuracy.items() if factor != 1.0]
    yield Claim.over_seeds(
        dict(zip(seeds, map(max, zip(*off, strict=True)), strict=True)),
        statement=f"A deep {name} network trains nowhere else",
        paper_figure="Sec. 5.2: exploding or vanishing signals off criticality",
        metric=f"best test accuracy at C_W off by 0.7 or 1.4, {setup}",
        bar=0.9,
        direction="at most",
        reason=every,
    )


def _backward(name: str, factor: float, budget: Budget) -> float:
    """Product of chi_perp over the depth at C_W off by a factor, from K = 1."""
    here = SignalPropagation(name, 0.0, factor * find_critical_point(name).C_W)
    K = here.variances(1.0, budget.deep)
    return float(here.susceptibilities(K[:-1]).perpendicular.prod())


# -- 2: universality ----------------------------------------------------------------------------


def _universality(seeds: Sequence[int]) -> Iterable[Claim]:
    for name, limit in (("tanh", 0.5), ("sin", 1.0)):
        K = float(SignalPropagation.critical(name).variances(1.0, 1000)[-1])
        yield Claim(
            statement=f"Critical {name} forgets its input: K = {limit:g}/l at large depth",
            paper_figure=f"Sec. 5.3.3: l K -> 1/(-a1) = {limit:g}",
            metric=f"|l K / {limit:g} - 1| at layer 1000, from K = 1",
            bar=0.01,
            direction="at most",
            measured=abs(1000 * K / limit - 1.0),
            seeds=(seeds[0],),
            reason="exact recursion, nothing random",
        )


# -- 3: depth over width governs fluctuations ---------------------------------------------------

_VERTEX_LAYERS = {"relu": 10, "linear": 10, "tanh": 20}


def _vertex(budget: Budget, seeds: Sequence[int]) -> Iterable[Claim]:
    for name, nu in (("relu", 5.0), ("linear", 2.0), ("tanh", 2.0 / 3.0)):
        C_W = find_critical_point(name).C_W
        by_seed = {
            seed: {
                n: deviations_of(
                    Ensemble(activation(name), 0.0, C_W, n, _VERTEX_LAYERS[name]),
                    budget.networks,
                    seed,
                )
                for n in budget.widths
            }
            for seed in seeds
        }
        slopes = {seed: slope_of(found) for seed, found in by_seed.items()}
        yield Claim(
            statement=f"Fluctuations of critical {name} networks grow by nu = {nu:.3g} a layer",
            paper_figure=f"Ch. 4 and sec. 5.4: V/K^2 -> {nu:.3g} l",
            metric="|slope / nu - 1| of n V/K^2 in l, extrapolated to n = infinity",
            bar=0.1,
            direction="at most",
            measured=abs(fmean(slopes.values()) / nu - 1.0),
            seeds=tuple(seeds),
            spread=float(np.std(list(slopes.values()), ddof=1)) / nu,
            reason=f"mean slope {fmean(slopes.values()):.4g} over {budget.networks} networks a "
            f"seed and widths {', '.join(map(str, budget.widths))}",
        )
        pooled = {
            n: torch.stack([found[n] for found in by_seed.values()]).mean(0) for n in budget.widths
        }
        yield Claim(
            statement=f"The fluctuations of {name} networks depend on depth over width alone",
            paper_figure="Sec. 4.4: corrections go as L/n",
            metric="relative range over the widths of V/(n K^2) at (l - 1)/n = "
            f"2/{min(budget.widths)}",
            bar=0.15,
            direction="at most",
            measured=collapse(pooled),
            seeds=tuple(seeds),
        )


# -- 4: the neural tangent kernel ---------------------------------------------------------------


def _tangent_kernel(budget: Budget, seeds: Sequence[int]) -> Iterable[Claim]:
    theory = SignalPropagation("relu", 0.0, 2.0).ntk_fluctuations(
        1.0, 4, LearningRates(0.0, 1.0), squared_input=1.0
    )
    errors: dict[int, dict[str, float]] = {}
    measured: dict[int, dict[str, float]] = {}
    narrow, wide = budget.tangent_widths
    for width in (narrow, wide):
        found = [tangent_statistics(width, budget.tangent_networks, seed) for seed in seeds]
        measured[width] = {name: fmean(f[name] for f in found) for name in found[0]}
        errors[width] = {
            name: value / float(getattr(theory, name)[-1]) - 1.0
            for name, value in measured[width].items()
        }
    figures = ", ".join(
        f"{name} {value:.4g} (theory {float(getattr(theory, name)[-1]):.4g})"
        for name, value in measured[wide].items()
    )
    yield Claim(
        statement="The recursions give the mean and the fluctuations of the NTK",
        paper_figure="Ch. 8: V 15, Theta 2.5, D 19.5, F 9, A 32.75, B 14.5 by its recursions",
        metric=f"largest relative error of V, Theta, D, F, A, B: ReLU, layer 4, width {wide}",
        bar=0.12,
        direction="at most",
        measured=max(map(abs, errors[wide].values())),
        seeds=tuple(seeds),
        reason=f"measured {figures}",
    )
    fluctuations = [name for name in errors[wide] if name != "Theta"]
    mean_errors = {n: fmean(errors[n][name] for name in fluctuations) for n in errors}
    yield Claim(
        statement="The error of the leading order falls as one over the width",
        paper_figure="Ch. 8: corrections are O(1/n), so that it halves",
        metric=f"|log2(mean relative error at width {narrow} / at width {wide}) - 1|",
        bar=0.5,
        direction="at most",
        measured=abs(math.log2(max(mean_errors[narrow] / mean_errors[wide], 1e-9)) - 1.0),
        seeds=tuple(seeds),
        reason=f"mean relative errors {mean_errors[narrow]:.3g} and {mean_errors[wide]:.3g} of "
        "V, D, F, A, B",
    )


# -- 5: learning rates --------------------------------------------------------------------------


def _learning_rates(budget: Budget, seeds: Sequence[int]) -> Iterable[Claim]:
    data = load_centred()
    shallow, deep = budget.rate_depths
    for name in ("relu", "tanh"):
        shifts = {}
        for label, rule in rules_of(name).items():
            best = [
                best_log_rates(name, depth, rule, budget, seeds, data) for depth in (shallow, deep)
            ]
            shifts[label] = {seed: best[0][seed] - best[1][seed] for seed in seeds}
        setup = f"training loss after {budget.rate_steps} steps, width {budget.rate_width}"
        yield Claim.over_seeds(
            {seed: abs(shift) for seed, shift in shifts["equivalent"].items()},
            statement=f"With equivalent layers the best learning rate of {name} keeps with depth",
            paper_figure="Sec. 9.4: lambda by layer so that the NTK is independent of depth",
            metric=f"|log2 ratio| of the best rates at {shallow} and {deep} layers, {setup}",
            bar=1.0,
            direction="at most",
        )
        yield Claim.over_seeds(
            shifts["naive"],
            statement=f"With one rate for all layers the best learning rate of {name} falls",
            paper_figure=f"Sec. 9.4: as 1/L, log2 {deep / shallow:g} = "
            f"{math.log2(deep / shallow):.3g}",
            metric=f"log2 ratio of the best rates at {shallow} and {deep} layers, {setup}",
            bar=1.0,
            direction="at least",
        )


# -- 6: residual connections --------------------------------------------------------------------

_GAMMAS = (0.5, 0.9)
_RESIDUAL_LAYERS = 5


def _residual(budget: Budget, seeds: Sequence[int]) -> Iterable[Claim]:
    """Growth of the fluctuations, against the closed form and the recursion."""
    n, depth = max(budget.widths), _RESIDUAL_LAYERS
    for name, slope in (("linear", 2.0), ("relu", 5.0)):
        closed, recursion, notes = [], [], []
        for gamma in _GAMMAS:
            measured = fmean(
                n * residual_deviation(name, gamma, n, depth, budget.networks, seed)
                for seed in seeds
            )
            odd = closed_vertex(slope, gamma, depth)
            V = full_vertex(name, gamma, depth)
            closed.append(abs(measured / odd - 1.0))
            recursion.append(abs(measured / V - 1.0))
            notes.append(f"gamma {gamma:g}: {measured:.3g}, closed {odd:.3g}, recursion {V:.3g}")
        for label, errors in (("closed form", closed), ("full recursion", recursion)):
            yield Claim(
                statement=f"Residual connections change the fluctuations of {name} networks by the "
                f"{label}",
                paper_figure="App. B: nu = (1 - g^2)((1 - g^2)(3 A4/A2^2 - 1) + 4 g^2)"
                if label == "closed form"
                else "derived here: with the third cumulant that gamma makes",
                metric=f"largest relative error of V/K^2 at layer {depth}, width {n}",
                bar=0.2,
                direction="at most",
                measured=max(errors),
                seeds=tuple(seeds),
                reason="; ".join(notes)
                + "; a term of higher order in depth/width remains in the measurement",
            )
        ratios = {
            gamma: optimal_aspect_ratio(name, 1, gamma) / optimal_aspect_ratio(name, 1)
            for gamma in _GAMMAS
        }
        yield Claim(
            statement=f"Residual connections allow deeper {name} networks",
            paper_figure="App. B: nu falls with gamma, and with it the best width per depth",
            metric="least optimal aspect ratio over that without residual connections",
            bar=1.0,
            direction="at least",
            measured=min(ratios.values()),
            seeds=(seeds[0],),
            reason=", ".join(f"{value:.3g} at gamma {gamma:g}" for gamma, value in ratios.items())
            + "; by nu of the full recursion, nothing random",
        )
