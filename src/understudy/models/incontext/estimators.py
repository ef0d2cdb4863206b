"""In-context networks as scikit-learn estimators and as a surrogate."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from understudy.core.bars import BarDistribution
from understudy.core.errors import UserError
from understudy.core.posterior import BinnedPosterior
from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate
from understudy.models.incontext.pfn import PFN, Context
from understudy.models.incontext.pretrained import shared

if TYPE_CHECKING:
    from botorch.posteriors import Posterior
    from numpy.typing import ArrayLike, NDArray


def network_of(choice: str | Path | PFN, default: str) -> PFN:
    """Return the network that a parameter names: shipped, a file, or itself."""
    if isinstance(choice, PFN):
        return choice
    if choice == "default":
        return shared(default)
    return PFN.load(Path(choice))


def limited_rows(rows: int, most: int, subsample: bool, seed: int) -> NDArray[np.int_] | None:
    """Rows to keep, in order; None for all.

    Raises
    ------
    UserError
        If there are more than the network was trained for and none may be left out.
    """
    if rows <= most:
        return None
    if not subsample:
        raise UserError(
            f"the data have {rows} rows; this network was trained for at most {most}: "
            "subsample=True lets it see a random choice of them"
        )
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def orders(features: int, count: int, seed: int) -> Tensor:
    """Orders (count, d) in which inputs are shown; the first is their own."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, features, generator=generator)
    noise[0] = torch.arange(features) / features
    return noise.argsort(1)


class PFNSurrogate(Surrogate):
    r"""A network that has learnt to regress: fitting is reading the rows once.

    Predictions are bar distributions (arXiv 2112.10510) of new observations, noise included; the
    network knows no noise-free function, and its posterior has no correlation among points
    (`sample` draws whole functions by the chain rule). Several outputs are several data sets,
    answered in one pass. The network sees the inputs in an order; answers are averaged over some.

    Parameters
    ----------
    network : "default", path or PFN
        The shipped network (at most 10 inputs and 200 rows), a file of `PFN.save`, or a network.
    orders : int
        Orders of the inputs over which predictions are averaged, as a mixture.
    subsample : bool
        Whether a random choice of the rows may stand for them where there are more than the
        network was trained for. ``rows_used_`` says how many it saw.
    seed : int

    Attributes
    ----------
    rows_used_ : int
        Rows that the network read.
    """

    chunk_rows = 2048

    def __init__(
        self,
        *,
        network: str | Path | PFN = "default",
        orders: int = 4,
        subsample: bool = False,
        seed: int = 0,
    ) -> None:
        self.network = network
        self.orders = orders
        self.subsample = subsample
        self.seed = seed

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        self._pfn = network_of(self.network, "regression")
        most = self._pfn.most_context
        kept = limited_rows(len(U), most, self.subsample, self.seed)
        if kept is not None:
            U, Z = U[kept], Z[kept]
        self.rows_used_ = len(U)
        self._rows, self._outcomes = U, Z
        self._read()

    @torch.no_grad()
    def _read(self) -> None:
        d, m = self._rows.shape[1], self._outcomes.shape[1]
        self._orders = orders(d, self.orders if d > 1 else 1, self.seed)
        x = self._rows[:, self._orders].movedim(1, 0)  # (k, n, d)
        x = x.repeat_interleave(m, 0)
        y = self._outcomes.T.repeat(len(self._orders), 1)
        self._context: Context = self._pfn.read(x, y)

    @property
    def pfn(self) -> PFN:
        """The network."""
        return self._pfn

    @property
    def context(self) -> Context:
        """What the network has read of the training rows: orders x outputs of them."""
        return self._context

    @property
    def column_orders(self) -> Tensor:
        """Orders (k, d) in which it is shown the inputs."""
        return self._orders

    def _bars(self, U: Tensor) -> BarDistribution:
        """Bars (orders, m, q) at rows U (q, d)."""
        m = self._outcomes.shape[1]
        x = U[:, self._orders].movedim(1, 0).repeat_interleave(m, 0)
        found = self._pfn.answer(self._context, x)
        return found.over(lambda t: t.unflatten(0, (len(self._orders), m)))

    def _mixed(self, U: Tensor) -> BarDistribution:
        """Bars (q, m) of the mixture over orders."""
        found = self._bars(U)
        chance = found.logits.log_softmax(-1).logsumexp(0)
        each = BarDistribution(found.borders, chance, found.shift[0], found.scale[0])
        return each.over(lambda t: t.transpose(0, 1))

    def _predictive(self, U: Tensor) -> Predictive:
        return self._mixed(U).predictive()

    def _expected(self, U: Tensor, outputs: Tensor) -> Tensor:
        return self._mixed(U).mean[:, outputs]

    def _posterior(self, U: Tensor, observation_noise: bool) -> Posterior:
        flat = self._mixed(U.reshape(-1, U.shape[-1]))
        shape = U.shape[:-1]
        return BinnedPosterior(flat.over(lambda t: t.unflatten(0, shape)))

    def bars(self, X: ArrayLike) -> BarDistribution:
        """Exact predictive distribution (n, m) at X (n, d): quantiles, density, improvement."""
        with torch.no_grad():
            found = self._mixed(self._scaled(torch.from_numpy(self._checked(X))))
        return found.affine(self._y_shift, self._y_scale)

    def extended(self, X: Tensor, Y: Tensor) -> Self:
        """Return a surrogate that has also read rows X (p, d) with outcomes Y (p, m).

        Scales stay as they are; where the network reads no more rows, the first ones go.
        """
        other = copy(self)
        most = self._pfn.most_context
        z = (Y - self._y_shift) / self._y_scale
        other._rows = torch.cat([self._rows, self._scaled(X)])[-most:]
        other._outcomes = torch.cat([self._outcomes, z])[-most:]
        other._read()
        return other

    @torch.no_grad()
    def sample(self, X: ArrayLike, n: int = 1, seed: int = 0) -> NDArray[np.float64]:
        """Draw n functions at X (q, d), (n, q, m), by the chain rule: q passes of the network.

        Context and q points together may not exceed what the network was trained for.
        """
        U = self._scaled(torch.from_numpy(self._checked(X)))
        generator = torch.Generator().manual_seed(seed)
        m = self._outcomes.shape[1]
        y = self._outcomes.T.repeat(n, 1)
        x = self._rows.expand(n * m, -1, -1)
        for row in U:
            at = row.expand(n * m, 1, -1)
            drawn = self._pfn.predict(x, y, at).sample(1, generator)[0]
            x, y = torch.cat([x, at], 1), torch.cat([y, drawn.to(y)], 1)
        values = y[:, len(self._rows) :].unflatten(0, (n, m)).transpose(1, 2)
        whole: NDArray[np.float64] = (self._y_shift + self._y_scale * values).numpy()
        return whole

    def _state(self) -> dict[str, Tensor]:
        return {"rows": self._rows, "outcomes": self._outcomes, "network": self._pfn.to_tensor()}

    def _load(self, state: dict[str, Tensor]) -> None:
        self._pfn = PFN.from_tensor(state["network"])
        self._rows, self._outcomes = state["rows"], state["outcomes"]
        self.rows_used_ = len(self._rows)
        self._read()

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the fitted surrogate as JSON-able parameters and tensors, the network's too."""
        head, tensors = super().state()
        if not isinstance(self.network, str):
            head["params"] = {**head["params"], "network": "default"}
        return head, tensors


