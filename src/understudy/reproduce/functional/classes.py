"""Two classes: how sharp the boundary is, and the order of likelihoods."""

from __future__ import annotations

import math
from itertools import product
from statistics import fmean

import numpy as np
import torch
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from understudy.core.metrics import kendall_tau
from understudy.models.tabular.bnn_classifier import BNNClassifier
from understudy.models.tabular.functional_prior import RBFProcess, minibatch
from understudy.nn.bayesian_mlp import ScaledMLP
from understudy.nn.layer_priors import GaussianLayerPrior
from understudy.reproduce.claims import Claim
from understudy.reproduce.functional.setting import Size, listed, match_prior

LENGTHSCALES = (1.0, 4.0, 16.0)
VARIANCES = (1.0, 32.0)


def classification(size: Size, seed: int) -> list[Claim]:
    """Claims on networks matched to processes of several lengthscales and variances."""
    rng = np.random.default_rng(seed)
    (X, y), (T, labels) = arcs(size.arcs_rows, rng), arcs(1000, rng)
    shift, spread = X.mean(0), X.std(0)
    X, T = (X - shift) / spread, (T - shift) / spread
    pairs = list(product(LENGTHSCALES, VARIANCES))
    network = {pair: _network_probability(X, y, T, pair, size, seed) for pair in pairs}
    process = {pair: _process_probability(X, y, T, pair) for pair in pairs}
    losses = [
        {pair: log_loss(p, labels) for pair, p in found.items()} for found in (network, process)
    ]
    entropy = {pair: mean_entropy(p) for pair, p in network.items()}
    sharper = {
        f"l = {s:g}": entropy[s, VARIANCES[0]] - entropy[s, VARIANCES[1]] for s in LENGTHSCALES
    }
    table = "; ".join(
        f"l = {s:g}, v = {v:g}: network {losses[0][s, v]:.3f}, process {losses[1][s, v]:.3f}"
        for s, v in pairs
    )
    what = f"{size.arcs_rows} training and 1000 test rows of two noisy arcs"
    return [
        Claim(
            statement="A process of higher variance makes a sharper boundary of classes",
            paper_figure="banana figure, by eye; bar of ours",
            metric=(
                f"fall of the mean entropy of predictions in nat from variance {VARIANCES[0]:g} to "
                f"{VARIANCES[1]:g}, mean over {len(LENGTHSCALES)} lengthscales; {what}"
            ),
            bar=0.05,
            direction="at least",
            measured=fmean(sharper.values()),
            seeds=(seed,),
            reason=f"by lengthscale {listed(sharper)}",
        ),
        Claim(
            statement="Matched networks are ordered by NLL as the processes themselves are",
            paper_figure="banana grid; bar of ours",
            metric=f"Kendall's tau of NLL over {len(pairs)} lengthscales and variances; {what}",
            bar=0.6,
            direction="at least",
            measured=kendall_tau(*(list(loss.values()) for loss in losses)),
            seeds=(seed,),
            reason=f"NLL {table}",
        ),
    ]


def arcs(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 2) on two arcs of a circle that open to each other, with noise, and classes (n,)."""
    y = np.arange(n) % 2
    angle = np.where(y == 1, 0.375, 0.125) * math.pi
    angle = angle + np.where(y == 1, -1.25, 1.25) * math.pi * rng.uniform(size=n)
    X = 5.0 * np.column_stack([np.sin(angle), np.cos(angle)]) - 3.75 * y[:, None]
    return X + 1.5 * rng.standard_normal((n, 2)), y


def _network_probability(
    X: np.ndarray,
    y: np.ndarray,
    T: np.ndarray,
    pair: tuple[float, float],
    size: Size,
    seed: int,
) -> np.ndarray:
    """Probabilities (q,) of class 1 at T under the prior matched to a process for each class."""
    prior = GaussianLayerPrior(ScaledMLP((2, *size.arcs_hidden, 2)))
    rows = minibatch(torch.from_numpy(X), size.arcs.points)
    match_prior(prior, RBFProcess(*pair, outputs=2), rows, size.arcs, seed)
    classifier = BNNClassifier(
        hidden=size.arcs_hidden,
        prior=prior,
        **size.arcs_sampling.settings(seed),  # type: ignore[arg-type]
    )
    return classifier.fit(X, y).predict_proba(T)[:, 1]


def _process_probability(
    X: np.ndarray, y: np.ndarray, T: np.ndarray, pair: tuple[float, float]
) -> np.ndarray:
    """Probabilities (q,) under the process, by Laplace's approximation.

    The softmax of two processes is the logistic function of their difference, whose variance is
    twice as large.
    """
    lengthscale, variance = pair
    kernel = ConstantKernel(2.0 * variance, "fixed") * RBF(lengthscale, "fixed")
    return GaussianProcessClassifier(kernel, optimizer=None).fit(X, y).predict_proba(T)[:, 1]


def log_loss(probability: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log likelihood in nat of labels (q,) under probabilities (q,) of class 1."""
    chosen = np.where(labels == 1, probability, 1.0 - probability)
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def mean_entropy(probability: np.ndarray) -> float:
    """Mean entropy in nat of probabilities (q,) of class 1."""
    p = np.clip(probability, 1e-12, 1.0 - 1e-12)
    return float(-(p * np.log(p) + (1.0 - p) * np.log1p(-p)).mean())
