"""The mean alone is that of the whole predictive distribution."""

import numpy as np
import pytest
import torch

from understudy.core.space import Continuous, Space
from understudy.core.surrogate import Surrogate
from understudy.core.warp import Identity, Log, YeoJohnson
from understudy.models.tabular.conformal import Conformal
from understudy.models.tabular.exact_gp import ExactGP
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.models.tabular.polynomial import PolynomialSurrogate
from understudy.models.tabular.portfolio import PORTFOLIO

QUICK = {"max_steps": 60, "max_trees": 60, "pretraining_steps": 50, "steps": 20, "members": 2}


def table(n: int = 110) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.uniform(-2.0, 7.0, size=(n, 3))
    noise = 0.1 * rng.normal(size=n)
    return X, np.column_stack(
        [np.sin(X[:, 0]) + X[:, 1], 1e3 * X[:, 2] ** 2, 5.0 + np.cos(X[:, 1]) + noise]
    )


def fitted(model: type[Surrogate], **params: object) -> Surrogate:
    made = model(**params)
    known = made.get_params(deep=False)
    return made.set_params(**{k: v for k, v in QUICK.items() if k in known}).fit(*table())


def queries() -> np.ndarray:
    X, _ = table()
    beyond = np.random.default_rng(1).uniform(-4.0, 9.0, size=(300, 3))
    return np.concatenate([X[:20], X[:20] + 1e-7, beyond])


@pytest.mark.parametrize("candidate", [pytest.param(c, id=c.name) for c in PORTFOLIO])
def test_the_mean_alone_is_that_of_the_predictive(candidate):
    surrogate = fitted(candidate.model, **dict(candidate.params))
    X, sd = queries(), table()[1].std(0)
    whole = surrogate.predictive(X)
    assert np.allclose(surrogate.mean(X).numpy() / sd, whole.mean.numpy() / sd, rtol=0, atol=1e-8)
    assert np.array_equal(surrogate.predict(X), surrogate.mean(X).numpy())
    some = torch.tensor([2, 0])
    part = surrogate.predictive(X, some)
    assert np.allclose(surrogate.mean(X, some), surrogate.mean(X)[:, some], rtol=1e-12)
    assert np.allclose(part.mean, whole.mean[:, some], rtol=1e-12)
    assert np.allclose(part.sd, whole.sd[:, some], rtol=1e-9)


def test_outputs_that_share_a_process_are_told_apart():
    shared = fitted(ExactGP)
    shared._condition(shared._theta[2:], shared._inputs, shared._targets)
    X, some = queries(), torch.tensor([2, 0])
    assert np.allclose(shared.mean(X), shared.predictive(X).mean, rtol=1e-10)
    assert np.allclose(shared.mean(X, some), shared.mean(X)[:, some], rtol=1e-12)
    assert np.allclose(shared.predictive(X, some).sd, shared.predictive(X).sd[:, some], rtol=1e-9)


WARPS = {
    "identity": (Identity(), Identity(), Identity()),
    "some-warped": (Identity(), YeoJohnson(0.4, 100.0, 1e3), Identity()),
    "all-warped": (YeoJohnson(1.3), YeoJohnson(0.4, 100.0, 1e3), Log()),
}


@pytest.mark.parametrize("warps", [pytest.param(w, id=name) for name, w in WARPS.items()])
def test_the_mean_of_a_stack_is_that_of_its_mixture(warps):
    X, Y = table()
    latent = torch.stack([w.forward(y) for w, y in zip(warps, torch.from_numpy(Y.T), strict=True)])
    members = [
        (name, model().fit(X, latent.numpy().T))
        for name, model in (("polynomial", PolynomialSurrogate), ("exact-gp", ExactGP))
    ]
    stack = FittedSurrogate()
    stack._become(
        space=Space(tuple(Continuous(f"x{k}", -2.0, 7.0) for k in range(3))),
        fill={},
        targets=("a", "b", "c"),
        members=members,
        weights=torch.tensor([[0.3, 1.0, 0.0], [0.7, 0.0, 1.0]]).double(),
        warps=warps,
        factor=torch.tensor([1.0, 1.4, 0.7]).double(),
        conformal=Conformal((0.5, 0.9), torch.ones(2, 3).double(), 10),
        one_dimensional=False,
    )
    new = np.random.default_rng(1).uniform(-2.0, 7.0, size=(200, 3))
    sd, whole = Y.std(0), stack.predictive(new)
    assert np.allclose(stack.mean(new).numpy() / sd, whole.mean.numpy() / sd, rtol=0, atol=1e-8)
    assert np.allclose(stack.predict(new), stack.predict(new, return_std=True)[0], atol=1e-8 * sd)
    some = torch.tensor([2, 1])
    assert np.array_equal(stack.mean(new, some), stack.mean(new)[:, some])