PFNRegressor = PFNSurrogate
"""The same under the name that scikit-learn's users look for."""


class PFNClassifier(ClassifierMixin, BaseEstimator):
    """A network that has learnt to classify: fitting is reading the rows once.

    Inputs are standardised by the training rows alone. More than two classes are told apart one
    against the rest, in one pass.

    Parameters
    ----------
    network : "default", path or PFN
        The shipped network (at most 60 inputs and 200 rows), a file, or a network whose head is
        binary.
    orders : int
        Orders of the inputs over which probabilities are averaged.
    subsample : bool
        Whether a random choice of the rows may stand for them where there are more than the
        network was trained for.
    seed : int

    Attributes
    ----------
    classes_ : array (c,)
    rows_used_ : int
        Rows that the network read.
    """

    def __init__(
        self,
        *,
        network: str | Path | PFN = "default",
        orders: int = 4,
        subsample: bool = False,
        seed: int = 0,
    ) -> None:
        self.network = network
        self.orders = orders
        self.subsample = subsample
        self.seed = seed

    @torch.no_grad()
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Read rows X (n, d) with classes y (n,)."""
        checked, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self._pfn = network_of(self.network, "classification")
        self.classes_, codes = np.unique(y, return_inverse=True)
        kept = limited_rows(len(checked), self._pfn.most_context, self.subsample, self.seed)
        if kept is not None:
            checked, codes = checked[kept], codes[kept]
        self.rows_used_ = len(checked)
        spread = checked.std(0)
        self._shift, self._spread = checked.mean(0), np.where(spread > 1e-12, spread, 1.0)
        d, count = checked.shape[1], len(self.classes_)
        self._orders = orders(d, self.orders if d > 1 else 1, self.seed)
        labels = [1] if count == 2 else list(range(count))
        outcomes = torch.tensor(np.stack([codes == label for label in labels]) * 1.0)
        x = self._shown(checked, len(labels))
        self._context = self._pfn.read(x, outcomes.repeat(len(self._orders), 1))
        return self

    def _shown(self, X: NDArray[np.float64], labels: int) -> Tensor:
        """Rows as the network sees them, (orders x labels, n, d)."""
        located = torch.from_numpy((X - self._shift) / self._spread)
        return located[:, self._orders].movedim(1, 0).repeat_interleave(labels, 0)

    @torch.no_grad()
    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of each class at X (n, d), (n, c)."""
        check_is_fitted(self, "classes_")
        checked = validate_data(self, X, reset=False, dtype=np.float64)
        count = len(self.classes_)
        labels = 1 if count == 2 else count
        logits = self._pfn.logits(self._context, self._shown(checked, labels))
        chance = logits.double().squeeze(-1).sigmoid().unflatten(0, (-1, labels)).mean(0)
        if count == 1:
            return np.ones((len(checked), 1))
        both = torch.stack([1.0 - chance[0], chance[0]]) if count == 2 else chance
        shared: NDArray[np.float64] = (both / both.sum(0)).T.numpy()
        return shared

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Most probable class at X (n, d), (n,)."""
        chance = self.predict_proba(X)
        chosen: NDArray[Any] = self.classes_[chance.argmax(1)]
        return chosen
