import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, Uniform

from understudy.core.errors import UserError
from understudy.models.incontext.curve_prior import (
    EPOCHS,
    GROWTH_CURVES,
    CurvePrior,
    Law,
    acceptable,
)

T = torch.arange(1, EPOCHS + 1, dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def curves():
    return CurvePrior().curves(20_000, EPOCHS, generator())


def test_a_fifth_of_the_draws_is_accepted():
    """20.5 %, which is what the laws of the official code give."""
    prior = CurvePrior()
    z = prior.draw(100_000, generator())
    share = acceptable(prior.curve(z, T.float())).float().mean()
    assert float(share) == pytest.approx(0.205, abs=0.006)


def test_single_and_double_precision_accept_the_same_draws():
    prior = CurvePrior()
    z = prior.draw(20_000, generator(1))
    single = acceptable(prior.curve(z, T.float()))
    double = acceptable(prior.curve(z.double(), T))
    assert (single != double).sum() <= 5


def test_accepted_curves_end_above_their_start_within_the_unit_interval(curves):
    clean, _ = curves
    assert clean.shape == (20_000, EPOCHS) and clean.dtype == torch.float32
    assert (clean[:, -1] > clean[:, 0]).all()
    assert clean.min() >= 0.0 and clean.max() <= 1.0


def test_some_accepted_curves_dip(curves):
    clean, _ = curves
    monotone = (clean.diff(dim=1) >= -1e-6).all(1).float().mean()
    assert 0.4 < float(monotone) < 0.7


def test_noise_has_one_log_normal_deviation_a_curve(curves):
    clean, noisy = curves
    log_sd = (noisy - clean).std(1).log()
    assert float(log_sd.mean()) == pytest.approx(-4.0, abs=0.03)
    assert float(log_sd.std()) == pytest.approx(math.hypot(1.0, math.sqrt(0.5 / 99)), abs=0.02)
    first, second = (noisy - clean)[:, :50].std(1).log(), (noisy - clean)[:, 50:].std(1).log()
    assert float(torch.corrcoef(torch.stack([first, second]))[0, 1]) > 0.98


def test_noise_may_leave_the_unit_interval(curves):
    _, noisy = curves
    assert noisy.min() < 0.0 and noisy.max() > 1.0


def test_tasks_are_epochs_in_order_with_noisy_targets():
    task = CurvePrior().sample(5, 40, generator())
    assert task.x.shape == (5, 40, 1) and task.y.shape == task.target.shape == (5, 40)
    torch.testing.assert_close(task.x[3, :, 0], torch.arange(1.0, 41.0) / 101.0)
    assert torch.equal(task.y, task.target)


def test_the_same_seed_draws_the_same_curves():
    first, again, other = (CurvePrior().curves(50, 30, generator(s))[1] for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_growth_curves_take_their_published_values():
    """Domhan et al., table 1, at t = 3 with parameters put in by hand."""
    three = torch.tensor([3.0], dtype=torch.float64)
    e, log = math.exp, math.log
    expected = {
        "pow3": ((0.9, 0.5, 1.5), 0.9 - 0.5 * 3**-1.5),
        "ilog2": ((0.9, 0.5), 0.9 - 0.5 / log(4)),
        "janoschek": ((0.9, 0.2, 0.3, 0.7), 0.9 - 0.7 * e(-0.3 * 3**0.7)),
        "log_power": ((0.9, 1.2, -0.8), 0.9 / (1 + (3 / e(1.2)) ** -0.8)),
        "weibull": ((0.9, 0.2, 0.3, 0.7), 0.9 - 0.7 * e(-((0.3 * 3) ** 0.7))),
        "mmf": ((0.9, 0.2, 0.3, 0.7), 0.9 - 0.7 / (1 + (0.3 * 3) ** 0.7)),
        "vapour_pressure": ((-1.0, -2.0, 0.3), e(-1.0 - 2.0 / 3 + 0.3 * log(3))),
        "log_log_linear": ((0.4, 1.5), log(0.4 * log(3) + 1.5)),
        "exp4": ((0.9, 0.3, 0.2, 0.7), 0.9 - e(-0.3 * 3**0.7 + 0.2)),
        "pow4": ((0.9, 0.3, 1.5, 0.7), 0.9 - (0.3 * 3 + 1.5) ** -0.7),
        "hill3": ((0.9, 1.4, 2.5), 0.9 * 3**1.4 / (2.5**1.4 + 3**1.4)),
    }
    assert set(expected) == set(GROWTH_CURVES)
    for name, (parameters, value) in expected.items():
        tensors = [torch.tensor([p], dtype=torch.float64) for p in parameters]
        assert len(tensors) == len(GROWTH_CURVES[name].laws)
        found = GROWTH_CURVES[name].value(three, *tensors)
        assert float(found) == pytest.approx(value, rel=1e-12), name


def test_a_curve_is_the_weighted_sum_of_its_components():
    z = torch.tensor(
        [0.5, 0.3, 0.2, 0.9, 0.4, 0.1, 0.8, 0.3, 0.7, 0.2, -1.0, 0.2, -3.0], dtype=torch.float64
    )
    pow3 = 0.9 - 0.4 * T ** -math.exp(0.1)
    ilog2 = 0.8 - 0.3 / torch.log(T + 1)
    janoschek = 0.7 - 0.5 * torch.exp(-math.exp(-1.0) * T ** math.exp(0.2))
    expected = 0.5 * pow3 + 0.3 * ilog2 + 0.2 * janoschek
    torch.testing.assert_close(CurvePrior().curve(z, T), expected)


def test_the_density_is_the_product_of_the_laws():
    prior = CurvePrior()
    z = prior.draw(200, generator(2), torch.float64)
    expected = torch.zeros(200, dtype=torch.float64)
    for law, variable in zip(prior.laws, z.T, strict=True):
        peer = Uniform if law.kind == "uniform" else Normal
        expected += peer(law.first, law.second, validate_args=False).log_prob(variable)
    torch.testing.assert_close(prior.log_density(z), expected)
    z[:, 0] = 1.5
    assert (prior.log_density(z) == -math.inf).all()


@given(st.sets(st.sampled_from(sorted(GROWTH_CURVES)), min_size=1, max_size=2))
@settings(max_examples=25, deadline=None)
def test_other_components_give_acceptable_curves(components):
    clean, noisy = CurvePrior(tuple(components)).curves(20, 30, generator())
    assert acceptable(clean).all() and noisy.isfinite().all()


@pytest.mark.parametrize(
    ("components", "found"), [((), "none"), (("pow3", "pow3"), "pow3, pow3"), (("pow5",), "pow5")]
)
def test_components_must_be_known_and_different(components, found):
    with pytest.raises(UserError, match=f"got {found}"):
        CurvePrior(components)


def test_noise_must_be_positive():
    with pytest.raises(UserError, match="link 'exp'"):
        CurvePrior(noise=Law("normal", 0.0, 1.0))


@pytest.mark.parametrize(("batch", "rows"), [(0, 10), (5, 1)])
def test_a_curve_has_at_least_two_epochs(batch, rows):
    with pytest.raises(UserError, match="at least 1, of 2 epochs"):
        CurvePrior().curves(batch, rows, generator())
