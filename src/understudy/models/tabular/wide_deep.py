r"""Classifiers that infinitely wide networks become as their depth grows, in closed form.

Radhakrishnan, Belkin & Uhler (2023, arXiv 2204.14126). For rows :math:`x_i` on the unit sphere with
labels :math:`y_i = \pm 1`, a network of infinite width and L hidden layers, trained to zero loss,
classifies by

.. math:: \operatorname{sign}\left(y^\top G_L^{-1} k_L(x)\right)

with its tangent kernel or, if only the last layer is trained, its covariance at initialisation (see
`understudy.nn.tangent_kernel`). As :math:`L \to \infty` the activation decides what that becomes
(see `understudy.nn.dual_activation`): the nearest neighbour's label, the majority's, or the sign of

.. math:: \sum_i y_i\, \psi(\langle x, x_i \rangle), \qquad
          \psi(\langle x, x' \rangle) \sim \|x - x'\|^{-\alpha},

which is Bayes-consistent exactly where :math:`\alpha = d`, the dimension of the sphere, as is
Devroye, Györfi & Krzyżak's (1998) Hilbert estimate, of weights :math:`\|x - x'\|^{-d}`. More than
two classes are taken one against the rest.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from understudy.core.errors import UserError
from understudy.nn.dual_activation import (
    DualActivation,
    ErfActivation,
    ReLUActivation,
    classify_limit,
    optimal_activation,
)
from understudy.nn.tangent_kernel import DeepKernel, check_depth, deep_kernel, ridgeless

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

KERNELS = ("nngp", "ntk", "limit")
SPHERES = ("lift", "normalise", "given")
NAMED = {"relu": ReLUActivation, "erf": ErfActivation}
MAX_DENSE = 20_000
"""Rows up to which a kernel matrix is solved; the limit needs none and takes any number."""

_COINCIDENT_DECIMALS = 8
_CELLS = 1 << 22


class _TableClassifier(ClassifierMixin, BaseEstimator):
    """What the classifiers of this file share: checks, classes and prediction in batches."""

    def _start(self, X: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], Tensor]:
        """Check the training data; return inputs (n, p) and one column a class, (n, c)."""
        checked, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        return np.asarray(checked), torch.from_numpy(np.eye(len(self.classes_))[codes])

    def _located(self, X: NDArray[np.float64]) -> Tensor:
        """Return checked rows where the kernel takes them."""
        raise NotImplementedError

    def _scores(self, rows: Tensor) -> Tensor:
        """Scores (q, c) of located rows."""
        raise NotImplementedError

    @torch.no_grad()
    def _batched_scores(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores (n, c) in batches whose kernel has a bounded number of cells."""
        check_is_fitted(self)
        rows = self._located(validate_data(self, X, reset=False, dtype=np.float64))
        batch = max(1, _CELLS // len(self._points))
        return torch.cat([self._scores(part) for part in rows.split(batch)]).numpy()

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores of rows X (n, p), each up to a positive factor of its own.

        Returns
        -------
        array (n,) or (n, c)
            Above 0 for the second of two classes; for c classes, largest for the predicted one.
        """
        scores = self._batched_scores(X)
        if scores.shape[1] > 2:
            return scores
        return scores[:, -1] - scores[:, 0]

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Classes (n,) of rows X (n, p)."""
        best = self._batched_scores(X).argmax(1)
        return self.classes_[best]


class InfiniteDepthClassifier(_TableClassifier):
    r"""Infinitely wide classifier of a given, or of infinite, depth.

    Parameters
    ----------
    activation : {"optimal", "relu", "erf"} or DualActivation
        ``"optimal"`` is the paper's for the dimension of the sphere that the rows are on.
    depth : int
        Hidden layers; 50 as in the official experiments. Without effect on the limit. Beyond
        convergence layers cost nothing, and the tangent kernel of a singular activation needs many:
        it is near its limit once the depth exceeds the inverse squared distance of neighbours.
    kernel : {"nngp", "ntk", "limit"}
        Covariance at initialisation (as in the official experiments with singular kernels), tangent
        kernel, or the limit of both at infinite depth, which solves no linear system.
    sphere : {"lift", "normalise", "given"}
        How rows come to the unit sphere. ``"given"``: they are on it. ``"normalise"``: by their
        length, which is for data whose direction alone matters. ``"lift"``, not of the paper: p
        inputs are scaled to :math:`[-1, 1]^p` by their training range, a constant
        :math:`\sqrt p` is appended and the row is normalised, which keeps rows apart and all inner
        products within the training range non-negative.

    Attributes
    ----------
    classes_ : array (c,)
    activation_ : DualActivation
    dimension_ : int
        Dimension of the sphere.
    limit_ : DepthLimit
        What the classifier tends to with depth.
    n_distinct_ : int
        Training rows after those that coincide were merged: such rows count once, with the mean of
        their labels, as interpolation of least norm has it.

    Notes
    -----
    Fitting costs :math:`n^3` time and :math:`n^2` memory, with the limit :math:`n`; predicting
    some tens of passes over the kernel's cells. The theory is for inner products of at least 0; a
    warning says where one is negative.
    """

    def __init__(
        self,
        activation: str | DualActivation = "optimal",
        depth: int = 50,
        kernel: str = "nngp",
        *,
        sphere: str = "lift",
    ) -> None:
        self.activation = activation
        self.depth = depth
        self.kernel = kernel
        self.sphere = sphere

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to rows X (n, p) and classes y (n,).

        Raises
        ------
        UserError
            If a parameter or a row cannot be accepted, or the activation has no such limit.
        """
        self._check_choices()
        X, labels = self._start(X, y)
        self._centre, self._half_width = _range(X)
        points = self._located(X)
        self.dimension_ = points.shape[1] - 1
        self.activation_ = self._activation()
        self.limit_ = classify_limit(self.activation_)
        self._points, labels = _distinct(points, labels)
        self.n_distinct_ = len(self._points)
        self._check_kernel()
        self._weights = labels if self.kernel == "limit" else self._solve(labels)
        return self

    def _check_choices(self) -> None:
        for name, accepted in (("kernel", KERNELS), ("sphere", SPHERES)):
            found = getattr(self, name)
            if found not in accepted:
                raise UserError(f"{name} must be one of {', '.join(accepted)}, got {found!r}")
        named = ("optimal", *NAMED)
        if not isinstance(self.activation, DualActivation) and self.activation not in named:
            raise UserError(
                f"activation must be one of {', '.join(named)} or a DualActivation, "
                f"got {self.activation!r}"
            )

    def _activation(self) -> DualActivation:
        if isinstance(self.activation, DualActivation):
            return self.activation
        if self.activation == "optimal":
            return optimal_activation(self.dimension_)
        return NAMED[self.activation]()

    def _check_kernel(self) -> None:
        if self.depth == math.inf:
            raise UserError("depth must be finite: for infinite depth set kernel to 'limit'")
        check_depth(self.activation_, self.depth)
        if self.kernel != "limit" and self.n_distinct_ > MAX_DENSE:
            raise UserError(
                f"{self.n_distinct_} rows are too many to solve for (at most {MAX_DENSE}): set "
                "kernel to 'limit', which solves nothing"
            )
        if self.kernel == "limit" and self.limit_.kind in ("interpolation", "linear"):
            raise UserError(
                "the activation's limit is none of nearest neighbour, majority and singular "
                f"kernel but {self.limit_}: set kernel to 'nngp' or 'ntk' with a finite depth"
            )

    def _located(self, X: NDArray[np.float64]) -> Tensor:
        if self.sphere == "lift":
            return torch.from_numpy(_lifted(X, self._centre, self._half_width))
        return torch.from_numpy(_on_sphere(X, rescale=self.sphere == "normalise"))

    def _solve(self, labels: Tensor) -> Tensor:
        cosine = _cosine(self._points, self._points).fill_diagonal_(0.0)
        gram = self._kernel(cosine).over_diagonal().fill_diagonal_(1.0)
        return ridgeless(gram, labels)

    def _kernel(self, cosine: Tensor) -> DeepKernel:
        depth = math.inf if self.kernel == "limit" else self.depth
        return deep_kernel(cosine, self.activation_, depth, tangent=self.kernel == "ntk")

    def _scores(self, rows: Tensor) -> Tensor:
        if self.kernel == "limit" and self.limit_.kind == "majority":
            return self._weights.mean(0).expand(len(rows), -1)
        return self._kernel(_cosine(rows, self._points)).over_largest() @ self._weights


class HilbertEstimator(_TableClassifier):
    r"""Classifier by all training rows, weighted by a power of their distance.

    Devroye, Györfi & Krzyżak (1998), "The Hilbert kernel regression estimate":

    .. math:: \hat p_c(x) = \frac{\sum_{i: y_i = c} \|x - x_i\|^{-\alpha}}
                               {\sum_i \|x - x_i\|^{-\alpha}},

    consistent where :math:`\alpha` is the dimension of what the rows fill.

    Parameters
    ----------
    alpha : float, optional
        Positive. By default the number of inputs; rows on a sphere fill one less.
    """

    def __init__(self, alpha: float | None = None) -> None:
        self.alpha = alpha

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to rows X (n, p) and classes y (n,)."""
        if self.alpha is not None and not 0.0 < self.alpha < math.inf:
            raise UserError(f"alpha must be positive and finite, got {self.alpha!r}")
        X, self._labels = self._start(X, y)
        self._points = torch.from_numpy(np.array(X))
        self.alpha_ = float(self.n_features_in_ if self.alpha is None else self.alpha)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Shares (n, c) of the classes in the weights at rows X (n, p)."""
        return self._batched_scores(X)

    def _located(self, X: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(np.array(X))

    def _scores(self, rows: Tensor) -> Tensor:
        exponent = _distance(rows, self._points).clamp_min_(1e-300).log_().mul_(-self.alpha_)
        return exponent.softmax(-1) @ self._labels


def _distance(A: Tensor, B: Tensor) -> Tensor:
    """Distances (p, q), exact for points that are close."""
    return torch.cdist(A, B, compute_mode="donot_use_mm_for_euclid_dist")


def _cosine(A: Tensor, B: Tensor) -> Tensor:
    """Inner products (p, q) of unit vectors, exact for points that are close."""
    cosine = _distance(A, B).square_().mul_(-0.5).add_(1.0)
    cosine = torch.where(cosine.abs() < 1e-15, 0.0, cosine).clamp_min_(-1.0)
    if float(cosine.amin()) < -1e-12:
        warnings.warn(
            "some rows have negative inner products, for which nothing is known of the limit",
            stacklevel=4,
        )
    return cosine


def _range(X: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middle and half width (p,) of each column; width 1 where it is constant."""
    high, low = 0.5 * X.max(0), 0.5 * X.min(0)
    return high + low, np.where(high > low, high - low, 1.0)


def _lifted(
    X: NDArray[np.float64], centre: NDArray[np.float64], half_width: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rows scaled to [-1, 1], extended by a constant and normalised, (n, p + 1)."""
    scaled = (X - centre) / half_width
    constant = np.full((len(X), 1), math.sqrt(X.shape[1]))
    lifted = np.hstack([scaled, constant])
    return lifted / np.linalg.norm(lifted, axis=1, keepdims=True)


def _on_sphere(X: NDArray[np.float64], rescale: bool) -> NDArray[np.float64]:
    """Rows of unit length, refused where they have no direction or, unscaled, another length."""
    if X.shape[1] < 2:
        raise UserError("rows of 1 feature(s) lie on no sphere: set sphere to 'lift'")
    norm = np.linalg.norm(X, axis=1, keepdims=True)
    if not norm.all():
        raise UserError(
            f"row {int(norm.argmin())} is zero and has no direction: set sphere to 'lift'"
        )
    off = np.abs(norm[:, 0] - 1.0)
    if not rescale and off.max() > 1e-6:
        row = int(off.argmax())
        raise UserError(
            f"row {row} has length {float(norm[row, 0]):.6g}, not 1: set sphere to 'normalise' if "
            "direction alone matters, else to 'lift'"
        )
    return X / norm


def _distinct(points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Points with those that coincide merged, and the mean labels of each."""
    rounded = np.round(points.numpy(), _COINCIDENT_DECIMALS)
    _, first, group = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
    index = torch.from_numpy(group.reshape(-1))
    count = torch.bincount(index).unsqueeze(1)
    total = torch.zeros(len(first), labels.shape[1], dtype=labels.dtype)
    return points[torch.from_numpy(first)], total.index_add_(0, index, labels) / count
