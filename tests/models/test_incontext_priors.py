"""Priors of in-context networks: laws of what they draw."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from understudy.core.errors import UserError
from understudy.models.incontext.encoding import Encoding
from understudy.models.incontext.gp_priors import (
    FixedGP,
    HeboGP,
    HyperPriorGP,
    correlation,
    draw_functions,
)
from understudy.models.incontext.network_priors import BNNClassification, TabularBNN
from understudy.models.incontext.response_prior import ResponsePrior
from understudy.models.incontext.simulator_prior import SimulatorPrior
from understudy.models.incontext.task import PriorMixture
from understudy.simulate.functions import Borehole

PRIORS = [
    FixedGP(features=3),
    HyperPriorGP(features=3),
    HeboGP(features=6),
    BNNClassification(),
    TabularBNN(features=12),
    ResponsePrior(features=5),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
def test_draws_have_their_shapes_are_finite_and_follow_from_the_seed(prior):
    task = prior.sample(7, 20, seeded())
    assert task.x.shape == (7, 20, prior.features)
    assert task.y.shape == task.target.shape == (7, 20)
    assert bool(torch.isfinite(task.x).all() and torch.isfinite(task.y).all())
    again = prior.sample(7, 20, seeded())
    assert torch.equal(task.x, again.x)
    assert torch.equal(task.y, again.y)
    assert not torch.equal(task.y, prior.sample(7, 20, seeded(1)).y)


@pytest.mark.parametrize("prior", PRIORS[2:3] + PRIORS[4:], ids=lambda prior: type(prior).__name__)
def test_inputs_beyond_those_used_are_zero(prior):
    task = prior.sample(40, 10, seeded())
    beyond = torch.arange(prior.features) >= task.used.unsqueeze(1)
    assert bool((task.x.movedim(1, 2)[beyond] == 0).all())
    assert len(task.used.unique()) > 2


@pytest.mark.parametrize("kernel", ["rbf", "matern-3/2", "matern-5/2"])
def test_functions_have_the_covariance_of_their_kernel(kernel):
    x = torch.tensor([[0.0], [0.2], [0.9]]).expand(20_000, -1, -1)
    values = draw_functions(x, torch.full((20_000, 1), 0.5), kernel, seeded()).double()
    expected = correlation(torch.cdist(x[0], x[0]).double() / 0.5, kernel)
    assert torch.allclose(values.T @ values / len(values), expected, atol=0.03)


def test_inputs_without_influence_do_not_matter():
    x = torch.rand(1, 30, 2, generator=seeded())
    x[..., 1] = 0.5
    scale = torch.tensor([[math.inf, 0.3]])
    values = draw_functions(x, scale, "rbf", seeded())
    assert float(values.std()) < 1e-2


def test_hyperparameters_follow_their_gamma_laws():
    scale, size, noise = HyperPriorGP(features=2).hyperparameters(4000, seeded())
    for drawn, law in (
        (scale, stats.gamma(3.0, scale=1 / 6.0)),
        (size, stats.gamma(2.0, scale=1 / 0.15)),
    ):
        assert stats.kstest(drawn.flatten().numpy(), law.cdf).pvalue > 1e-3
    assert float((noise < 1e-6).float().mean()) > 0.9  # Gamma(1e-4, 1) is nearly always nothing


def test_labels_of_the_paper_s_tabular_prior_are_balanced():
    y = TabularBNN(features=8, unbalanced=0.0, correlated=0.0).sample(50, 101, seeded()).y
    assert bool(((y.mean(1) - 0.5).abs() < 0.02).all())
    unbalanced = TabularBNN(features=8, unbalanced=1.0).sample(200, 100, seeded()).y.mean(1)
    assert float(unbalanced.std()) > 0.1


def test_labels_follow_the_network_s_log_odds():
    prior = BNNClassification()
    weights = prior.weights(1, seeded()).expand(50_000, -1)
    x = torch.tensor([[[0.3, -1.0, 2.0]]]).expand(50_000, -1, -1)
    chance = prior.logit(x, weights).sigmoid()
    assert chance.shape == (50_000, 1)
    straight = BNNClassification(activation=None)
    inner, a, outer, b = weights[0].split([15, 5, 10, 2])
    hidden = x[0, 0] @ inner.reshape(3, 5) + a
    logits = hidden @ outer.reshape(5, 2) + b
    assert float(straight.logit(x, weights)[0, 0]) == pytest.approx(
        float(logits[1] - logits[0]), rel=1e-5
    )


def test_a_mixture_takes_its_shares_and_pads_inputs():
    mixture = PriorMixture([FixedGP(features=2), FixedGP(features=5)], [1.0, 3.0])
    task = mixture.sample(40, 6, seeded())
    assert task.x.shape == (40, 6, 5)
    assert int((task.used == 2).sum()) == 10


def test_a_simulator_with_hidden_inputs_is_a_prior():
    simulator = Borehole()
    names = simulator.space.names
    prior = SimulatorPrior(simulator, tuple(names[:2]))
    task = prior.sample(3, 25, seeded())
    assert task.x.shape == (3, 25, 2)
    assert bool(((task.x >= 0) & (task.x <= 1)).all())
    spread = task.y.mean(1).std()
    assert float(spread) > 0.0  # hidden inputs differ between data sets
    noisy = SimulatorPrior(simulator, tuple(names[:2]), noise=5.0).sample(3, 25, seeded())
    assert float((noisy.y - task.y).std()) == pytest.approx(5.0, rel=0.3)


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (("borehole_radios",), None, "borehole_radius"),
        ((), None, "at least one input"),
        (("length",), "flaw", "flow"),
    ],
)
def test_a_prior_of_a_simulator_names_what_is_wrong(inputs, output, message):
    with pytest.raises(UserError, match=message):
        SimulatorPrior(Borehole(), inputs, output)


@pytest.mark.parametrize("inputs", ["unit", "standard"])
def test_rows_are_padded_and_scaled_alike_in_training_and_use(inputs):
    encoding = Encoding(features=6, inputs=inputs)
    x = torch.rand(2, 5, 3, generator=seeded())
    padded = torch.nn.functional.pad(x, (0, 3))
    trained = encoding.rows(padded, torch.tensor([3, 3]))
    assert torch.allclose(trained, encoding.rows(x))
    assert bool((trained[..., 3:] == 0).all())


def test_outcomes_are_scaled_by_the_context_alone():
    encoding = Encoding(features=1)
    y = torch.tensor([[1.0, 3.0, 5.0], [2.0, 2.0, 2.0]], dtype=torch.float64)
    shift, scale = encoding.outcome_scale(y)
    assert shift.flatten().tolist() == [3.0, 2.0]
    assert scale.flatten().tolist() == [2.0, 1.0]  # a constant context has no spread
    assert encoding.outcome_scale(y[:, :1])[1].flatten().tolist() == [1.0, 1.0]
    empty = encoding.outcome_scale(y[:, :0])
    assert np.array_equal(empty[0].flatten().tolist(), [0.0, 0.0])
