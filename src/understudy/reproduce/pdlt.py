r"""Claims of *The Principles of Deep Learning Theory*, measured on random and trained networks.

Roberts, Yaida & Hanin (2022, arXiv 2106.10165). No code is published with the book; the statements
are of its chapters 4, 5, 8, 9 and of its appendices, their figures worked out here from its
recursions. Networks of 50 layers have 100 units, random ones start from a first layer of variance
1, and trained ones learn scikit-learn's digits by plain stochastic gradient descent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from statistics import fmean

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from understudy.nn.critical_initialisation import equivalent_rates
from understudy.nn.criticality import CriticalPoint, find_critical_point
from understudy.nn.gaussian_expectation import activation
from understudy.nn.random_networks import Ensemble, layers, pair_covariance, tangent_layers
from understudy.nn.signal_propagation import LearningRates, SignalPropagation, optimal_aspect_ratio
from understudy.reproduce.claims import Claim, Scale


@dataclass(frozen=True)
class _Budget:
    """What a scale spends: seeds, networks a seed, and the sizes of the trainings."""

    seeds: int
    networks: int
    deep_networks: int
    widths: tuple[int, ...]
    deep: int
    training_steps: int
    rate_steps: int
    rate_depths: tuple[int, int]
    rate_width: int
    tangent_widths: tuple[int, int]
    tangent_networks: int


_BUDGETS = {
    Scale.SMOKE: _Budget(2, 50, 5, (60, 120), 4, 3, 3, (2, 4), 16, (8, 16), 100),
    Scale.CPU: _Budget(
        3, 20_000, 60, (30, 60, 120, 240), 50, 300, 40, (8, 32), 100, (50, 100), 6000
    ),
    Scale.PAPER: _Budget(
        5, 100_000, 1000, (30, 60, 120, 240), 50, 1000, 300, (8, 32), 400, (50, 100), 100_000
    ),
}


def run(scale: Scale, seed: int = 0) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``smoke`` shows that the path runs; ``paper`` draws 100,000 networks and trains wider ones.
    seed : int
        Of the first repetition; the others follow it.
    """
    budget = _BUDGETS[scale]
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


@dataclass
class _Networks:
    """B perceptrons as batched parameters: weights (B, in, out) and biases (B, 1, out)."""

    phi: Callable[[Tensor], Tensor]
    weights: list[Tensor]
    biases: list[Tensor]

    @classmethod
    def draw(
        cls,
        phi: Callable[[Tensor], Tensor],
        sizes: Sequence[int],
        C_b: Sequence[float],
        C_W: Sequence[float],
        seeds: Sequence[int],
    ) -> _Networks:
        """Networks of variances C_b and C_W (B,), the first layer's being 0 and 1."""
        b, w = (torch.tensor(v).sqrt().view(-1, 1, 1) for v in (C_b, C_W))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def normal(*shape: int) -> Tensor:
            return torch.stack([torch.randn(*shape, generator=g) for g in generators])

        weights, biases = [], []
        for layer, (n, after) in enumerate(pairwise(sizes)):
            first = layer == 0
            scale = torch.ones_like(w) if first else w
            weights.append((scale * normal(n, after) / math.sqrt(n)).requires_grad_())
            biases.append((normal(1, after) * (0.0 * b if first else b)).requires_grad_())
        return cls(phi, weights, biases)

    def preactivations(self, x: Tensor) -> list[Tensor]:
        """Of every layer (B, m, out), at inputs (m, d) or (B, m, d)."""
        h = x.expand(len(self.weights[0]), *x.shape) if x.ndim == 2 else x
        found = []
        for W, b in zip(self.weights, self.biases, strict=True):
            found.append(torch.baddbmm(b, h, W))
            h = self.phi(found[-1])
        return found


def _changes(
    name: str, C_b: float, C_W: float, K1: float, budget: _Budget, seed: int
) -> tuple[float, float]:
    """Last over first layer: ensemble mean of K, and of the squared gradient norm."""
    n, B = 100, budget.deep_networks
    start = 10_000 * seed
    networks = _Networks.draw(
        activation(name).function,
        [n] * (budget.deep + 1),
        [C_b] * B,
        [C_W] * B,
        range(start, start + B),
    )
    generator = torch.Generator().manual_seed(seed)
    x = F.normalize(torch.randn(1, n, generator=generator)) * math.sqrt(n * K1)
    z = networks.preactivations(x)
    direction = torch.randn(z[-1].shape, generator=generator)
    ends = [networks.weights[1], networks.weights[-1]]
    gradients = torch.autograd.grad((direction * z[-1]).sum(), ends)
    K = [float(layer.detach().double().square().mean()) for layer in (z[0], z[-1])]
    squares = [float(g.double().square().sum() / B) for g in gradients]
    return K[1] / K[0], squares[1] / squares[0]


