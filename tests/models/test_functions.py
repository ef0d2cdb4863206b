"""Functions drawn from a member's posterior have its mean and variance."""

import numpy as np
import pytest
import torch

from understudy.models.tabular.boosting import BoostingSurrogate
from understudy.models.tabular.deep_ensemble import DeepEnsemble
from understudy.models.tabular.deep_kernel import DeepKernelSurrogate
from understudy.models.tabular.exact_gp import ExactGP, StationaryKernel
from understudy.models.tabular.infinite_width import InfiniteWidthSurrogate, NetworkKernel
from understudy.models.tabular.laplace import LaplaceSurrogate
from understudy.models.tabular.pathwise import waves
from understudy.models.tabular.polynomial import PolynomialSurrogate
from understudy.models.tabular.sparse_gp import SparseGP


def table(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.uniform(-2.0, 7.0, size=(n, 2))
    noise = rng.normal(size=(n, 2)) * [0.2, 5.0]
    return X, np.column_stack([np.sin(X[:, 0]) + X[:, 1], 10.0 * X[:, 1] ** 2]) + noise


MEMBERS = {
    "matern": ExactGP(),
    "squared-exponential": ExactGP(kernel="rbf"),
    "relu": InfiniteWidthSurrogate(),
    "erf": InfiniteWidthSurrogate(activation="erf"),
    "sparse": SparseGP(inducing=20),
    "polynomial": PolynomialSurrogate(),
    "laplace": LaplaceSurrogate(max_steps=60),
    "deep-kernel": DeepKernelSurrogate(pretraining_steps=60, steps=20),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_drawn_functions_have_the_moments_of_the_posterior(name):
    member = MEMBERS[name].fit(*table())
    X = np.random.default_rng(1).uniform(-2.5, 7.5, size=(40, 2))
    functions = member.functions(2000, seed=3)
    values = functions(X)
    posterior = member.posterior(torch.from_numpy(X).unsqueeze(1))
    mean, sd = posterior.mean.detach()[:, 0], posterior.variance.detach().sqrt()[:, 0]
    assert values.shape == (2000, 40, 2)
    assert ((values.mean(0) - mean).abs() < 0.12 * sd + 1e-6).all()
    ratio = (values.std(0) / sd).numpy()
    assert 0.7 < np.quantile(ratio, 0.05) < np.quantile(ratio, 0.95) < 1.5
    assert 0.85 < np.median(ratio) < 1.15


@pytest.mark.parametrize("name", ["matern52", "rbf"])
def test_inner_products_of_waves_are_the_kernel(name):
    lengthscale, outputscale = torch.tensor([[0.3, 0.9]]).double(), torch.tensor([2.5]).double()
    U = torch.rand(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    features = waves(
        name, lengthscale[0], outputscale[0], torch.Generator().manual_seed(1), count=100_000
    )(U)
    exact = StationaryKernel(name, lengthscale, outputscale)(U, U)[0]
    assert torch.allclose(features @ features.mT, exact, atol=0.03)


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_inner_products_of_a_random_network_are_the_infinite_one(activation):
    one = torch.ones(1).double()
    kernel = NetworkKernel(2, activation, torch.tensor([[1.0, 3.0]]).double(), 2 * one, one, one)
    U = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    some = [kernel.random_features(torch.Generator().manual_seed(k))(U) for k in range(60)]
    mean = torch.stack([features @ features.mT for features in some]).mean(0)
    assert torch.allclose(mean, kernel(U, U)[0], rtol=0.03)


@pytest.mark.parametrize("name", ["matern", "relu", "polynomial"])
def test_neighbouring_points_move_together(name):
    member = MEMBERS[name].fit(*table())
    near = np.array([[1.0, 1.0], [1.001, 1.0], [6.9, -1.9]])
    first = member.functions(500)(near)[:, :, 0].numpy()
    correlation = np.corrcoef(first.T)
    assert correlation[0, 1] > 0.999
    assert abs(correlation[0, 2]) < 0.9


@pytest.mark.parametrize("name", MEMBERS)
def test_the_same_functions_answer_every_call(name):
    member = MEMBERS[name].fit(*table())
    X = table(30)[0]
    functions = member.functions(8, seed=1)
    whole = functions(X)
    assert np.allclose(functions(X[10:]), whole[:, 10:], rtol=1e-9, atol=1e-9)
    assert np.allclose(member.functions(8, seed=1)(X), whole)
    assert not np.allclose(member.functions(8, seed=2)(X), whole)


def test_functions_of_an_ensemble_are_those_of_its_posterior():
    member = DeepEnsemble(members=3, max_steps=30).fit(*table())
    X = table(20)[0]
    known = member.posterior(torch.from_numpy(X)).values.movedim(-3, 0)
    assert np.allclose(member.functions()(X), known.detach(), rtol=1e-4, atol=1e-4)


def test_trees_have_no_functions_to_draw():
    assert BoostingSurrogate(max_trees=20).fit(*table()).functions() is None
