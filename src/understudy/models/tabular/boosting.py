r"""Gradient-boosted trees with quantiles: the honest baseline of tables.

The mean :math:`f` of each output is scikit-learn's histogram gradient boosting with squared loss
(Friedman 2001; Ke et al. 2017), its number of trees the one that predicts held-out rows best.
Held-out residuals :math:`e_i = y_i - f_{-i}(x_i)` are honest, so quantiles of the error at
levels 0.05, 0.25, 0.5, 0.75 and 0.95 are boosted on them with the pinball loss, from constants.

With :math:`g` the piecewise linear map that takes the standard normal's quantiles :math:`z_l` to
the boosted ones, the predictive is :math:`f(x) + g(Z)` with :math:`Z` cut into five bins of mass
.15, .225, .25, .225 and .15 about the :math:`z_l`: each becomes a Gaussian with the moments of
its bin mapped by :math:`g`, and the whole is moved to have mean :math:`f(x)`. Normal errors thus
give back a nearly normal density, skewed errors a skewed one. Beyond the outer levels quantiles
say nothing, so one twentieth of the mass is a Gaussian as wide as twice all held-out errors.

Trees are kept as tensors and walked by gathers: the fitted state holds no scikit-learn object.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from understudy.core.posterior import independent_gaussian
from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate

if TYPE_CHECKING:
    from botorch.posteriors import Posterior
    from numpy.typing import NDArray
    from sklearn.ensemble import HistGradientBoostingRegressor

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_EDGES = (0.0, 0.15, 0.375, 0.625, 0.85, 1.0)


@dataclass(frozen=True)
class Forest:
    """A sum of trees as flat arrays over all their nodes.

    Parameters
    ----------
    feature, left, right : LongTensor (nodes,)
        Column compared and children; a leaf is its own child.
    threshold : Tensor (nodes,)
        A row goes left where its value is at most this.
    missing_left : BoolTensor (nodes,)
        Whether a missing value goes left.
    value : Tensor (nodes,)
        What a leaf adds.
    roots : LongTensor (trees,)
    baseline : Tensor ()
        Added to the sum.
    depth : Tensor ()
        Longest way from a root to a leaf.
    """

    feature: Tensor
    left: Tensor
    right: Tensor
    threshold: Tensor
    missing_left: Tensor
    value: Tensor
    roots: Tensor
    baseline: Tensor
    depth: Tensor

    @classmethod
    def constant(cls, value: float) -> Forest:
        """No trees."""
        none, whole = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.long)
        baseline = torch.tensor(value, dtype=torch.float64)
        missing = torch.zeros(0, dtype=torch.bool)
        depth = torch.tensor(0)
        return cls(whole, whole, whole, none, missing, none, whole, baseline, depth)

    @classmethod
    def of(cls, model: HistGradientBoostingRegressor, trees: int | None = None) -> Forest:
        """Copy the first trees of a fitted scikit-learn model."""
        nodes = [stage[0].nodes for stage in model._predictors[:trees]]
        baseline = float(np.ravel(model._baseline_prediction)[0])
        if not nodes:
            return cls.constant(baseline)
        starts = np.cumsum([0, *[len(tree) for tree in nodes]])
        flat = np.concatenate(nodes)
        own = np.arange(len(flat))
        offset = np.repeat(starts[:-1], np.diff(starts))
        leaf = flat["is_leaf"].astype(bool)

        def child(side: str) -> Tensor:
            return torch.from_numpy(np.where(leaf, own, flat[side].astype(np.int64) + offset))

        return cls(
            feature=torch.from_numpy(np.where(leaf, 0, flat["feature_idx"]).astype(np.int64)),
            left=child("left"),
            right=child("right"),
            threshold=torch.from_numpy(flat["num_threshold"].copy()),
            missing_left=torch.from_numpy(flat["missing_go_to_left"].astype(bool)),
            value=torch.from_numpy(flat["value"].copy()),
            roots=torch.from_numpy(starts[:-1].copy()),
            baseline=torch.tensor(baseline, dtype=torch.float64),
            depth=torch.tensor(int(flat["depth"].max())),
        )

    def __call__(self, U: Tensor, rows_at_once: int = 2048) -> Tensor:
        """Sum of the trees at U (n, d), as (n,)."""
        if not len(self.roots):
            return self.baseline.expand(len(U)).clone()
        return torch.cat([self.walk(part) for part in U.split(rows_at_once)])

    def walk(self, U: Tensor) -> Tensor:
        """Sum of the trees, of which there is at least one, at U (n, d), all rows at once."""
        at = self.roots.expand(U.shape[0], -1)
        for _ in range(int(self.depth)):
            x = U.gather(1, self.feature[at])
            left = (x <= self.threshold[at]) | (x.isnan() & self.missing_left[at])
            at = torch.where(left, self.left[at], self.right[at])
        return self.baseline + self.value[at].sum(1)


def bin_moments() -> tuple[Tensor, Tensor, Tensor]:
    """Mass, mean and deviation of a standard normal in the five bins, each (5,)."""
    edges = torch.special.ndtri(torch.tensor(_EDGES, dtype=torch.float64))
    density = torch.exp(-0.5 * edges.square()) / math.sqrt(2.0 * math.pi)
    slope = torch.where(edges.isinf(), torch.zeros_like(edges), edges * density)
    mass = torch.tensor(_EDGES, dtype=torch.float64).diff()
    mean = -density.diff() / mass
    return mass, mean, (1.0 - slope.diff() / mass - mean.square()).sqrt()


def _normal(deviation: float) -> list[float]:
    """Quantiles of a centred normal."""
    z = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))
    return [float(value) for value in deviation * z]


@cache
def _bins() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Quantiles of a standard normal (5,); mass, mean, deviation and piece of its bins (5, 1, 1).

    The piece is the straight one, between two quantiles, on which a bin's mean lies.
    """
    z = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))
    mass, at, width = (values.reshape(-1, 1, 1) for values in bin_moments())
    piece = (torch.bucketize(at.flatten(), z) - 1).clamp(0, len(z) - 2)
    return z, mass, at, width, piece