def _factor(value: float) -> float:
    return max(value, 1.0 / value) if value > 0.0 else math.inf


def _kept_signals(budget: _Budget, seeds: Sequence[int]) -> Iterable[Claim]:
    gelu = find_critical_point("gelu")
    cases = {"relu": (0.0, 2.0, 1.0), "gelu": (gelu.C_b, gelu.C_W, gelu.K_star)}
    for name, (C_b, C_W, K1) in cases.items():
        found = {seed: _changes(name, C_b, C_W, K1, budget, seed) for seed in seeds}
        yield Claim.over_seeds(
            {seed: max(map(_factor, changes)) for seed, changes in found.items()},
            statement=f"At criticality neither K nor the gradients of {name} change with depth",
            paper_figure="Secs. 5.2 and 5.3.4: chi_par = chi_perp = 1",
            metric=f"largest factor over {budget.deep} layers, K and squared gradient norm",
            bar=3.0,
            direction="at most",
            reason=_heavy_tail(budget),
        )
    found = {seed: _changes("tanh", 0.0, 1.0, 1.0, budget, seed) for seed in seeds}
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
        found = {seed: _changes("relu", 0.0, C_W, 1.0, budget, seed) for seed in seeds}
        yield Claim.over_seeds(
            {seed: _factor(changes[0] / expected) for seed, changes in found.items()},
            statement=f"Off criticality, C_W = {C_W}, K of ReLU changes exponentially",
            paper_figure=f"Sec. 5.2: factor (C_W/2)^{budget.deep - 1} = {expected:.3g}",
            metric="factor between the measured and the predicted change of K",
            bar=2.0,
            direction="at most",
            reason=_heavy_tail(budget),
        )


def _heavy_tail(budget: _Budget) -> str:
    return (
        f"means over {budget.deep_networks} networks a seed; at depth/width {budget.deep / 100:g} "
        "single networks scatter log-normally, with a variance of ln K near 5 l/n for ReLU"
    )


# -- training -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Digits:
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def _digits() -> _Digits:
    """scikit-learn's digits, centred, each of mean square 1; a fifth is held out."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    X = torch.tensor(pixels, dtype=torch.float32)
    X = X - X.mean(0)
    X = X / X.square().mean(1, keepdim=True).sqrt()
    y = torch.tensor(labels)
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    held = len(X) // 5
    train, test = order[held:], order[:held]
    return _Digits((X[train], y[train]), (X[test], y[test]))


Loss = Callable[[Tensor, Tensor], Tensor]


def _cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    losses = F.cross_entropy(z.mT, y.expand(len(z), -1), reduction="none")
    return losses.mean(1)


def _square_loss(z: Tensor, y: Tensor) -> Tensor:
    target = F.one_hot(y, z.shape[-1]).to(z)
    return 0.5 * (z - target).square().sum(-1).mean(1)


def _train(
    networks: _Networks, rates: Sequence[LearningRates], steps: int, loss: Loss, data: _Digits
) -> None:
    """Plain gradient descent on batches of 64, each network at its own rates; in place."""
    X, y = data.train
    depth = len(networks.weights)
    lam_b, lam_W = (
        torch.tensor(v) for v in zip(*(rate.layers(depth) for rate in rates), strict=True)
    )
    generator = torch.Generator().manual_seed(0)
    parameters = [*networks.weights, *networks.biases]
    steps_of = [(lam_W[:, l] / W.shape[1]).view(-1, 1, 1) for l, W in enumerate(networks.weights)]
    steps_of += [lam_b[:, l].view(-1, 1, 1) for l in range(depth)]
    for _ in range(steps):
        rows = torch.randint(len(X), (64,), generator=generator)
        value = loss(networks.preactivations(X[rows])[-1], y[rows]).sum()
        gradients = torch.autograd.grad(value, parameters)
        with torch.no_grad():
            for parameter, step, gradient in zip(parameters, steps_of, gradients, strict=True):
                parameter.sub_(step * gradient)


@torch.no_grad()
def _accuracy(networks: _Networks, data: _Digits) -> Tensor:
    X, y = data.test
    return (networks.preactivations(X)[-1].argmax(-1) == y).float().mean(1)


_DETUNED = (0.7, 1.0, 1.4)


def _trainability(budget: _Budget, seeds: Sequence[int]) -> Iterable[Claim]:
    data = _digits()
    rates = (0.05, 0.25, 1.0, 2.0, 4.0, 8.0)
    for name in ("relu", "tanh"):
        point = find_critical_point(name)
        runs = list(product(_DETUNED, seeds, rates))
        sizes = [64, *[100] * (budget.deep - 1), 10]
        networks = _Networks.draw(
            activation(name).function,
            sizes,
            [0.0] * len(runs),
            [point.C_W * factor for factor, _, _ in runs],
            [seed for _, seed, _ in runs],
        )
        _train(
            networks,
            [equivalent_rates(point, budget.deep, rate, rate) for _, _, rate in runs],
            budget.training_steps,
            _cross_entropy,
            data,
        )
        shape = (len(_DETUNED), len(seeds), len(rates))
        best = _accuracy(networks, data).view(shape).amax(-1)
        table = dict(zip(_DETUNED, best.tolist(), strict=True))
        yield from _trainability_claims(name, table, budget, seeds)


def _backward(name: str, factor: float, budget: _Budget) -> float:
    """Product of chi_perp over the depth at C_W off by a factor, from K = 1."""
    here = SignalPropagation(name, 0.0, factor * find_critical_point(name).C_W)
    K = here.variances(1.0, budget.deep)
    return float(here.susceptibilities(K[:-1]).perpendicular.prod())


def _trainability_claims(
    name: str, accuracy: Mapping[float, list[float]], budget: _Budget, seeds: Sequence[int]
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


def _deviations(ensemble: Ensemble, networks: int, seed: int) -> Tensor:
    """Measured V / (n K^2) of every layer (depth,)."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for z in layers(ensemble, networks, generator):
        squares = z.double().square()
        found.append(pair_covariance(squares, squares) / float(squares.mean()) ** 2)
    return torch.tensor(found)


