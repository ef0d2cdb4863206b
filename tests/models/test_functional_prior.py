"""Priors matched to processes, and surrogates that are given a prior."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sklearn.base import clone

from understudy.core.errors import UserError
from understudy.models.tabular.functional_prior import (
    PRIORS,
    Critic,
    FunctionalPrior,
    FunctionalPriorMatcher,
    Grid,
    HierarchicalRBFProcess,
    RBFProcess,
    TrainingAndUniform,
    layer_prior,
    minibatch,
    wasserstein,
)
from understudy.models.tabular.hmc import HMCSurrogate
from understudy.models.tabular.sghmc import SGHMCSurrogate
from understudy.nn.bayesian_mlp import FlatMLP, ScaledMLP
from understudy.nn.layer_priors import (
    GaussianLayerPrior,
    HierarchicalLayerPrior,
    PlanarFlowLayerPrior,
    fixed_gaussian,
)

NETWORK = ScaledMLP((1, 20, 1))
QUICK = {"functions": 32, "steps": 3, "critic_steps": 5, "points": 10}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matcher(prior=None, **settings) -> FunctionalPriorMatcher:
    prior = GaussianLayerPrior(NETWORK) if prior is None else prior
    given = {"functions": 32, "steps": 3, "critic_steps": 5} | settings
    return FunctionalPriorMatcher(RBFProcess(1.0, 1.0), prior, Grid(-3.0, 3.0, 12), **given)


# -- the functions wanted ------------------------------------------------------------------------


def test_draws_of_a_process_have_its_covariance():
    process = RBFProcess((1.0, 2.0), 3.0, outputs=2)
    X = torch.randn(4, 2, generator=generator(), dtype=torch.float64)
    drawn = process.sample_functions(X, 20_000, generator())
    scaled = X / torch.tensor([1.0, 2.0])
    expected = 3.0 * (-0.5 * (scaled[:, None] - scaled).square().sum(2)).exp()
    assert drawn.shape == (4, 20_000, 2)
    assert torch.allclose(torch.cov(drawn[:, :, 1]), expected, atol=0.1)
    assert abs(float((drawn[..., 0] * drawn[..., 1]).mean())) < 0.05


def test_a_process_is_drawn_where_its_covariance_is_singular():
    X = torch.linspace(0.0, 0.1, 60).unsqueeze(1)
    values = RBFProcess(5.0).sample_functions(X, 3, generator())
    assert float(values.diff(dim=0).abs().max()) < 1e-2  # the smooth function it should be


def test_every_function_of_a_hierarchical_process_has_a_variance_of_its_own():
    X = torch.linspace(-2.0, 2.0, 3).unsqueeze(1)
    values = HierarchicalRBFProcess().sample_functions(X, 4000, generator())[0, :, 0]
    normal = torch.randn(2, 4000, generator=generator(1), dtype=torch.float64)
    expected = (0.5 * (normal[0] + 0.1)).exp() * normal[1]
    assert kstest(values.numpy(), expected.numpy()).pvalue > 0.001


def test_hyperparameters_that_are_not_positive_are_refused():
    with pytest.raises(UserError, match="positive"):
        RBFProcess(lengthscale=0.0)


# -- where functions are compared ----------------------------------------------------------------


def test_a_measurement_set_has_rows_of_the_table_and_points_in_its_range():
    x = torch.rand(50, 3, generator=generator(), dtype=torch.float64)
    X = TrainingAndUniform(x, points=20)(generator())
    assert X.shape == (20, 3)
    known = (X[:14, None] == x).all(2).any(1)
    assert bool(known.all()) and len(X[:14].unique(dim=0)) == 14
    assert bool((X[14:] >= x.amin(0)).all() and (X[14:] <= x.amax(0)).all())
    assert not bool((X[14:, None] == x).all(2).any())


def test_a_measurement_set_changes_with_every_step():
    x = torch.rand(50, 3, generator=generator(), dtype=torch.float64)
    draw = generator()
    assert not torch.equal(minibatch(x, 10)(draw), minibatch(x, 10)(draw))


def test_more_rows_than_there_are_cannot_be_measured():
    with pytest.raises(UserError, match="only 10"):
        minibatch(torch.zeros(10, 2), 11)


# -- the distance --------------------------------------------------------------------------------


def test_the_slope_of_a_critic_is_the_norm_of_its_gradient():
    critic = Critic(7, generator(), torch.float64)
    f = torch.randn(5, 7, generator=generator(1), dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(f).sum(), f)
    assert torch.allclose(critic.slope(f), gradient.norm(dim=1))


def test_a_fitted_critic_measures_how_far_a_shift_moves_functions():
    """Moved by c, functions are |c| = c sqrt(N) away. A slope s scores s |c| - 10 (s - 1)^2, so the
    penalty lets the critic have s = 1 + |c| / 20.
    """
    fitted = matcher(functions=40, critic_steps=150, critic_learning_rate=0.05, threshold=0.0)
    X = Grid(-3.0, 3.0, 12)(generator())
    process = RBFProcess().sample_functions(X, 40, generator())

    def both(X, draw):
        return process + 1.0, process

    fitted._both = both
    critic, _ = fitted._critic(X, [], generator())
    found = float(wasserstein(critic, process + 1.0, process).detach())
    assert found == pytest.approx(np.sqrt(12) * (1.0 + np.sqrt(12) / 20.0), rel=0.05)


def test_the_distance_adds_up_over_outputs():
    critic = Critic(4, generator(), torch.float64)
    f, g = (torch.randn(4, 9, 2, generator=generator(s), dtype=torch.float64) for s in (1, 2))
    parts = [wasserstein(critic, f[..., k : k + 1], g[..., k : k + 1]) for k in (0, 1)]
    assert torch.allclose(wasserstein(critic, f, g), torch.stack(parts).sum())


def test_a_critic_is_fitted_until_its_gradient_is_small():
    assert int(matcher(threshold=1e9).fit().critic_steps.max()) == 0
    assert int(matcher(threshold=0.0).fit().critic_steps.min()) == 5


def test_gradients_that_are_remembered_keep_the_next_critic_from_overshooting():
    """At the rate of the official code, where a critic that starts afresh sees next to nothing."""
    prior = GaussianLayerPrior(NETWORK, deviation=0.5).float()
    fit = matcher(prior, functions=64, critic_steps=60, critic_learning_rate=0.08, threshold=0.0)
    X = Grid(-3.0, 3.0, 40)(generator()).float()
    memory = []
    with torch.no_grad():
        network, process = fit._both(X, generator(5))
        first, second = (
            wasserstein(fit._critic(X, memory, generator(7))[0], network, process) for _ in range(2)
        )
    assert len(memory) == 5 and second > 3.0 * first.abs()


def test_gradients_are_remembered_from_critic_to_critic_on_demand():
    afresh, remembering = (GaussianLayerPrior(NETWORK) for _ in range(2))
    distances = [
        matcher(prior, one_memory=kept).fit().distance
        for prior, kept in ((afresh, False), (remembering, True))
    ]
    assert distances[0][0] == distances[1][0] and distances[0][1] != distances[1][1]


def test_functions_of_the_critic_and_of_the_prior_are_drawn_apart():
    drawn = []

    class Recorder(RBFProcess):
        def sample_functions(self, X, functions, draw):
            drawn.append(super().sample_functions(X, functions, draw))
            return drawn[-1]

    fit = matcher(steps=1)
    fit.process = Recorder()
    fit.fit()
    assert len(drawn) == 2 and not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("gain", [0.3, 2.0])
def test_gradients_of_a_critic_are_those_of_autograd(one_sided, gain):
    critic = Critic(7, generator(), torch.float64)
    with torch.no_grad():
        critic.weights[2].mul_(gain)
    f, g, between = (
        torch.randn(5, 7, generator=generator(s), dtype=torch.float64) for s in (1, 2, 3)
    )
    excess = critic.slope(between) - 1.0
    excess = excess.clamp_min(0.0) if one_sided else excess
    loss = 10.0 * excess.square().sum() - critic(f).sum() + critic(g).sum()
    weights, biases = list(critic.weights), list(critic.biases)
    parameters = [weights[0], biases[0], weights[1], biases[1], weights[2]]
    expected = torch.autograd.grad(loss, parameters)
    found = critic.loss_gradients(f, g, between, 10.0, one_sided)
    for own, auto in zip(found, expected, strict=True):
        assert torch.allclose(own, auto)


# -- the match -----------------------------------------------------------------------------------


def test_a_match_brings_the_variance_of_functions_to_that_of_the_process():
    prior = GaussianLayerPrior(NETWORK, deviation=3.0).float()
    fit = matcher(
        prior, functions=64, steps=40, learning_rate=0.1, critic_steps=15,
        critic_learning_rate=0.08,
    )  # fmt: skip
    X = Grid(-3.0, 3.0, 12)(generator()).float()
    before = float(prior.sample_functions(X, 2000, generator()).var().detach())
    history = fit.fit()
    after = float(prior.sample_functions(X, 2000, generator()).var().detach())
    first, last = history.smoothed()
    assert before > 10.0 and after == pytest.approx(1.0, abs=0.35)
    assert last < 0.35 * first and len(history.distance) == 40


@pytest.mark.parametrize(
    "prior", [GaussianLayerPrior, HierarchicalLayerPrior, PlanarFlowLayerPrior]
)
def test_the_same_seed_gives_the_same_match(prior):
    first, second, other = (prior(NETWORK) for _ in range(3))
    for one, seed in ((first, 0), (second, 0), (other, 1)):
        matcher(one, seed=seed).fit()
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    differ = [
        torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)
    ]
    assert all(same) and not any(differ)


def test_a_match_ends_when_its_time_is_up():
    history = matcher(steps=10**6, max_seconds=0.2).fit()
    assert 1 <= len(history.distance) < 10**4


def test_a_listener_hears_every_step():
    said = []
    matcher(listener=said.append).fit()
    assert len(said) == 3 and "step 3 of 3" in said[-1].message


def test_a_process_with_other_outputs_is_refused():
    fit = matcher()
    fit.process = RBFProcess(outputs=2)
    with pytest.raises(UserError, match="2 output"):
        fit.fit()


@pytest.mark.parametrize("wrong", [{"functions": 0}, {"learning_rate": 0.0}, {"critic_steps": 0}])
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        matcher(**wrong)


def test_defaults_are_those_of_the_paper_for_tables():
    found = FunctionalPrior()
    assert (found.functions, found.points, found.share) == (128, 100, 0.7)
    assert (found.critic_steps, found.critic_learning_rate, found.threshold) == (200, 0.02, 0.1)
    assert (found.steps, found.learning_rate) == (200, 0.05)


# -- surrogates with a prior ---------------------------------------------------------------------


def table(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.uniform(-2.0, 7.0, size=(n, 2))
    return X, np.sin(X[:, 0]) + 0.3 * X[:, 1]


MATCHED = {"lengthscale": 1.0, **QUICK}
SURROGATES = {
    "hmc": HMCSurrogate(
        hidden=(12,),
        noise_variance=0.05,
        warm_start_steps=150,
        burn_in=20,
        samples=20,
        path_length=0.3,
    ),
    "sghmc": SGHMCSurrogate(
        hidden=(12,),
        noise_variance=0.05,
        steps=1000,
        burn_in=700,
        batch_size=20,
        learning_rate=0.03,
        friction=0.02,
    ),
}
CHOICES = {
    "fixed": "fixed",
    "fixed-hierarchical": "fixed-hierarchical",
    "functional": FunctionalPrior(**MATCHED),
    "hierarchical": {"family": "hierarchical", **MATCHED},
    "given": fixed_gaussian(ScaledMLP((2, 12, 1))),
}


@pytest.fixture(scope="module")
def fitted() -> dict[tuple[str, str], SGHMCSurrogate]:
    found: dict[tuple[str, str], SGHMCSurrogate] = {}
    for name, model in SURROGATES.items():
        for choice, prior in CHOICES.items():
            found[name, choice] = clone(model).set_params(prior=prior).fit(*table())
    return found


every = [(name, choice) for name in SURROGATES for choice in CHOICES]
each = pytest.mark.parametrize("key", every, ids="-".join)


@each
def test_a_surrogate_with_a_prior_learns(key, fitted):
    assert fitted[key].score(*table()) > 0.8


@each
def test_its_state_comes_back_through_json(key, fitted):
    head, tensors = fitted[key].state()
    again = type(fitted[key]).from_state(json.loads(json.dumps(head)), tensors)
    X = table()[0]
    for first, second in zip(
        again.predict(X, return_std=True), fitted[key].predict(X, return_std=True), strict=True
    ):
        assert np.array_equal(first, second)
    theta = fitted[key].prior_.sample(2, generator()).detach()
    assert torch.equal(again.prior_.log_prob(theta), fitted[key].prior_.log_prob(theta))
    assert np.isfinite(clone(again).set_params(seed=1).fit(*table()).predict(X)).all()


def test_a_flow_prior_can_be_sampled_under():
    X, y = table()
    prior = {"family": "flow", **MATCHED}
    model = HMCSurrogate(
        hidden=(6,), prior=prior, noise_variance=0.05, warm_start_steps=100, burn_in=4, samples=4
    )
    assert model.fit(X, y).score(X, y) > 0.5
    assert isinstance(model.prior_, PlanarFlowLayerPrior)


def test_precisions_are_resampled_with_the_weights(fitted):
    state = fitted["sghmc", "hierarchical"].chains_.state
    assert state.auxiliary.shape == (1, 4) and bool((state.auxiliary > 0.0).all())
    assert torch.equal(state.position, state.inner.position)


def test_folds_of_a_table_go_together_under_a_prior():
    X, y = table()
    model = clone(SURROGATES["sghmc"]).set_params(prior=CHOICES["hierarchical"])
    predictive = model.fit_cross_validated(X, y, np.arange(40) % 2)
    error = float((predictive.mean[:, 0] - torch.from_numpy(y)).square().mean())
    assert error < 0.5 * y.var()


def test_a_time_limit_covers_the_match():
    X, y = table()
    prior = FunctionalPrior(steps=10**6)
    model = clone(SURROGATES["sghmc"]).set_params(prior=prior, steps=10**8, max_seconds=0.5)
    assert np.isfinite(model.fit(X, y).predict(X)).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prior": "flat"}, "functional-hierarchical"),
        ({"prior": {"family": "cauchy"}}, "family"),
        ({"prior": {"colour": 1}}, "colour"),
        ({"prior": fixed_gaussian(ScaledMLP((3, 12, 1)))}, "widths"),
        ({"prior": "fixed", "prior_variance": 1.0}, "either"),
    ],
)
def test_priors_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        clone(SURROGATES["sghmc"]).set_params(**wrong).fit(*table())


def test_names_of_priors_say_what_they_are():
    assert PRIORS == (
        "fixed", "fixed-hierarchical", "functional", "functional-hierarchical", "functional-flow",
    )  # fmt: skip
    x = torch.zeros(4, 1)
    assert isinstance(layer_prior("fixed", FlatMLP((1, 3, 1)), x, 0), GaussianLayerPrior)
