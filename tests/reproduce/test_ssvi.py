import math

import numpy as np
import pytest
import torch

from understudy.core.systems import find
from understudy.nn.sparse_bayesian import sparse_layers
from understudy.nn.sparse_subspace import removal_scores
from understudy.reproduce import Scale
from understudy.reproduce import ssvi as reproduction
from understudy.reproduce.sparse_digits.foreign import entropy
from understudy.reproduce.sparse_digits.rivals import pruned_to, resnet18
from understudy.reproduce.sparse_digits.setting import Digits, Scores, Study


@pytest.fixture(scope="module")
def claims():
    return reproduction.run(Scale.SMOKE, seed=3)


@pytest.fixture(scope="module")
def study():
    return Study(reproduction._SIZES[Scale.SMOKE], range(1))


def test_the_system_is_implemented():
    assert find("ssvi").implemented


def test_every_claim_is_measured_at_smoke_scale(claims):
    assert {claim.seeds[0] for claim in claims} == {3}
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims) == 17


@pytest.mark.slow
def test_the_same_seed_measures_the_same(claims):
    again = reproduction.run(Scale.SMOKE, seed=3)
    assert [claim.measured for claim in claims] == [claim.measured for claim in again]


def test_splits_hold_every_digit_once():
    digits = Digits.split(range(2), 400)
    assert digits.x.shape == (2, 300, 64) and digits.test_x.shape == (2, 100, 64)
    whole = torch.cat([digits.x, digits.test_x], dim=1)
    first, second = (np.unique(rows.numpy(), axis=0) for rows in whole)
    np.testing.assert_array_equal(first, second)
    assert not torch.equal(digits.x[0], digits.x[1])


def test_pruning_keeps_the_best_weights_of_the_dense_network(study):
    pruned = pruned_to(study, study.dense, 0.05)
    for name, layer in sparse_layers(pruned).items():
        source = sparse_layers(study.dense)[name]
        scores = removal_scores("snr_abs", source.mu, source.sigma)
        assert scores[layer.mask].min() >= scores[~layer.mask].max()
        assert torch.equal(layer.mu[layer.mask], source.mu[layer.mask])
        assert not bool(layer.mu[~layer.mask].any())


def test_resnet_18_has_its_eleven_million_weights():
    layers = resnet18(0.05)
    assert len(layers) == 21
    assert sum(layer.weights for layer in layers) == 11_164_352
    assert sum(layer.weights * layer.positions for layer in layers) == pytest.approx(
        5.56e8, rel=0.01
    )


def test_scores_are_those_of_a_confident_classifier_that_is_right_three_times_in_four():
    probabilities = torch.tensor([[0.9, 0.1]] * 4).unsqueeze(0)
    scores = Scores.of(probabilities, torch.tensor([[0, 0, 0, 1]]))
    assert scores.accuracy[0] == 0.75
    assert scores.nll[0] == pytest.approx(-(3 * math.log(0.9) + math.log(0.1)) / 4)
    assert scores.ece[0] == pytest.approx(0.15, abs=1e-6)


def test_entropy_tells_sure_from_unsure():
    found = entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    np.testing.assert_allclose(found, [0.0, math.log(2.0)], atol=1e-6)
