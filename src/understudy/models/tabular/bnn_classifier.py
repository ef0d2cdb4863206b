r"""Bayesian neural network classifier under a prior on functions.

Tran, Rossi, Milios & Filippone (2022, arXiv 2011.12829), section 5: classes have probabilities

.. math:: p(c \mid x) = \frac1S \sum_s \operatorname{softmax}_c f_s(x)

over S networks from the posterior of weights, sampled by stochastic-gradient HMC. The prior of the
weights is fixed, or matched to a Gaussian process for each class (see
`understudy.models.tabular.functional_prior`). Inputs are standardised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.tabular.functional_prior import PriorChoice, layer_prior
from understudy.models.tabular.stochastic_posterior import Rows, WeightSampler
from understudy.nn.bayesian_mlp import MinibatchSoftmax, ScaledMLP
from understudy.nn.mlp import ACTIVATIONS
from understudy.sample.chains import Chains, Plan
from understudy.sample.sghmc import SGHMC

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_CHUNK_ROWS = 1024


class BNNClassifier(ClassifierMixin, BaseEstimator):
    """Bayesian neural network with a softmax likelihood.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers; (100, 100) as in the paper's two-dimensional example.
    activation : str
    prior : str, dict, FunctionalPrior or LayerPrior
        ``"functional"`` and its kin are matched to a Gaussian process, ``"fixed"`` is N(0, 1) on
        weights in units of their fan-in; see
        `understudy.models.tabular.functional_prior.PRIORS`.
    chains : int
        4 as in the paper; all draws of all chains count alike.
    steps, burn_in, keep_every : int
        In all, those that adapt, and how many lie between samples.
    learning_rate, friction : float
        0.01 each, as in the paper.
    batch_size : int
        Rows in a step; 32 as in the paper.
    resample_every : int
        Steps between draws of the precisions of a hierarchical prior; without effect otherwise.
    seed : int

    Attributes
    ----------
    classes_ : array (c,)
    prior_ : LayerPrior
    chains_ : Chains
        Weights in units of their fan-in.
    """

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (100, 100),
        activation: str = "tanh",
        prior: PriorChoice = "functional",
        chains: int = 4,
        steps: int = 6000,
        burn_in: int = 2000,
        keep_every: int = 200,
        learning_rate: float = 0.01,
        friction: float = 0.01,
        batch_size: int = 32,
        resample_every: int = 20,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.prior = prior
        self.chains = chains
        self.steps = steps
        self.burn_in = burn_in
        self.keep_every = keep_every
        self.learning_rate = learning_rate
        self.friction = friction
        self.batch_size = batch_size
        self.resample_every = resample_every
        self.seed = seed

    @torch.no_grad()
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to rows X (n, d) and classes y (n,).

        Raises
        ------
        UserError
            If a parameter cannot be accepted.
        """
        self._check()
        checked, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        spread = checked.std(0)
        self._shift, self._spread = checked.mean(0), np.where(spread > 1e-12, spread, 1.0)
        x = self._located(checked)
        sizes = (x.shape[1], *map(int, self.hidden), len(self.classes_))
        self._network = ScaledMLP(sizes, self.activation)
        self.prior_ = layer_prior(self.prior, self._network, x, self.seed)
        self.chains_ = self._sample(x, torch.from_numpy(codes))
        return self

    def _check(self) -> None:
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UserError(f"activation must be one of {known}, got {self.activation!r}")
        if not self.hidden or any(int(width) < 1 for width in self.hidden):
            raise UserError(f"hidden must name at least one positive width, got {self.hidden}")
        for name in ("chains", "keep_every", "batch_size", "resample_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self._kept < 1:
            raise UserError(
                f"a posterior needs samples; keep more than {self.steps} steps with "
                f"{self.burn_in} of burn-in leave"
            )

    @property
    def _kept(self) -> int:
        return (self.steps - self.burn_in) // self.keep_every

    def _sample(self, x: Tensor, classes: Tensor) -> Chains:
        generator = torch.Generator().manual_seed(self.seed)
        start = self._network.initial(self.chains, generator)
        plan = Plan(self.burn_in, self._kept, self.keep_every)
        sampler = WeightSampler(
            SGHMC(self.learning_rate, self.friction, epsilon=1e-10), plan, self.resample_every
        )
        likelihood = MinibatchSoftmax(self._network, x, classes)
        rows = Rows(len(x), self.batch_size)
        found = sampler.run(likelihood, self.prior_.frozen(), rows, start, generator)
        if found.interrupted:
            raise KeyboardInterrupt
        return found

    def _located(self, X: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy((X - self._shift) / self._spread)

    @torch.no_grad()
    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities (n, c) of the classes at rows X (n, d)."""
        check_is_fitted(self)
        x = self._located(validate_data(self, X, reset=False, dtype=np.float64))
        theta = self.chains_.draws.flatten(0, 1)
        parts = [self._network(theta, part).softmax(2).mean(0) for part in x.split(_CHUNK_ROWS)]
        return torch.cat(parts).numpy()

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Classes (n,) of rows X (n, d)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]
