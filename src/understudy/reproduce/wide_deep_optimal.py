r"""Claims of Radhakrishnan, Belkin & Uhler (2023, arXiv 2204.14126), measured.

The data are the paper's kind: Dirichlet vectors of two classes, of prior 0.4 and 0.6, normalised to
the non-negative orthant of the d-dimensional sphere, so that the Bayes rule and the probability
:math:`\eta(x)` of the first class are known. Accuracy is expected accuracy, the mean of
:math:`\eta` or :math:`1 - \eta` at test points, which spares the noise of test labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from scipy.stats import dirichlet
from sklearn.base import ClassifierMixin
from sklearn.neighbors import KNeighborsClassifier

from understudy.core.linalg import one_thread
from understudy.models.tabular.wide_deep import HilbertEstimator, InfiniteDepthClassifier
from understudy.nn.dual_activation import (
    HermiteActivation,
    design_activation,
    optimal_activation,
)
from understudy.nn.tangent_kernel import deep_kernel, ridgeless
from understudy.reproduce.claims import Claim, Scale

PRIOR = 0.4
CLASSES: Mapping[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    1: ((1, 2), (2, 1)),
    2: ((0.5, 0.5, 2.5), (2.5, 0.1, 0.5)),
    4: ((3, 1, 2, 1, 1), (1, 2, 2, 2, 3)),
    8: ((1, 2, 1, 2, 1, 1, 1, 1, 1), (1, 1, 1, 2, 3, 4, 2, 2, 1)),
}
"""Dirichlet parameters of the two classes by dimension of the sphere."""

ALPHAS = (0.5, 1.0, 2.0, 4.0)
DEPTHS = (1, 3, 10, 50)
ISLAND = (0.45 * math.pi / 2, 0.55 * math.pi / 2)
"""Angles between which the rarer class of the island problem prevails."""


@dataclass(frozen=True)
class _Size:
    """What a scale spends."""

    rows: int
    few_rows: int
    many_rows: int
    island_rows: int
    regression_rows: int
    test: int
    relu_rows: int
    relu_depth: int
    seeds: int
    relu_seeds: int


_SIZES = {
    Scale.SMOKE: _Size(100, 50, 200, 200, 60, 100, 20, 500, 1, 1),
    Scale.CPU: _Size(2000, 500, 4000, 20_000, 1000, 2000, 100, 50_000, 5, 3),
    Scale.PAPER: _Size(10_000, 1000, 20_000, 200_000, 5000, 10_000, 100, 50_000, 10, 10),
}


@dataclass(frozen=True)
class _Sample:
    """Training rows X (n, d + 1) with labels y, test rows T with the probability eta of +1."""

    X: np.ndarray
    y: np.ndarray
    T: np.ndarray
    eta: np.ndarray

    def accuracy(self, predicted: np.ndarray) -> float:
        """Expected accuracy of labels -1 and +1 of the test rows."""
        return float(np.where(predicted > 0, self.eta, 1.0 - self.eta).mean())

    @property
    def bayes(self) -> float:
        """Expected accuracy of the Bayes rule."""
        return float(np.maximum(self.eta, 1.0 - self.eta).mean())


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` has 2000 training and test rows, ``paper`` the paper's 10,000.
    seed : int
        Of the first repetition; the others follow it.
    """
    size = _SIZES[scale]
    seeds = range(seed, seed + size.seeds)
    with one_thread():
        return [
            *_limits(size, seeds),
            *_consistency(size, seeds),
            *_singularities(size, seeds),
            *_depth(size, seeds),
        ]


# -- data -----------------------------------------------------------------------------------


