"""The sparse Student-t process classifier."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch.distributions import InverseGamma as TorchInverseGamma
from torch.distributions import MultivariateNormal, kl_divergence

from understudy.core.errors import UserError
from understudy.models.tabular.sparse_t_process import SparseTProcess, SparseTProcessClassifier
from understudy.nn.infinite_width import nngp
from understudy.nn.scale_prior import BurrXII, InverseGamma, PointMass

QUICK = {
    "num_inducing": 20,
    "depth": 2,
    "bias_std": 0.5,
    "max_epochs": 20,
    "batch_size": 50,
    "num_samples": 16,
    "learning_rate": 0.05,
}


def moons(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_moons(n, noise=0.15, random_state=seed)
    return X, np.array(["low", "high"])[y]


@pytest.fixture(scope="module")
def fitted() -> SparseTProcessClassifier:
    return SparseTProcessClassifier(**QUICK).fit(*moons())


def process(prior) -> SparseTProcess:
    generator = torch.Generator().manual_seed(0)
    Z = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    made = SparseTProcess(Z, 2, 2, "erf", 0.0, 1.0, 0.4, prior)
    with torch.no_grad():
        made.mean.copy_(torch.randn(2, 4, generator=generator, dtype=torch.float64))
        made.log_variance.add_(torch.randn(2, 4, generator=generator, dtype=torch.float64))
        made.log_shape.add_(0.3 * torch.randn(2, generator=generator, dtype=torch.float64))
    return made


def K(made: SparseTProcess, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    return made.log_scale.exp() * nngp(A, B, *made._network())


@pytest.mark.parametrize("prior", [InverseGamma(2.0, 3.0), PointMass()])
def test_the_divergence_is_that_of_the_distributions_given_the_scale(prior):
    made = process(prior)
    inducing = K(made, made.Z, made.Z) + 1e-6 * torch.eye(4)

    def at(s: float) -> float:
        parts = [
            kl_divergence(
                MultivariateNormal(made.mean[c], s * torch.diag(made.variance[c])),
                MultivariateNormal(torch.zeros(4).double(), s * inducing),
            )
            for c in range(2)
        ]
        return float(sum(parts))

    found = float(made.divergence(made.factor()))
    if isinstance(prior, PointMass):
        assert found == pytest.approx(at(1.0))
        return
    a, b = made.log_shape.exp().tolist()
    s = stats.invgamma(a, scale=b).ppf((np.arange(4000) + 0.5) / 4000)
    outer = stats.invgamma(a, scale=b).logpdf(s) - stats.invgamma(2.0, scale=3.0).logpdf(s)
    slope = at(1.0) - at(1e9)  # the divergence given s is constant plus a term in 1 / s
    assert found == pytest.approx(at(1e9) + slope * np.mean(1.0 / s) + outer.mean(), rel=2e-3)


def test_latent_moments_are_those_of_the_inducing_variables_passed_on():
    made, X = process(InverseGamma()), torch.randn(5, 3, dtype=torch.float64)
    Kzz = K(made, made.Z, made.Z) + 1e-6 * torch.eye(4)
    A = K(made, X, made.Z) @ torch.linalg.inv(Kzz)
    mean, variance = made.latent(X, made.factor())
    assert torch.allclose(mean, made.mean @ A.mT, atol=1e-8)
    left = K(made, X, X) - A @ K(made, made.Z, X)
    for c in range(2):
        whole = A @ torch.diag(made.variance[c]) @ A.mT + left
        assert torch.allclose(variance[c], whole.diagonal(), rtol=1e-6)


def test_draws_share_one_scale_over_the_classes():
    made = process(InverseGamma(0.5, 0.5))
    with torch.no_grad():
        made.mean.zero_()
    points = torch.rand(4096, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points[:, 0] = 0.999  # one large scale: nearly every draw is sure of some class
    X = torch.randn(3, 3, dtype=torch.float64)
    low = points.clone()
    low[:, 0] = 0.001
    mean, variance = made.latent(X, made.factor())
    spread = (made.q.quantile(points[:1, 0]) / made.q.quantile(low[:1, 0])).sqrt()
    assert float(spread) > 100.0
    probabilities = made.probabilities(X, made.factor(), points)
    assert torch.allclose(probabilities.sum(1), torch.ones(3).double())
    assert torch.allclose(probabilities, torch.full((3, 2), 0.5).double(), atol=0.05)
    assert mean.shape == variance.shape == (2, 3)


def test_scales_follow_their_posterior_and_carry_its_gradient():
    made = process(InverseGamma(2.0, 3.0))
    torch.manual_seed(0)
    drawn = made.draw_scales(4000)
    a, b = made.log_shape.exp().tolist()
    assert stats.kstest(drawn.detach().numpy(), stats.invgamma(a, scale=b).cdf).pvalue > 0.01
    (gradient,) = torch.autograd.grad(drawn.log().mean(), made.log_shape)
    exact = torch.tensor([a * -float(torch.polygamma(1, torch.tensor(a))), 1.0])
    assert torch.allclose(gradient, exact.double(), rtol=0.1)  # of E log s = log b - digamma(a)
    assert isinstance(made.q, InverseGamma)
    assert math.isfinite(TorchInverseGamma(torch.tensor(a), torch.tensor(b)).entropy())


def test_it_separates_the_moons(fitted):
    assert fitted.score(*moons(seed=1)) > 0.9
    probabilities = fitted.predict_proba(moons(seed=1)[0])
    np.testing.assert_allclose(probabilities.sum(1), 1.0)
    assert isinstance(fitted.scale_, InverseGamma)


def test_training_raises_the_bound(fitted):
    X, labels = moons()
    y = torch.from_numpy(np.searchsorted(fitted.classes_, labels))
    start = SparseTProcessClassifier(**QUICK | {"max_epochs": 1, "learning_rate": 1e-9})

    def bound(classifier: SparseTProcessClassifier) -> float:
        torch.manual_seed(0)
        made = classifier.process_
        with torch.no_grad():
            L = made.factor()
            fit = made.log_likelihood(torch.from_numpy(X), y, L, 200)
            return float(len(X) * fit - made.divergence(L))

    assert bound(fitted) > bound(start.fit(X, labels)) + 20.0


def test_a_point_mass_keeps_its_scale_and_learns_the_kernels():
    plain = SparseTProcessClassifier(scale_prior="point-mass", **QUICK).fit(*moons())
    assert plain.scale_ == PointMass(1.0)
    assert float(plain.process_.log_scale) != 0.0
    assert plain.score(*moons(seed=1)) > 0.9


def test_inducing_rows_are_balanced_over_the_classes():
    codes = np.r_[np.zeros(90, int), np.ones(10, int), np.full(50, 2)]
    classifier = SparseTProcessClassifier(num_inducing=24)
    classifier.classes_ = np.arange(3)
    assert np.bincount(codes[classifier._inducing_rows(codes)]).tolist() == [8, 8, 8]


def test_the_same_seed_gives_the_same_probabilities(fitted):
    again = clone(fitted).fit(*moons())
    X = moons(seed=2)[0]
    assert np.array_equal(again.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"scale_prior": BurrXII()}, "scale_prior must be inverse-gamma or point-mass"),
        ({"num_inducing": 1}, "num_inducing must be at least the number of classes"),
        ({"activation": "cosine"}, "activation"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(UserError, match=named):
        SparseTProcessClassifier(**options).fit(*moons(20))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(e, c, id=getattr(c, "func", c).__name__)
        for e, c in estimator_checks_generator(SparseTProcessClassifier(**QUICK), mark=None)
    ],
)
def test_scikit_learn_accepts_it_as_a_classifier(estimator, check):
    check(estimator)