def mixture(mean: Tensor, quantiles: Tensor, spread: Tensor) -> Predictive:
    """Return the predictive of a mean (n, m), errors' quantiles (5, n, m) and deviation (m,)."""
    z, mass, at, width, piece = _bins()
    q = quantiles.sort(dim=0).values
    slope = q.diff(dim=0) / z.diff().reshape(-1, 1, 1)
    average = slope.mean(0, keepdim=True).clamp_min(1e-6)
    slope = torch.maximum(slope, 0.1 * average)  # ties among quantiles are not certainty
    loc = q[piece] + slope[piece] * (at - z[piece].reshape(-1, 1, 1))
    inner = 0.5 * (slope[:-1] + slope[1:])
    around = torch.cat([slope[:1], inner, slope[-1:]])
    loc = torch.cat([mean + loc - (mass * loc).sum(0), mean.unsqueeze(0)])
    scale = torch.cat([width * around, (2.0 * spread).expand_as(mean).unsqueeze(0)])
    return Predictive(loc, scale, torch.cat([0.95 * mass, torch.full((1, 1, 1), 0.05).to(mass)]))


class BoostingSurrogate(Surrogate):
    """Histogram gradient boosting with a mean and five quantiles of its error.

    Parameters
    ----------
    max_trees : int
        Trees of a mean at most; as many are used as predict held-out rows best.
    learning_rate : float, optional
        By default 0.15 up to 1,000 rows, 0.1 up to 5,000 and 0.06 above.
    max_seconds : float, optional
        Wall time after which no trees are added; quantiles then stay constant.
    seed : int
        Of the split that chooses the number of trees.
    """

    def __init__(
        self,
        *,
        max_trees: int = 400,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.max_trees = max_trees
        self.learning_rate = learning_rate
        self.max_seconds = max_seconds
        self.seed = seed

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        n = len(U)
        order = np.random.default_rng(self.seed).permutation(n)
        # four folds; one hold-out of a fifth where there are rows enough
        self._fit_folds(U, Z, order % min(4, n) if n <= 5_000 else np.where(order < n // 5, 0, -1))

    def _fit_folds(self, U: Tensor, Z: Tensor, folds: NDArray[np.int_]) -> Predictive:
        from threadpoolctl import threadpool_limits

        self._stop = math.inf if self.max_seconds is None else time.monotonic() + self.max_seconds
        X, tested, m = U.numpy(), np.asarray(folds) >= 0, Z.shape[1]
        self._means = [Forest.constant(0.0)] * m  # an interrupted fit predicts this much
        self._errors = [[Forest.constant(z) for z in _normal(1.0)]] * m
        self._spread = torch.ones(m, dtype=Z.dtype)
        mean, quantiles = np.zeros(Z.shape), np.zeros((len(LEVELS), int(tested.sum()), m))
        with threadpool_limits(1 if len(U) < 5_000 else None, "openmp"):
            for j in range(m):
                mean[:, j], self._means[j] = self._fit_mean(X, Z[:, j].numpy(), folds, m - j)
            error = (Z.numpy() - mean)[tested]
            self._spread = torch.from_numpy(error).square().mean(0).sqrt().clamp_min(1e-9)
            for j in range(m):
                crossed = self._fit_errors(X[tested], error[:, j], folds[tested])
                quantiles[:, :, j], self._errors[j] = crossed
        return mixture(torch.from_numpy(mean[tested]), torch.from_numpy(quantiles), self._spread)

    # -- the mean -----------------------------------------------------------------------------

    def _fit_mean(
        self, X: NDArray[np.float64], y: NDArray[np.float64], folds: NDArray[np.int_], waiting: int
    ) -> tuple[NDArray[np.float64], Forest]:
        """Held-out means of the rows with a fold, and the forest of all rows."""
        kinds = np.unique(folds[folds >= 0])
        now = time.monotonic()
        stop = now + 0.6 * (self._stop - now) * len(kinds) / ((len(kinds) + 1) * waiting)
        models = [self._booster(int((folds != k).sum())) for k in kinds]
        best, held_out, trees, waited = math.inf, np.zeros_like(y), 0, 0
        for more in self._stages():
            predicted = np.zeros_like(y)
            for model, k in zip(models, kinds, strict=True):
                inside, outside = folds != k, folds == k
                model.set_params(max_iter=more).fit(X[inside], y[inside])
                predicted[outside] = model.predict(X[outside])
            loss = float(np.square(predicted - y)[folds >= 0].mean())
            waited = 0 if loss < 0.998 * best else waited + 1
            if loss < best:
                best, held_out, trees = loss, predicted, more
            if waited == 2 or time.monotonic() > stop:
                break
        final = self._booster(len(y)).set_params(max_iter=trees, warm_start=False)
        return held_out, Forest.of(final.fit(X, y))

    def _stages(self) -> list[int]:
        """Numbers of trees at which held-out rows are looked at."""
        steps = [25 * 1.5**k for k in range(40)]
        return [round(s) for s in steps if s < self.max_trees] + [self.max_trees]

    def _booster(self, rows: int) -> HistGradientBoostingRegressor:
        from sklearn.ensemble import HistGradientBoostingRegressor

        rate = 0.15 if rows <= 1_000 else 0.1 if rows <= 5_000 else 0.06
        return HistGradientBoostingRegressor(
            learning_rate=self.learning_rate or rate,
            max_leaf_nodes=int(np.clip(rows // 16, 3, 31)),
            min_samples_leaf=int(np.clip(rows // 40, 1, 20)),
            l2_regularization=0.1,
            early_stopping=False,
            warm_start=True,
            random_state=self.seed,
        )

    # -- quantiles of the error ---------------------------------------------------------------

    def _fit_errors(
        self, X: NDArray[np.float64], e: NDArray[np.float64], folds: NDArray[np.int_]
    ) -> tuple[NDArray[np.float64], list[Forest]]:
        """Quantiles (5, n) of errors by models that have not seen them, and those of all errors."""
        # few errors say little about their own tails
        fixed = np.quantile(e, LEVELS) if len(e) >= 20 else np.array(_normal(1.2 * e.std() + 1e-9))
        constant = np.repeat(fixed[:, None], len(e), axis=1)
        if len(e) < 200:
            return constant, [Forest.constant(q) for q in fixed]
        kinds = np.unique(folds)
        half = np.isin(folds, kinds[::2]) if len(kinds) > 1 else np.arange(len(e)) % 2 == 0
        crossed, forests = constant.copy(), []
        for at, level in enumerate(LEVELS):
            if time.monotonic() > self._stop:
                forests.append(Forest.constant(fixed[at]))
                continue
            for inside in (half, ~half):
                forest = self._quantile(X[inside], e[inside], level)
                crossed[at, ~inside] = forest(torch.from_numpy(X[~inside])).numpy()
            forests.append(self._quantile(X, e, level))
        return crossed, forests

    def _quantile(self, X: NDArray[np.float64], e: NDArray[np.float64], level: float) -> Forest:
        """Few shallow trees on the pinball loss, from the constant quantile."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        model = HistGradientBoostingRegressor(
            loss="quantile",
            quantile=level,
            learning_rate=0.1,
            max_iter=int(np.clip(len(e) // 50, 5, 60)),
            max_leaf_nodes=8,
            min_samples_leaf=int(np.clip(len(e) // 20, 20, 100)),
            early_stopping=False,
            random_state=self.seed,
        )
        return Forest.of(model.fit(X, e))

    # -- what was learnt ----------------------------------------------------------------------

    @property
    def mean_forests(self) -> Sequence[Forest]:
        """Forests of the means, one of each output."""
        return self._means

    @property
    def error_forests(self) -> Sequence[Sequence[Forest]]:
        """Forests of the quantiles of the errors, five of each output."""
        return self._errors

    @property
    def error_spread(self) -> Tensor:
        """Root mean square errors (m,) of rows held out."""
        return self._spread

    # -- predictions --------------------------------------------------------------------------

    def _predictive(self, U: Tensor) -> Predictive:
        mean = torch.stack([forest(U) for forest in self._means], dim=1)
        errors = [torch.stack([forest(U) for forest in levels]) for levels in self._errors]
        return mixture(mean, torch.stack(errors, dim=2), self._spread)

    def _expected(self, U: Tensor, outputs: Tensor) -> Tensor:
        return torch.stack([self._means[j](U) for j in outputs.tolist()], dim=1)

    def _posterior(self, U: Tensor, observation_noise: bool) -> Posterior:
        """Independent Gaussians at every point, with the predictive's mean and variance.

        Trees know no covariance among points and do not tell noise from ignorance, so draws of the
        function and of observations are alike; being piecewise constant, their gradient is zero.
        """
        with torch.no_grad():
            flat = self._predictive_chunks(U.detach().reshape(-1, U.shape[-1]))
        shape = (*U.shape[:-1], len(self._means))
        still = 0.0 * U.sum(-1, keepdim=True)
        mean, variance = flat.mean.reshape(shape), flat.sd.square().reshape(shape)
        return independent_gaussian(mean + still, variance + still)

    def _state(self) -> dict[str, Tensor]:
        state = {"spread": self._spread}
        for j, (mean, errors) in enumerate(zip(self._means, self._errors, strict=True)):
            for role, forest in enumerate([mean, *errors]):
                state |= {f"{j}.{role}.{name}": value for name, value in vars(forest).items()}
        return state

    def _load(self, state: dict[str, Tensor]) -> None:
        self._spread = state["spread"]
        names = tuple(Forest.__dataclass_fields__)
        forests = [
            [Forest(**{name: state[f"{j}.{role}.{name}"] for name in names}) for role in range(6)]
            for j in range(len(self._spread))
        ]
        self._means = [roles[0] for roles in forests]
        self._errors = [roles[1:] for roles in forests]