def _draw(d: int, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows on the sphere, labels, and eta."""
    first, second = CLASSES[d]
    y = np.where(rng.random(n) < PRIOR, 1, -1)
    P = np.where((y > 0)[:, None], rng.dirichlet(first, n), rng.dirichlet(second, n))
    P = np.maximum(P, 1e-300)
    ratio = _log_density(P, first) - _log_density(P, second)
    eta = expit(ratio + math.log(PRIOR / (1.0 - PRIOR)))
    return P / np.linalg.norm(P, axis=1, keepdims=True), y, eta


def _log_density(P: np.ndarray, concentration: tuple[float, ...]) -> np.ndarray:
    a = np.asarray(concentration)
    constant = dirichlet.logpdf(np.full(len(a), 1.0 / len(a)), a)
    return constant + np.log(P * len(a)) @ (a - 1.0)


def _sample(d: int, n: int, test: int, seed: int) -> _Sample:
    rng = np.random.default_rng([seed, d, n])
    X, y, _ = _draw(d, n, rng)
    T, _, eta = _draw(d, test, rng)
    return _Sample(X, y, T, eta)


def _island(n: int, test: int, seed: int) -> _Sample:
    """Uniform angles; eta is 0.8 on an island of a tenth of the quarter circle, else 0.2.

    The test rows are of the island.
    """
    rng = np.random.default_rng([seed, n])
    angle = rng.uniform(0.0, math.pi / 2, n)
    inside = (angle > ISLAND[0]) & (angle < ISLAND[1])
    y = np.where(rng.random(n) < np.where(inside, 0.8, 0.2), 1, -1)
    at = rng.uniform(*ISLAND, test)
    X, T = (np.column_stack([np.cos(a), np.sin(a)]) for a in (angle, at))
    return _Sample(X, y, T, np.full(test, 0.8))


def _predict(classifier: ClassifierMixin, sample: _Sample) -> np.ndarray:
    return classifier.fit(sample.X, sample.y).predict(sample.T)


def _network(**params: Any) -> InfiniteDepthClassifier:
    return InfiniteDepthClassifier(sphere="given", **params)


def _figures(values: Mapping[Any, Iterable[float]], form: str = ".3f") -> str:
    return ", ".join(f"{key}: {fmean(v):{form}}" for key, v in values.items())


# -- claims ---------------------------------------------------------------------------------


def _limits(size: _Size, seeds: range) -> list[Claim]:
    second = HermiteActivation([0.0, 0.0, 1.0])
    nearest: dict[int, list[float]] = {1: [], 10: [], 50: [], 3000: []}
    vote: dict[int, list[float]] = {}
    for seed in seeds:
        sample = _sample(2, size.rows // 2, size.test // 2, seed)
        neighbour = _predict(KNeighborsClassifier(1), sample)
        for depth, agreement in nearest.items():
            predicted = _predict(_network(activation=second, depth=depth), sample)
            agreement.append(float(np.mean(predicted == neighbour)))
    for seed in seeds[: size.relu_seeds]:
        sample = _sample(2, size.relu_rows, 2 * size.relu_rows, seed)
        for depth in (size.relu_depth // 50, size.relu_depth):
            relu = _network(activation="relu", depth=depth, kernel="ntk")
            same = np.mean(_predict(relu, sample) == np.sign(sample.y.sum()))
            vote.setdefault(depth, []).append(float(same))
    return [
        Claim.over_seeds(
            dict(zip(seeds, nearest[3000], strict=True)),
            statement="Without mean and slope (h2) the classifier becomes one nearest neighbour",
            paper_figure="taxonomy theorem; statement reconstructed",
            metric="share of test points that agree with 1-NN at depth 3000, NNGP, d = 2",
            bar=0.99,
            direction="at least",
            reason=f"by depth {_figures(nearest)}",
        ),
        Claim.over_seeds(
            dict(zip(seeds[: size.relu_seeds], vote[size.relu_depth], strict=True)),
            statement="With a mean (ReLU) the classifier becomes a majority vote",
            paper_figure="taxonomy theorem; experiment at depth 50,000 on 100 points",
            metric=(
                f"share of test points that agree with the majority, NTK, depth {size.relu_depth}, "
                f"{size.relu_rows} rows"
            ),
            bar=0.99,
            direction="at least",
            reason=f"by depth {_figures(vote)}",
        ),
    ]


def _consistency(size: _Size, seeds: range) -> list[Claim]:
    agreement: dict[int, list[float]] = {d: [] for d in CLASSES}
    shallow: dict[int, list[float]] = {d: [] for d in CLASSES}
    lead: dict[int, list[float]] = {d: [] for d in CLASSES}
    accuracies: dict[str, list[float]] = {}
    for d in CLASSES:
        for seed in seeds:
            sample = _sample(d, size.rows, size.test, seed)
            deep = _predict(_network(), sample)
            hilbert = _predict(HilbertEstimator(alpha=d), sample)
            agreement[d].append(float(np.mean(deep == hilbert)))
            neighbour = sample.accuracy(_predict(KNeighborsClassifier(1), sample))
            lead[d].append(sample.accuracy(deep) - neighbour)
            if seed == seeds[0]:
                early = _predict(_network(depth=5), sample)
                shallow[d].append(float(np.mean(early == hilbert)))
            for name, value in (
                ("Bayes", sample.bayes),
                ("optimal", sample.accuracy(deep)),
                ("Hilbert", sample.accuracy(hilbert)),
                ("1-NN", neighbour),
            ):
                accuracies.setdefault(f"{name} d={d}", []).append(value)
    return [
        Claim.over_seeds(
            _across(seeds, agreement),
            statement="The optimal activation's deep classifier is the Hilbert estimate of alpha d",
            paper_figure="singular-kernel theorem; statement reconstructed",
            metric=(
                f"share of test points that agree, NNGP at depth 50, n = {size.rows}, "
                "mean over d = 1, 2, 4, 8"
            ),
            bar=0.98,
            direction="at least",
            reason=f"by d {_figures(agreement)}; at depth 5, {_figures(shallow)}",
        ),
        Claim.over_seeds(
            _across(seeds, lead),
            statement="The optimal activation beats the nearest neighbour",
            paper_figure="experiments at n = 10,000 in five dimensions; figures not at hand",
            metric=f"lead in accuracy over 1-NN, n = {size.rows}, mean over d = 1, 2, 4, 8",
            bar=0.02,
            direction="at least",
            reason=f"by d {_figures(lead, '+.3f')}; accuracies {_figures(accuracies)}",
        ),
        _shrinking_gap(size, seeds),
    ]


def _across(seeds: range, values: Mapping[int, list[float]]) -> dict[int, float]:
    """Mean over the dimensions for each seed."""
    return dict(zip(seeds, map(fmean, zip(*values.values(), strict=True)), strict=True))


def _shrinking_gap(size: _Size, seeds: range) -> Claim:
    """Four times the seeds, and fewer rows as a part of more: the fall is below a point."""
    seeds = range(seeds.start, seeds.start + 4 * len(seeds))
    gaps: dict[int, list[float]] = {n: [] for n in (size.few_rows, size.rows, size.many_rows)}
    for seed in seeds:
        whole = _sample(1, size.many_rows, size.test, seed)
        for n, gap in gaps.items():
            part = replace(whole, X=whole.X[:n], y=whole.y[:n])
            predicted = _predict(_network(kernel="limit"), part)
            gap.append(part.bayes - part.accuracy(predicted))
    fall = np.subtract(gaps[size.few_rows], gaps[size.many_rows])
    return Claim.over_seeds(
        dict(zip(seeds, fall, strict=True)),
        statement="Where alpha is d the gap to the Bayes rule closes as the rows grow in number",
        paper_figure="consistency theorem",
        metric=(
            f"fall of the gap in accuracy from n = {size.few_rows} to {size.many_rows}, d = 1, "
            "limit kernel"
        ),
        bar=0.0,
        direction="at least",
        reason=f"gap by n {_figures(gaps, '.4f')}: the rate is logarithmic",
    )


def _singularities(size: _Size, seeds: range) -> list[Claim]:
    accuracy: dict[float, list[float]] = {alpha: [] for alpha in ALPHAS}
    bayes = []
    island: dict[float, list[float]] = {alpha: [] for alpha in ALPHAS}
    for seed in seeds:
        sample = _sample(1, size.rows, size.test, seed)
        isolated = _island(size.island_rows, size.test // 5, seed)
        bayes.append(sample.bayes)
        for alpha in ALPHAS:
            network = _network(activation=design_activation(alpha), kernel="limit")
            accuracy[alpha].append(sample.accuracy(_predict(network, sample)))
            island[alpha].append(float(np.mean(_predict(network, isolated) > 0)))
    table = f"Bayes {fmean(bayes):.3f}; by alpha {_figures(accuracy)}"
    best = max((accuracy[alpha] for alpha in ALPHAS if alpha != 1.0), key=fmean)
    found = _figures(island)
    return [
        Claim.over_seeds(
            dict(zip(seeds, np.subtract(accuracy[1.0], best), strict=True)),
            statement="Accuracy on finite data peaks where alpha is d",
            paper_figure="reading of the theorem, which is asymptotic",
            metric=(
                f"accuracy at alpha = 1 less the best at 0.5, 2, 4; activations of degrees 1 and "
                f"7, d = 1, n = {size.rows}"
            ),
            bar=0.0,
            direction="at least",
            reason=(
                f"{table}; with one smooth boundary the bias of a smaller alpha costs less at this "
                "n than the variance that it saves, though it stays as n grows"
            ),
        ),
        Claim.over_seeds(
            dict(zip(seeds, np.subtract(accuracy[1.0], accuracy[4.0]), strict=True)),
            statement="Alpha above d tends to the nearest neighbour and loses accuracy",
            paper_figure="consistency theorem, alpha > d",
            metric=f"accuracy at alpha = 1 less that at alpha = 4, d = 1, n = {size.rows}",
            bar=0.02,
            direction="at least",
            reason=table,
        ),
        Claim.over_seeds(
            dict(zip(seeds, np.subtract(island[1.0], island[0.5]), strict=True)),
            statement="Alpha below d averages over all rows and misses what is local",
            paper_figure="consistency theorem, alpha < d",
            metric=(
                "share of Bayes decisions inside an island of a tenth of the quarter circle, at "
                f"alpha = 1 less that at 0.5, n = {size.island_rows}"
            ),
            bar=0.2,
            direction="at least",
            reason=f"by alpha {found}",
        ),
    ]


def _depth(size: _Size, seeds: range) -> list[Claim]:
    errors: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    accuracy: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    bayes = []
    for seed in seeds:
        sample = _sample(1, size.regression_rows, size.test, seed)
        bayes.append(sample.bayes)
        for depth in DEPTHS:
            error, right = _regress(sample, depth, lambda X: np.sin(5.0 * X[:, 0]))
            errors[depth].append(error)
            accuracy[depth].append(right)
    table = f"Bayes {fmean(bayes):.3f}; accuracy by depth {_figures(accuracy)}"
    shallower = max((accuracy[depth] for depth in DEPTHS[:-1]), key=fmean)
    return [
        Claim.over_seeds(
            dict(zip(seeds, np.subtract(errors[50], errors[1]), strict=True)),
            statement="Depth is harmful in regression: predictions tend to zero",
            paper_figure="abstract",
            metric=(
                "rise of the mean squared error, as a share of the target's, from depth 1 to 50; "
                f"sin(5 x) without noise, d = 1, n = {size.regression_rows}"
            ),
            bar=0.9,
            direction="at least",
            reason=f"by depth {_figures(errors, '.2g')}",
        ),
        Claim.over_seeds(
            dict(zip(seeds, np.subtract(accuracy[50], accuracy[10]), strict=True)),
            statement="Depth helps classification by networks that fit noisy labels exactly",
            paper_figure="abstract",
            metric=f"accuracy at depth 50 less that at depth 10, d = 1, n = {size.regression_rows}",
            bar=0.02,
            direction="at least",
            reason=table,
        ),
        Claim.over_seeds(
            dict(zip(seeds, np.subtract(accuracy[50], shallower), strict=True)),
            statement="The deepest classifier is the closest to the Bayes rule",
            paper_figure="reading of the abstract",
            metric=(
                "accuracy at depth 50 less the best at depths 1, 3, 10, d = 1, "
                f"n = {size.regression_rows}"
            ),
            bar=0.0,
            direction="at least",
            reason=(
                f"{table}; at depths 1 and 3 the kernel has fewer degrees of freedom than rows (it "
                "is a polynomial of degree 7 and 343), so it smooths the labels instead of fitting "
                "them, which suits one smooth boundary"
            ),
        ),
    ]


def _regress(
    sample: _Sample, depth: int, target: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float]:
    """Relative squared error on a noise-free target, and accuracy on the labels."""
    activation = optimal_activation(sample.X.shape[1] - 1)
    A, B = torch.from_numpy(sample.X), torch.from_numpy(sample.T)
    gram = deep_kernel((A @ A.mT).fill_diagonal_(0.0).clamp_(0.0, 1.0), activation, depth)
    cross = deep_kernel((B @ A.mT).clamp_(0.0, 1.0), activation, depth)
    targets = torch.from_numpy(np.column_stack([target(sample.X), sample.y]))
    weights = ridgeless(gram.over_diagonal().fill_diagonal_(1.0), targets)
    predicted = (cross.over_diagonal() @ weights[:, :1])[:, 0].numpy()
    labels = (cross.over_largest() @ weights[:, 1:])[:, 0].numpy()
    truth = target(sample.T)
    error = float(np.mean((predicted - truth) ** 2) / np.mean(truth**2))
    return error, sample.accuracy(labels)
