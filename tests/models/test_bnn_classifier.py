"""Classification by samples of a network's weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

from understudy.core.errors import UserError
from understudy.models.tabular.bnn_classifier import BNNClassifier
from understudy.nn.bayesian_mlp import MinibatchJoint, MinibatchSoftmax, ScaledMLP
from understudy.nn.layer_priors import GaussianLayerPrior, HierarchicalLayerPrior, fixed_gaussian
from understudy.sample import value_and_gradient

QUICK = BNNClassifier(
    hidden=(12,),
    prior="fixed",
    chains=2,
    steps=700,
    burn_in=400,
    keep_every=10,
    learning_rate=0.05,
    friction=0.05,
)
MATCHED = {"functions": 16, "steps": 2, "critic_steps": 3, "points": 10, "share": 1.0}
EXPECTED_FAILURES = {"check_classifier_not_supporting_multiclass"}


def rings(n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 2))
    radius = np.linalg.norm(X, axis=1)
    return X, np.array(["near", "middle", "far"])[(radius > 0.9).astype(int) + (radius > 1.6)]


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(estimator, check, id=getattr(check, "func", check).__name__)
        for estimator, check in estimator_checks_generator(
            clone(QUICK).set_params(hidden=(6,), steps=250, burn_in=200), mark=None
        )
    ],
)
def test_scikit_learn_accepts_it_as_a_classifier(estimator, check):
    if getattr(check, "func", check).__name__ in EXPECTED_FAILURES:
        pytest.skip("not applicable")
    check(estimator)


def test_it_separates_rings():
    X, y = rings()
    wide = GaussianLayerPrior(ScaledMLP((2, 12, 3)), deviation=3.0)
    model = clone(QUICK).set_params(prior=wide, steps=1000, burn_in=700).fit(X, y)
    assert model.score(X, y) > 0.8
    probability = model.predict_proba(X)
    assert probability.shape == (120, 3)
    assert np.allclose(probability.sum(1), 1.0)


def test_its_probabilities_are_the_mean_over_networks():
    X, y = rings(40)
    model = clone(QUICK).fit(X, y)
    x = torch.from_numpy((X - X.mean(0)) / X.std(0))
    each = model._network(model.chains_.draws.flatten(0, 1), x).softmax(2)
    assert len(each) == 60
    assert np.allclose(model.predict_proba(X), each.mean(0).numpy())


def test_the_same_seed_gives_the_same_probabilities():
    X, y = rings(40)
    first, second, other = (
        clone(QUICK).set_params(seed=seed).fit(X, y).predict_proba(X) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, second) and not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("prior", "kind"),
    [
        ({"lengthscale": 1.0, "variance": 4.0, **MATCHED}, GaussianLayerPrior),
        ({"family": "hierarchical", **MATCHED}, HierarchicalLayerPrior),
        (fixed_gaussian(ScaledMLP((2, 12, 3))), GaussianLayerPrior),
    ],
)
def test_it_takes_priors_matched_and_given(prior, kind):
    X, y = rings(60)
    model = clone(QUICK).set_params(prior=prior).fit(X, y)
    assert isinstance(model.prior_, kind)
    assert model.score(X, y) > 0.5


def test_a_wider_prior_is_surer_far_from_the_boundary():
    X, y = rings(60)
    sure = [
        clone(QUICK)
        .set_params(prior=GaussianLayerPrior(ScaledMLP((2, 12, 3)), deviation=deviation))
        .fit(X, y)
        .predict_proba(X)
        .max(1)
        .mean()
        for deviation in (0.3, 3.0)
    ]
    assert sure[1] > sure[0] + 0.1


def test_a_batch_of_all_rows_has_the_likelihood_and_gradient_of_the_whole():
    network, generator = ScaledMLP((2, 5, 3)), torch.Generator().manual_seed(0)
    x = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    classes = torch.tensor([0, 1, 2, 1, 0, 2, 2])
    theta = network.initial(4, generator)
    joint = MinibatchJoint(MinibatchSoftmax(network, x, classes), fixed_gaussian(network))

    def plain(at: torch.Tensor) -> torch.Tensor:
        logs = torch.distributions.Categorical(logits=network(at, x)).log_prob(classes).sum(1)
        return logs + torch.distributions.Normal(0.0, 1.0).log_prob(at).sum(1)

    rows = torch.arange(7).expand(4, 7)
    own, auto = joint.value_and_gradient(theta, rows), value_and_gradient(plain)(theta)
    assert torch.allclose(own[0], auto[0]) and torch.allclose(own[1], auto[1])
    halves = [joint.likelihood.value_and_gradient(theta, rows[:, part])[1]
              for part in (slice(0, 3), slice(3, 7))]  # fmt: skip
    whole = joint.likelihood.value_and_gradient(theta, rows)[1]
    assert torch.allclose(3 / 7 * halves[0] + 4 / 7 * halves[1], whole)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"activation": "step"}, "activation"),
        ({"hidden": ()}, "hidden"),
        ({"batch_size": 0}, "batch_size"),
        ({"steps": 400}, "samples"),
        ({"prior": "flat"}, "prior"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(wrong, said):
    with pytest.raises(UserError, match=said):
        clone(QUICK).set_params(**wrong).fit(*rings(20))
