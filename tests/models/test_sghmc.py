"""What is particular to the stochastic-gradient surrogate; `test_hmc` has the contract of both."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from understudy.core.errors import UserError
from understudy.models.tabular.sghmc import SGHMCSurrogate

QUICK = {"hidden": (16, 16), "steps": 500, "burn_in": 300}


def line(n: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(n, 1))
    return X, 5.0 * X[:, 0] + noise * rng.normal(size=n)


def test_defaults_are_those_of_the_paper():
    model = SGHMCSurrogate()
    assert (model.steps, model.burn_in, model.keep_every, model.batch_size) == (2000, 1000, 5, 5)
    assert (model.learning_rate, model.friction) == (1e-2, 0.05)
    assert model._plan(1.0).samples == 200 and model._plan(1.0).steps == 2000


def test_inputs_are_standardised_inside():
    X, y = line(40, 0.1)
    model = SGHMCSurrogate(**QUICK, prior_variance=1.0).fit(X, y)
    inner = ((torch.from_numpy(X) - model._x_shift) / model._x_scale - model._shift) / model._spread
    assert float(inner.mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(inner.std()) == pytest.approx(1.0)


def test_a_wide_prior_lets_the_noise_be_found():
    X, y = line(200, 1.0)
    model = SGHMCSurrogate(
        hidden=(16,), steps=3000, burn_in=2000, prior_variance=1.0, noise_mean=0.1, noise_spread=9.0
    ).fit(X, y)
    noise = float((model._samples.noise.mean(0) * model._y_scale.square()).sqrt())
    assert noise == pytest.approx(1.0, rel=0.15)


def test_the_narrow_prior_of_the_paper_holds_the_noise_down():
    """At its mode the pulls of likelihood and prior on log s balance: with n rows of squared
    error e, n (e/s - 1) / 2 = 100 (log s - log 1e-6).
    """
    X, y = line(100, 1.0)
    model = SGHMCSurrogate(hidden=(16,), steps=3000, burn_in=2000, prior_variance=1.0).fit(X, y)
    s = model._samples.noise.mean()
    Z = (torch.from_numpy(y) - model._y_shift) / model._y_scale
    residual = Z.unsqueeze(1) - (model.mean(X) - model._y_shift) / model._y_scale
    e = residual.square().mean()
    pull, hold = 50.0 * (e / s - 1.0), 100.0 * (s.log() - np.log(1e-6))
    assert float(pull) == pytest.approx(float(hold), rel=0.35)
    assert float(s) < 0.5 * float(e)


def test_a_prior_variance_of_the_grid_is_chosen():
    X, y = line(40, 0.1)
    assert SGHMCSurrogate(**QUICK).fit(X, y).prior_variance_ in (0.1, 1.0, 10.0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"steps": 300}, "two samples"),
        ({"friction": 1.5}, "friction"),
        ({"noise_spread": -1.0}, "noise_spread"),
        ({"hidden": (0,)}, "hidden"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(wrong, said):
    with pytest.raises(UserError, match=said):
        SGHMCSurrogate(**{**QUICK, "prior_variance": 1.0, **wrong}).fit(*line(20, 0.1))
