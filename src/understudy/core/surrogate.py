"""The contract of a surrogate: a scikit-learn regressor that knows how sure it is."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from understudy.core.predictive import Predictive
from understudy.core.scaling import Scaling

if TYPE_CHECKING:
    from collections.abc import Callable

    from botorch.models.model import Model
    from botorch.posteriors import Posterior
    from numpy.typing import ArrayLike, NDArray

_SCALING = ("x_shift", "x_scale", "y_shift", "y_scale")


class Surrogate(RegressorMixin, BaseEstimator):
    """A regressor with calibrated error bars, joint posteriors and gradients.

    The base does the plumbing: it checks inputs, maps each input column to [0, 1] by the training
    range and each output to mean 0 and variance 1, predicts in chunks, undoes the scaling, and
    stores the fitted state as tensors. A subclass writes the method only:

    ``_fit(U, Z)``
        learn from scaled inputs U (n, d) and outputs Z (n, m), float64;
    ``_predictive(U)``
        `Predictive` of new observations at U (n, d), without gradient;
    ``_expected(U, outputs)``
        optional: the mean of ``_predictive`` alone, of some outputs, (n, k), where that costs less;
    ``_predictive_of(U, outputs)``
        optional: the `Predictive` of some outputs, where that costs less than all;
    ``_posterior(U, observation_noise)``
        BoTorch posterior at U (*batch, q, d), joint over q, differentiable in U;
    ``_functions(count, generator)``
        optional: count functions drawn from the posterior, as a map of U (n, d) to their values
        (s, n, m), the same s <= count functions at every call;
    ``_state()``, ``_load(state)``
        all that prediction needs, as a flat dict of tensors;
    ``_fit_folds(U, Z, folds)``
        optional: fit on all rows and return out-of-fold predictives faster than fold by fold.
    """

    chunk_rows: int = 8192
    """Rows predicted at once; bounds memory whatever the length of the table."""

    # -- what a subclass writes ---------------------------------------------------------------

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        raise NotImplementedError

    def _predictive(self, U: Tensor) -> Predictive:
        raise NotImplementedError

    def _expected(self, U: Tensor, outputs: Tensor) -> Tensor:
        return self._predictive(U).mean[:, outputs]

    def _predictive_of(self, U: Tensor, outputs: Tensor) -> Predictive:
        return self._predictive(U).outputs(outputs)

    def _posterior(self, U: Tensor, observation_noise: bool) -> Posterior:
        raise NotImplementedError

    def _functions(
        self, count: int, generator: torch.Generator
    ) -> Callable[[Tensor], Tensor] | None:
        return None

    def _state(self) -> dict[str, Tensor]:
        raise NotImplementedError

    def _load(self, state: dict[str, Tensor]) -> None:
        raise NotImplementedError

    def _fit_folds(self, U: Tensor, Z: Tensor, folds: NDArray[np.int_]) -> Predictive:
        parts, order = [], []
        kinds = np.unique(folds[folds >= 0])
        for fold in kinds:
            inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            member = self._with_share_of_time(len(kinds) + 1)
            member._fit(U[inside], Z[inside])
            parts.append(member._predictive_chunks(U[outside]))
            order.append(outside)
        self._fit(U, Z)
        back = torch.from_numpy(np.argsort(np.concatenate(order)))
        return Predictive.concatenate(parts)[back]

    def _with_share_of_time(self, fits: int) -> Self:
        """Return an unfitted copy that takes its share of the time limit, where there is one."""
        copy = clone(self)
        limit = self.get_params(deep=False).get("max_seconds")
        return copy if limit is None else copy.set_params(max_seconds=limit / fits)

    @torch.no_grad()
    def _predictive_chunks(self, U: Tensor, outputs: Tensor | None = None) -> Predictive:
        parts = [
            self._predictive(rows) if outputs is None else self._predictive_of(rows, outputs)
            for rows in U.split(self.chunk_rows)
        ]
        return parts[0] if len(parts) == 1 else Predictive.concatenate(parts)

    # -- what a user calls --------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to inputs X (n, d) and outputs y (n,) or (n, m)."""
        U, Z = self._start(X, y)
        self._fit(U, Z)
        return self

    def fit_cross_validated(
        self, X: ArrayLike, y: ArrayLike, folds: NDArray[np.int_]
    ) -> Predictive:
        """Fit to all rows and return each row's predictive by a model that has not seen it.

        Parameters
        ----------
        X : array (n, d)
        y : array (n,) or (n, m)
        folds : int array (n,)
            Fold of each row; rows with -1 are never held out.

        Returns
        -------
        Predictive
            Of the rows with a fold, in their order, and m outputs, in the units of y.
        """
        U, Z = self._start(X, y)
        return self._fit_folds(U, Z, np.asarray(folds)).affine(self._y_shift, self._y_scale)

    def predict(
        self, X: ArrayLike, return_std: bool = False
    ) -> NDArray[np.float64] | tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean of a new observation at X (n, d), as (n,) or (n, m); with its deviation if asked."""
        if not return_std:
            return self._shaped(self.mean(X))
        predictive = self.predictive(X)
        return self._shaped(predictive.mean), self._shaped(predictive.sd)

    @torch.no_grad()
    def predictive(self, X: ArrayLike, outputs: Tensor | None = None) -> Predictive:
        """Marginal predictive distribution of new observations at X (n, d), in chunks.

        Parameters
        ----------
        X : array (n, d)
        outputs : LongTensor (k,), optional
            Only these of the m outputs.
        """
        scaled = self._scaled(torch.from_numpy(self._checked(X)))
        at = slice(None) if outputs is None else outputs
        whole = self._predictive_chunks(scaled, outputs)
        return whole.affine(self._y_shift[at], self._y_scale[at])

    @torch.no_grad()
    def mean(self, X: ArrayLike, outputs: Tensor | None = None) -> Tensor:
        """Mean of new observations at X (n, d), in chunks; cheaper than that of `predictive`.

        Parameters
        ----------
        X : array (n, d)
        outputs : LongTensor (k,), optional
            Only these of the m outputs.

        Returns
        -------
        Tensor (n, k)
        """
        scaled = self._scaled(torch.from_numpy(self._checked(X)))
        at = torch.arange(self.n_outputs_) if outputs is None else outputs
        parts = [self._expected(rows, at) for rows in scaled.split(self.chunk_rows)]
        return self._y_shift[at] + self._y_scale[at] * torch.cat(parts)

    def posterior(self, X: Tensor, observation_noise: bool = False) -> Posterior:
        """Joint posterior at X (*batch, q, d), differentiable in X.

        Parameters
        ----------
        X : Tensor (*batch, q, d)
            Query points in the units of the training inputs.
        observation_noise : bool
            Whether draws are of observations or, as by default, of the noise-free function.

        Returns
        -------
        Posterior
            BoTorch posterior over (*batch, q, m).
        """
        from understudy.core.posterior import rescale

        check_is_fitted(self, "n_outputs_")
        latent = self._posterior(self._scaled(X.to(torch.float64)), observation_noise)
        return rescale(latent, self._y_shift, self._y_scale)

    def sample(self, X: ArrayLike, n: int = 1, seed: int = 0) -> NDArray[np.float64]:
        """Draw n functions at X (q, d), as an array (n, q, m)."""
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            posterior = self.posterior(torch.from_numpy(self._checked(X)))
            return posterior.rsample(torch.Size([n])).numpy()

    def functions(self, count: int = 64, seed: int = 0) -> Callable[[ArrayLike], Tensor] | None:
        """Draw functions from the posterior, without noise, to be evaluated anywhere.

        Unlike `sample`, whose cost is cubic in the points, this is linear in them.

        Parameters
        ----------
        count : int
            Functions at most.
        seed : int

        Returns
        -------
        callable or None
            Maps X (n, d) to values (s, n, m) of the same s functions at every call; None where
            the surrogate's posterior is not one of functions.
        """
        check_is_fitted(self, "n_outputs_")
        with torch.no_grad():
            drawn = self._functions(count, torch.Generator().manual_seed(seed))
        if drawn is None:
            return None
        values = drawn

        @torch.no_grad()
        def evaluate(X: ArrayLike) -> Tensor:
            rows = self._scaled(torch.from_numpy(self._checked(X))).split(self.chunk_rows)
            whole = torch.cat([values(part) for part in rows], dim=1)
            return self._y_shift + self._y_scale * whole

        return evaluate

    def to_botorch(self) -> Model:
        """Return this surrogate as a BoTorch model, for any acquisition function."""
        from understudy.core.botorch_model import SurrogateModel

        check_is_fitted(self, "n_outputs_")
        return SurrogateModel(self)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the fitted surrogate as JSON-able parameters and named tensors."""
        check_is_fitted(self, "n_outputs_")
        head = {
            "class": type(self).__name__,
            "params": self.get_params(deep=False),
            "n_features": self.n_features_in_,
            "n_outputs": self.n_outputs_,
            "one_dimensional": self._one_dimensional,
        }
        tensors = {name: getattr(self, f"_{name}") for name in _SCALING}
        inner = {f"model.{key}": value for key, value in self._state().items()}
        return head, {**tensors, **inner}

    @classmethod
    def from_state(cls, head: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Return the surrogate that `state` described."""
        allowed = inspect.signature(cls.__init__).parameters
        surrogate = cls(**{k: v for k, v in head["params"].items() if k in allowed})
        surrogate.n_features_in_ = int(head["n_features"])
        surrogate.n_outputs_ = int(head["n_outputs"])
        surrogate._one_dimensional = bool(head["one_dimensional"])
        for name in _SCALING:
            setattr(surrogate, f"_{name}", tensors[name])
        inner = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        surrogate._load(inner)
        return surrogate

    # -- units --------------------------------------------------------------------------------

    @property
    def input_units(self) -> Scaling:
        """Units (d,) that take the training inputs to the unit cube; the model learns in these."""
        return Scaling(self._x_shift, self._x_scale)

    @property
    def output_units(self) -> Scaling:
        """Units (m,) that take the training outputs to mean 0 and variance 1."""
        return Scaling(self._y_shift, self._y_scale)

    @property
    def one_dimensional(self) -> bool:
        """Whether outputs were given, and are predicted, as (n,)."""
        return self._one_dimensional

    def scaled_predictive(self, U: Tensor) -> Predictive:
        """Predictive at U (n, d) in the unit cube, of scaled outputs: in one piece, traceable."""
        return self._predictive(U)

    # -- plumbing -----------------------------------------------------------------------------

    def _start(self, X: ArrayLike, y: ArrayLike) -> tuple[Tensor, Tensor]:
        """Check the training data, remember its scaling and return it scaled."""
        checked, y = validate_data(
            self, X, y, multi_output=True, y_numeric=True, dtype=np.float64, ensure_min_samples=2
        )
        Y = np.array(y, dtype=np.float64)
        self._one_dimensional = Y.ndim == 1
        inputs = torch.from_numpy(np.array(checked))
        outputs = torch.from_numpy(Y.reshape(len(inputs), -1))
        self.n_outputs_ = outputs.shape[1]
        self._x_shift = inputs.amin(0)
        self._x_scale = _positive(inputs.amax(0) - self._x_shift)
        self._y_shift = outputs.mean(0)
        self._y_scale = _positive(outputs.std(0))
        return self._scaled(inputs), (outputs - self._y_shift) / self._y_scale

    def _scaled(self, X: Tensor) -> Tensor:
        return self.input_units.forward(X)

    def _checked(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self, "n_outputs_")
        X = X.detach().numpy() if isinstance(X, Tensor) else X
        checked = X if self._is_plain(X) else validate_data(self, X, reset=False, dtype=np.float64)
        return np.require(checked, requirements=["C", "W"])

    def _is_plain(self, X: ArrayLike) -> bool:
        """Whether X passes scikit-learn's checks as it is; they take longer than many a model."""
        return (
            type(X) is np.ndarray
            and X.dtype == np.float64
            and X.ndim == 2
            and len(X) > 0
            and X.shape[1] == self.n_features_in_
            and not hasattr(self, "feature_names_in_")
            and bool(np.isfinite(X).all())
        )

    def _shaped(self, values: Tensor) -> NDArray[np.float64]:
        array = values.numpy()
        return array[:, 0] if self._one_dimensional else array

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.non_deterministic = False
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_outputs_")


def _positive(scale: Tensor) -> Tensor:
    """Return the scale with 1 in place of 0 (constant columns) and of values lost to rounding."""
    return torch.where(scale > torch.finfo(scale.dtype).tiny, scale, torch.ones_like(scale))