def _slope(deviations: Mapping[int, Tensor]) -> float:
    """Fit of n V / (n K^2) = a + nu l + c l^2 / n over widths n and layers 2 on.

    Weighted by 1/l, as the error is proportional to the value; from a quarter of the layers on, as
    tanh nears its slope from below, and up to l = 0.15 n or 3.
    """
    rows, values = [], []
    for n, deviation in deviations.items():
        for l in range(max(1, len(deviation) // 4), len(deviation)):
            if l > max(3.0, 0.15 * n):
                continue
            rows.append([1.0 / l, 1.0, l / n])
            values.append(n * float(deviation[l]) / l)
    return float(np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0][1])


def _collapse(deviations: Mapping[int, Tensor]) -> float:
    """Relative range over widths of V / (n K^2) at one depth over width."""
    least = min(deviations)
    at = [float(d[2 * n // least]) for n, d in deviations.items() if 2 * n // least < len(d)]
    return (max(at) - min(at)) / fmean(at)


def _vertex(budget: _Budget, seeds: Sequence[int]) -> Iterable[Claim]:
    for name, nu in (("relu", 5.0), ("linear", 2.0), ("tanh", 2.0 / 3.0)):
        C_W = find_critical_point(name).C_W
        by_seed = {
            seed: {
                n: _deviations(
                    Ensemble(activation(name), 0.0, C_W, n, _VERTEX_LAYERS[name]),
                    budget.networks,
                    seed,
                )
                for n in budget.widths
            }
            for seed in seeds
        }
        slopes = {seed: _slope(found) for seed, found in by_seed.items()}
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
            measured=_collapse(pooled),
            seeds=tuple(seeds),
        )


# -- 4: the neural tangent kernel ---------------------------------------------------------------


def _tangent_statistics(width: int, networks: int, seed: int) -> dict[str, float]:
    """V, Theta, D, F, A and B of the fourth layer of ReLU networks, in chunks of 500."""
    generator = torch.Generator().manual_seed(seed)
    ensemble = Ensemble(activation("relu"), 0.0, 2.0, width, 4)
    z2, own, F_sum, B_sum = [], [], 0.0, 0.0
    for start in range(0, networks, 500):
        chunk = min(500, networks - start)
        for z, H in tangent_layers(ensemble, chunk, generator, squared_input=1.0):
            last = z, H
        z, H = last
        diagonal = H.diagonal(dim1=1, dim2=2)
        off = H - torch.diag_embed(diagonal)
        F_sum += float(torch.bmm(off, z.unsqueeze(-1)).squeeze(-1).mul(z).double().sum())
        B_sum += float(off.double().square().sum())
        z2.append(z.double().square())
        own.append(diagonal.double())
    squares, diagonals = torch.cat(z2), torch.cat(own)
    pairs = networks * (width - 1)
    return {
        "V": width * pair_covariance(squares, squares),
        "Theta": float(diagonals.mean()),
        "D": width * pair_covariance(diagonals, squares),
        "F": F_sum / pairs,
        "A": width * pair_covariance(diagonals, diagonals),
        "B": B_sum / pairs,
    }


def _tangent_kernel(budget: _Budget, seeds: Sequence[int]) -> Iterable[Claim]:
    theory = SignalPropagation("relu", 0.0, 2.0).ntk_fluctuations(
        1.0, 4, LearningRates(0.0, 1.0), squared_input=1.0
    )
    errors: dict[int, dict[str, float]] = {}
    measured: dict[int, dict[str, float]] = {}
    narrow, wide = budget.tangent_widths
    for width in (narrow, wide):
        found = [_tangent_statistics(width, budget.tangent_networks, seed) for seed in seeds]
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


def _equivalent(point: CriticalPoint, depth: int, rate: float) -> LearningRates:
    return equivalent_rates(point, depth, rate, rate)


def _naive(depth: int, rate: float) -> LearningRates:
    return LearningRates([rate] * depth, [rate] * depth)


def _best_log_rates(
    name: str,
    depth: int,
    rule: Callable[[int, float], LearningRates],
    budget: _Budget,
    seeds: Sequence[int],
    data: _Digits,
) -> dict[int, float]:
    """log2 of the global rate with the least training loss, of each seed."""
    grid = [2.0**k for k in range(-5, 4)]
    runs = list(product(seeds, grid))
    networks = _Networks.draw(
        activation(name).function,
        [64, *[budget.rate_width] * (depth - 1), 10],
        [0.0] * len(runs),
        [find_critical_point(name).C_W] * len(runs),
        [seed for seed, _ in runs],
    )
    rates = [rule(depth, rate) for _, rate in runs]
    _train(networks, rates, budget.rate_steps, _square_loss, data)
    X, y = data.train
    with torch.no_grad():
        losses = _square_loss(networks.preactivations(X)[-1], y).view(len(seeds), len(grid))
    logarithms = losses.log().nan_to_num(math.inf, posinf=math.inf).tolist()
    return {s: math.log2(grid[0]) + _valley(row) for s, row in zip(seeds, logarithms, strict=True)}


def _valley(values: Sequence[float]) -> float:
    """Position of the least value, between its neighbours by a parabola."""
    k = min(range(len(values)), key=values.__getitem__)
    if k in (0, len(values) - 1) or not math.isfinite(values[k + 1]):
        return float(k)
    left, right = values[k - 1] - values[k], values[k + 1] - values[k]
    return k + 0.5 * (left - right) / max(left + right, 1e-12)


def _learning_rates(budget: _Budget, seeds: Sequence[int]) -> Iterable[Claim]:
    data = _digits()
    shallow, deep = budget.rate_depths
    for name in ("relu", "tanh"):
        point = find_critical_point(name)

        rules: dict[str, Callable[[int, float], LearningRates]] = {
            "equivalent": partial(_equivalent, point),
            "naive": _naive,
        }
        shifts = {}
        for label, rule in rules.items():
            best = [
                _best_log_rates(name, depth, rule, budget, seeds, data) for depth in (shallow, deep)
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


def _residual(budget: _Budget, seeds: Sequence[int]) -> Iterable[Claim]:
    """Growth of the fluctuations, against the closed form and the recursion."""
    n, depth = max(budget.widths), _RESIDUAL_LAYERS
    for name, slope in (("linear", 2.0), ("relu", 5.0)):
        closed, recursion, notes = [], [], []
        for gamma in _GAMMAS:
            point = find_critical_point(name, gamma)
            ensemble = Ensemble(activation(name), 0.0, point.C_W, n, depth, 1.0, gamma)
            measured = fmean(
                n * float(_deviations(ensemble, budget.networks, seed)[-1]) for seed in seeds
            )
            keep = 1.0 - gamma**2
            odd = keep * (keep * slope + 4.0 * gamma**2) * (depth - 1)
            here = SignalPropagation(name, 0.0, point.C_W, gamma)
            V = float(here.vertex(1.0, depth, 100_000)[-1])
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
