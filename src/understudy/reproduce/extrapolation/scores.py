"""Log densities and coverage of forecasts, on curves of the prior and of real networks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from understudy.data.learning_curves import EPOCHS as RUN
from understudy.data.learning_curves import learning_curve_sets, load_learning_curves
from understudy.models.incontext.curve_mcmc import LastValue
from understudy.models.incontext.curve_normaliser import CurveNormaliser
from understudy.models.incontext.curve_prior import EPOCHS, CurvePrior
from understudy.models.incontext.lcpfn import LCPFN
from understudy.reproduce.extrapolation.setting import CUTOFFS, LEVELS, Floats, Size


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


def prior_scores(network: LCPFN, size: Size, seed: int) -> Scores:
    """Score the network and chains on the same fresh curves of the prior."""
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
        inside.append(inside_intervals(bars.cdf(y)))
    ours, other = np.array(scores).T
    return Scores(ours, other, np.concatenate(inside).mean(0))


@dataclass(frozen=True)
class RealScores:
    """What the network, chains and the last value got on curves of real networks.

    Parameters
    ----------
    scores : array (tasks, cut-offs, 3)
        Mean log density, of sets and metrics.
    coverage : array (tasks, levels)
        Share of the values in the network's central intervals, over all cut-offs; accuracies and
        losses in turns.
    """

    scores: Floats
    coverage: Floats

    @property
    def ranks(self) -> Floats:
        """Mean rank of each method at each cut-off (cut-offs, 3); 1 is the best."""
        return np.asarray((-self.scores).argsort(-1).argsort(-1).mean(0) + 1.0)


def real_scores(network: LCPFN, size: Size, seed: int) -> RealScores:
    """Score the network, chains and the last value, each on the same real curves."""
    tasks = real_curves(size, seed)
    scores = np.empty((len(tasks), len(CUTOFFS), 3))
    inside = []
    chains, last = replace(size.chains, seed=seed), LastValue(seed=seed)
    curves = torch.cat(tasks)
    for k, cut in enumerate(CUTOFFS):
        T = math.ceil(cut * RUN)
        ahead, y = torch.arange(T + 1, RUN + 1), curves[:, T:]
        bars = network.predict(curves[:, :T], ahead)
        by_method = [
            bars.log_density(y).mean(1),
            chains.predict(curves[:, :T], ahead).log_density(y.T).mean(0),
            last.predict(curves[:, :T], ahead).log_density(y.T).mean(0),
        ]
        parts = torch.stack(by_method, 1).split([len(task) for task in tasks])
        scores[:, k] = torch.stack([part.mean(0) for part in parts]).numpy()
        inside.append(inside_intervals(bars.cdf(y)).reshape(len(tasks), -1, len(LEVELS)).mean(1))
    return RealScores(scores, np.mean(inside, axis=0))


def real_curves(size: Size, seed: int) -> list[Tensor]:
    """Normalised curves (n, 50), a random few of each set; accuracies and losses in turns."""
    rng = np.random.default_rng(seed)
    tasks = []
    for name in learning_curve_sets()[: size.sets]:
        curves = load_learning_curves(name)
        loss = CurveNormaliser.log_loss(math.log(curves.classes))
        for normaliser, values in ((CurveNormaliser(), curves.accuracy), (loss, curves.log_loss)):
            rows = rng.choice(len(values), size.real, replace=False)
            tasks.append(normaliser(torch.from_numpy(values[rows])))
    return tasks


def inside_intervals(pit: Tensor) -> Floats:
    """Whether values of these probabilities are in the central intervals: (cells, levels)."""
    away = (pit.flatten().unsqueeze(1) - 0.5).abs()
    return (away < 0.5 * torch.tensor(LEVELS)).double().numpy()
