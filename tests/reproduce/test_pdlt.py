import math

import pytest
import torch

from understudy.core.systems import find
from understudy.nn.gaussian_expectation import activation
from understudy.nn.signal_propagation import LearningRates
from understudy.reproduce import Scale, pdlt
from understudy.reproduce.criticality.digits import cross_entropy, load_centred, train
from understudy.reproduce.criticality.fluctuations import collapse, slope_of
from understudy.reproduce.criticality.networks import Networks, depth_changes
from understudy.reproduce.criticality.rates import valley
from understudy.reproduce.criticality.setting import BUDGETS


def test_the_system_is_implemented():
    assert find("pdlt").implemented


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale():
    claims = pdlt.run(Scale.SMOKE, seed=3)
    assert {claim.seeds[0] for claim in claims} == {3}
    assert all(math.isfinite(claim.bar) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims)


def test_the_slope_is_found_where_deviations_follow_the_fitted_curve():
    deviations = {
        n: torch.tensor([(0.3 + 5 * l + 7 * l * l / n) / n for l in range(10)]) for n in (60, 120)
    }
    assert slope_of(deviations) == pytest.approx(5.0)


def test_deviations_that_depend_on_depth_over_width_collapse():
    deviations = {n: torch.expm1(5 * torch.arange(10.0) / n) for n in (30, 60, 120)}
    assert collapse(deviations) == pytest.approx(0.0, abs=1e-5)
    deviations[60] = 1.1 * deviations[60]
    assert collapse(deviations) == pytest.approx(0.1, rel=0.05)


def test_the_valley_of_a_parabola_is_its_vertex():
    values = [(k - 3.3) ** 2 for k in range(8)]
    assert valley(values) == pytest.approx(3.3)
    assert valley([3.0, 2.0, 1.0, math.inf]) == 2.0


def test_networks_of_one_batch_train_independently():
    data = load_centred()
    together = Networks.draw(torch.tanh, [64, 8, 10], [0.0, 0.0], [1.0, 2.0], [5, 6])
    alone = Networks.draw(torch.tanh, [64, 8, 10], [0.0], [2.0], [6])
    rates = [LearningRates([0.1, 0.2], [0.3, 0.4]), LearningRates([0.5, 0.6], [0.7, 0.8])]
    train(together, rates, 3, cross_entropy, data)
    train(alone, rates[1:], 3, cross_entropy, data)
    for many, one in zip(together.weights, alone.weights, strict=True):
        assert torch.allclose(many[1], one[0], atol=1e-6)


def test_a_step_of_training_is_that_of_torch():
    data = load_centred()
    networks = Networks.draw(torch.relu, [64, 8, 10], [0.1], [2.0], [0])
    layers = [torch.nn.Linear(64, 8), torch.nn.Linear(8, 10)]
    with torch.no_grad():
        for layer, W, b in zip(layers, networks.weights, networks.biases, strict=True):
            layer.weight.copy_(W[0].T)
            layer.bias.copy_(b[0, 0])
    model = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])
    rows = torch.randint(len(data.train[0]), (64,), generator=torch.Generator().manual_seed(0))
    X, y = (part[rows] for part in data.train)
    groups = [
        {"params": [layer.weight], "lr": rate / layer.in_features}
        for layer, rate in zip(layers, (0.3, 0.4), strict=True)
    ]
    groups += [
        {"params": [layer.bias], "lr": rate} for layer, rate in zip(layers, (0.1, 0.2), strict=True)
    ]
    torch.nn.functional.cross_entropy(model(X), y).backward()
    torch.optim.SGD(groups, lr=1.0).step()
    train(networks, [LearningRates([0.1, 0.2], [0.3, 0.4])], 1, cross_entropy, data)
    for layer, W, b in zip(layers, networks.weights, networks.biases, strict=True):
        assert torch.allclose(layer.weight.T, W[0], atol=1e-6)
        assert torch.allclose(layer.bias, b[0, 0], atol=1e-6)


def test_changes_at_criticality_and_off_it_are_those_of_the_theory():
    budget = BUDGETS[Scale.SMOKE]
    K, gradient = depth_changes("linear", 0.0, 1.0, 1.0, budget, 0)
    assert 0.5 < K < 2.0 and 0.5 < gradient < 2.0
    K, _ = depth_changes("linear", 0.0, 10.0, 1.0, budget, 0)
    assert 0.5 < K / 10.0 ** (budget.deep - 1) < 1.5


def test_ensembles_start_from_the_variance_asked_for():
    from understudy.nn.random_networks import Ensemble, layers

    ensemble = Ensemble(activation("relu"), 0.0, 2.0, 100, 1, K1=2.5)
    [z] = layers(ensemble, 1000, torch.Generator().manual_seed(0))
    assert z.square().mean().item() == pytest.approx(2.5, rel=0.02)
