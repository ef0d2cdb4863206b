"""What the base class of surrogates does for every subclass."""

import numpy as np
import pytest
import torch
from botorch.acquisition import LogExpectedImprovement
from botorch.optim import optimize_acqf
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from understudy.core.posterior import independent_gaussian
from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate


class Line(Surrogate):
    """Ridge regression with a constant error bar: the smallest surrogate."""

    def __init__(self, *, ridge: float = 1e-13) -> None:
        self.ridge = ridge

    def _fit(self, U, Z):
        A = torch.cat([U, torch.ones(len(U), 1, dtype=U.dtype)], dim=1)
        self._weights = torch.linalg.solve(A.T @ A + self.ridge * torch.eye(A.shape[1]), A.T @ Z)
        self._noise = (A @ self._weights - Z).std(0) + 1e-3

    def _mean(self, U):
        return U @ self._weights[:-1] + self._weights[-1]

    def _predictive(self, U):
        return Predictive.gaussian(self._mean(U), self._noise)

    def _posterior(self, U, observation_noise):
        return independent_gaussian(self._mean(U), self._noise.square().expand(*U.shape[:-1], -1))

    def _state(self):
        return {"weights": self._weights, "noise": self._noise}

    def _load(self, state):
        self._weights, self._noise = state["weights"], state["noise"]


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.uniform(-50, 1000, size=(40, 3))
    return X, np.column_stack([X @ [1, 2, 3] + 1e4, 1e-4 * X[:, 0]]) + rng.normal(
        size=(40, 1)
    ) * 1e-6


def test_scaling_is_undone_in_predictions(data):
    X, Y = data
    assert np.allclose(Line().fit(X, Y).predict(X), Y, rtol=1e-5, atol=1e-5)


def test_one_dimensional_outputs_give_one_dimensional_predictions(data):
    X, Y = data
    mean, sd = Line().fit(X, Y[:, 0]).predict(X, return_std=True)
    assert mean.shape == sd.shape == (40,)


def test_out_of_fold_predictions_come_from_models_that_have_not_seen_the_row(data):
    X, Y = data
    folds = np.arange(40) % 4
    Y = Y.copy()
    predictive = Line().fit_cross_validated(X, Y, folds)
    Y[folds == 2] += 1e6
    again = Line().fit_cross_validated(X, Y, folds)
    same, moved = folds == 2, folds != 2
    assert np.allclose(again.mean[same].numpy(), predictive.mean[same].numpy(), rtol=1e-4)
    assert not np.allclose(again.mean[moved].numpy(), predictive.mean[moved].numpy(), rtol=1e-2)


def test_rows_outside_every_fold_are_not_predicted(data):
    X, Y = data
    folds = np.where(np.arange(40) < 30, -1, 0)
    assert len(Line().fit_cross_validated(X, Y, folds)) == 10


def test_chunks_do_not_change_predictions(data):
    X, Y = data
    whole, chunked = Line().fit(X, Y), Line().fit(X, Y)
    chunked.chunk_rows = 7
    assert np.array_equal(whole.predict(X), chunked.predict(X))


def test_state_round_trip_is_exact(data):
    X, Y = data
    line = Line(ridge=0.1).fit(X, Y)
    again = Line.from_state(*line.state())
    assert again.ridge == 0.1
    assert np.array_equal(again.predict(X), line.predict(X))


def test_a_posterior_has_gradients_in_the_units_of_the_inputs(data):
    X, Y = data
    point = torch.from_numpy(X[:1]).requires_grad_()
    Line().fit(X, Y).posterior(point).mean[0, 0].backward()
    assert np.allclose(point.grad.numpy(), [[1, 2, 3]], rtol=1e-4)


def test_a_surrogate_serves_scikit_learn_and_botorch(data):
    X, Y = data
    pipeline = make_pipeline(StandardScaler(), Line())
    assert cross_val_score(pipeline, X, Y[:, 0], cv=3).min() > 0.999
    model = Line().fit(X, Y[:, 0]).to_botorch()
    bounds = torch.tensor([[-50.0] * 3, [1000.0] * 3], dtype=torch.float64)
    best, _ = optimize_acqf(
        LogExpectedImprovement(model, best_f=Y[:, 0].min()),
        bounds,
        q=1,
        num_restarts=2,
        raw_samples=8,
    )
    assert torch.allclose(best, bounds[1:])


def test_some_outputs_of_a_botorch_model_are_selected(data):
    X, Y = data
    model = Line().fit(X, Y).to_botorch()
    both = model.posterior(torch.from_numpy(X[:2])).mean
    assert torch.allclose(
        model.subset_output([1]).posterior(torch.from_numpy(X[:2])).mean, both[:, 1:]
    )


def test_an_unfitted_surrogate_says_so(data):
    with pytest.raises(NotFittedError):
        Line().predict(data[0])


def test_functions_are_drawn_with_a_seed(data):
    X, Y = data
    line = Line().fit(X, Y)
    assert line.sample(X[:5], n=3, seed=1).shape == (3, 5, 2)
    assert np.array_equal(line.sample(X[:5], n=3, seed=1), line.sample(X[:5], n=3, seed=1))
