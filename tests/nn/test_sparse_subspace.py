"""Removal criteria against numerical integration, and how the support moves."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import nn

from understudy.core.errors import UserError
from understudy.core.loop import Settings, Trainer
from understudy.nn.sparse_bayesian import MeanField, bayesianize, sparse_layers
from understudy.nn.sparse_subspace import REMOVAL, SubspaceScheduler, removal_scores


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )


def scheduler(model: nn.Module, kind=torch.optim.SGD, **settings) -> SubspaceScheduler:
    options = {"momentum": 0.9, "weight_decay": 1e-3} if kind is torch.optim.SGD else {}
    made = kind(model.parameters(), lr=0.01, **options)
    return SubspaceScheduler(model, made, **{"t_end": 1000, "delta": 5, **settings})


def steps(model: nn.Module, optimizer: SubspaceScheduler, count: int, seed: int = 0) -> None:
    torch.manual_seed(seed)
    model.train()
    for _ in range(count):
        model.zero_grad()
        (model(torch.randn(32, 6)) - 1.0).square().mean().backward()
        optimizer.step()


# -- criteria -------------------------------------------------------------------------------


def moments(m: float, v: float, function) -> tuple[float, float]:
    """Mean and deviation of a function of |theta|, theta ~ N(m, v^2), by quadrature."""

    def expect(g) -> float:
        parts = sorted({m - 12 * v, m - 3 * v, 0.0, m, m + 3 * v, m + 12 * v})
        pairs = [(a, b) for a, b in pairwise(parts) if a >= m - 12 * v]
        pairs = [(a, b) for a, b in pairs if b <= m + 12 * v]
        return sum(
            integrate.quad(
                lambda t: g(abs(t)) * stats.norm.pdf((t - m) / v) / v, a, b, epsabs=0, epsrel=1e-11
            )[0]
            for a, b in pairs
        )

    mean = expect(function)
    return mean, math.sqrt(expect(lambda t: (function(t) - mean) ** 2))


@pytest.mark.parametrize("m", [0.0, 1e-3, -0.02, 0.5, 2.0])
@pytest.mark.parametrize("v", [1e-3, 0.02, 0.7, 1.5])
def test_criteria_are_the_moments_of_the_folded_normal(m, v):
    at = torch.tensor([m]), torch.tensor([v])
    mean, sd = moments(m, v, lambda t: t)
    mean_exp, sd_exp = moments(m, v, math.exp)
    expected = {
        "magnitude": abs(m),
        "mean_abs": mean,
        "snr": abs(m) / v,
        "snr_abs": mean / sd,
        "mean_exp": mean_exp,
        "snr_exp": mean_exp / sd_exp,
    }
    assert set(expected) == set(REMOVAL)
    for name, value in expected.items():
        assert float(removal_scores(name, *at)) == pytest.approx(value, rel=2e-6), name


@pytest.mark.parametrize("ratio", [0.0, 1.0, 5.9, 6.1, 30.0, 1e6])
@pytest.mark.parametrize("v", [1e-6, 9e-5, 1.1e-4])
def test_scores_of_tiny_deviations_do_not_cancel(ratio, v):
    """Var|theta| / v^2 in 40 digits, and the exponential criterion where it is nearly linear."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        r, s = mpmath.mpf(ratio), mpmath.mpf(float(torch.tensor(v)))
        mean = r * mpmath.erf(r / mpmath.sqrt(2)) + mpmath.sqrt(2 / mpmath.pi) * mpmath.exp(
            -r * r / 2
        )
        expected = mean / mpmath.sqrt(r * r + 1 - mean * mean)
        e1, e2 = (
            mpmath.exp((k * s) ** 2 / 2)
            * (
                mpmath.exp(k * s * r) * mpmath.ncdf(r + k * s)
                + mpmath.exp(-k * s * r) * mpmath.ncdf(k * s - r)
            )
            for k in (1, 2)
        )
        expected_exp = e1 / mpmath.sqrt(e2 - e1 * e1)
    deviation = torch.tensor([v]).double()
    m = ratio * deviation
    assert float(removal_scores("snr_abs", m, deviation)) == pytest.approx(
        float(expected), rel=1e-9
    )
    found = float(removal_scores("snr_exp", m, deviation))
    assert found == pytest.approx(float(expected_exp), rel=1e-5)


@pytest.mark.parametrize("name", list(REMOVAL))
@given(m=st.floats(-1e4, 1e4), v=st.floats(1e-12, 1e4))
def test_scores_are_finite_non_negative_and_even(name, m, v):
    m, v = torch.tensor([m], dtype=torch.float64), torch.tensor([v], dtype=torch.float64)
    score = removal_scores(name, m, v)
    assert bool(torch.isfinite(score).all()) and float(score) >= 0.0
    assert torch.equal(score, removal_scores(name, -m, v))


@pytest.mark.parametrize("name", list(REMOVAL))
def test_a_weight_without_mean_or_deviation_scores_lowest_or_is_finite(name):
    zero = torch.zeros(1)
    assert math.isfinite(float(removal_scores(name, zero, zero)))


def test_far_from_zero_the_signal_to_noise_of_the_modulus_is_that_of_the_weight():
    r = torch.tensor([6.5, 40.0, 1e8])
    assert torch.allclose(removal_scores("snr_abs", r, torch.ones(3)), r.double(), rtol=1e-7)


# -- support --------------------------------------------------------------------------------


@pytest.mark.parametrize("removal", [*REMOVAL, "random"])
@pytest.mark.parametrize("networks", [None, 3])
def test_the_size_of_every_support_stays_and_the_support_moves(removal, networks):
    model = bayesianize(mlp(), 0.25, networks=networks)
    layers = sparse_layers(model)
    before = {name: layer.mask.clone() for name, layer in layers.items()}
    optimizer = scheduler(model, removal=removal)
    steps(model, optimizer, 26)
    for name, layer in layers.items():
        assert torch.equal(layer.flat(layer.mask).sum(1), layer.flat(before[name]).sum(1))
        assert torch.equal(layer.mask, before[name]) == (layer.density == 1.0)
    assert optimizer.exchanged > 0


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_nothing_outside_the_support_is_ever_remembered(kind):
    model = bayesianize(mlp(), 0.25)
    optimizer = scheduler(model, kind)
    for _ in range(13):
        steps(model, optimizer, 1)
        for layer in sparse_layers(model).values():
            for parameter in (layer.mu, layer.rho):
                held = optimizer.optimizer.state.get(parameter, {}).values()
                moments_ = [t for t in held if t.shape == parameter.shape]
                for tensor in (parameter, *moments_):
                    assert not bool(tensor[~layer.mask].any())


def test_an_update_drops_the_lowest_scores_and_adds_the_largest_gradients():
    model = bayesianize(nn.Linear(10, 4), 0.5, init=MeanField(mean_sd=1.0, sd=0.1, sd_spread=0.0))
    optimizer = scheduler(model, removal="magnitude", alpha=1.0, t_end=2000)
    optimizer.steps = 5
    mask, mu, rho = model.mask.clone(), model.mu.detach().clone(), model.rho.detach().clone()
    model.mu.grad = torch.arange(40.0).reshape(4, 10)
    count = int(0.5 * (1.0 + math.cos(math.pi * 5 / 2000)) * 20)
    assert optimizer.update_is_due
    optimizer.step()
    order = mu.abs().masked_fill(~mask, math.inf).flatten().argsort()
    kept = mask.flatten().clone()
    kept[order[:count]] = False
    candidates = torch.where(kept, -1.0, torch.arange(40.0))
    expected = kept.clone()
    expected[candidates.argsort(descending=True)[:count]] = True
    assert torch.equal(model.mask.flatten(), expected)
    new = expected & ~kept
    assert not bool(model.mu.flatten()[new].any())
    assert torch.allclose(model.rho.flatten()[new], rho[mask].mean())
    assert torch.equal(model.mu.flatten()[kept], mu.flatten()[kept])


def test_the_weights_do_not_step_when_the_support_moves():
    model = bayesianize(mlp(), 0.25)
    optimizer = scheduler(model)
    steps(model, optimizer, 5)
    bias, layer = model[0].bias.detach().clone(), model[2]
    mask, mu = layer.mask.clone(), layer.mu.detach().clone()
    assert optimizer.update_is_due
    steps(model, optimizer, 1)
    stayed = mask & layer.mask & (layer.mu != 0)
    assert torch.equal(model[0].bias, bias)
    assert torch.equal(layer.mu[stayed], mu[stayed])


def test_the_exchange_falls_along_a_cosine_and_ends():
    model = bayesianize(mlp(), 0.25)
    optimizer = scheduler(model, t_end=20, alpha=0.3)
    shares = [optimizer.exchange_fraction(t) for t in (0, 10, 20)]
    np.testing.assert_allclose(shares, [0.3, 0.15, 0.0], atol=1e-12)
    steps(model, optimizer, 20)
    mask = model[2].mask.clone()
    steps(model, optimizer, 20)
    assert torch.equal(model[2].mask, mask)


def test_a_static_support_stays():
    model = bayesianize(mlp(), 0.25)
    mask = model[2].mask.clone()
    steps(model, scheduler(model, alpha=0.0), 30)
    assert torch.equal(model[2].mask, mask)


def test_gradients_are_averaged_over_the_accumulated_steps():
    model = bayesianize(nn.Linear(10, 4), 0.5)
    optimizer = scheduler(model, accumulation=3, delta=6)
    for step in range(6):
        model.zero_grad()
        model(torch.ones(2, 10)).sum().backward()
        model.mu.grad.fill_(1.0)
        optimizer.step()
        held = optimizer._gradients.get("")
        outside = None if held is None else float(held[~model.mask].mean())
        assert outside == {4: 1.0, 5: 2.0}.get(step)
    model.mu.grad = torch.full((4, 10), 1.0)
    optimizer.step()
    assert optimizer.exchanged > 0 and not optimizer._gradients


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    def trainer(removal="random"):
        model = bayesianize(mlp(), 0.25, init=MeanField(mean_sd=None))
        model.train()
        optimizer = scheduler(model, delta=3, removal=removal, accumulation=2)
        return model, optimizer

    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))

    def loss(model):
        def at(step):
            torch.manual_seed(step)
            return (model(x) - 1.0).square().mean()

        return at

    whole, optimizer = trainer()
    Trainer(whole, optimizer, Settings(max_steps=22)).run(loss(whole))
    first, optimizer = trainer()
    part = Trainer(first, optimizer, Settings(max_steps=11))
    part.run(loss(first))
    part.save(tmp_path / "state")
    second, optimizer = trainer()
    rest = Trainer(second, optimizer, Settings(max_steps=22))
    rest.resume(tmp_path / "state")
    rest.run(loss(second))
    for a, b in zip(whole.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"removal": "largest"}, "removal must be one of magnitude"),
        ({"addition": "largest"}, "addition must be 'grad' or 'random'"),
        ({"alpha": 1.5}, "alpha must be between 0 and 1"),
        ({"delta": 2, "accumulation": 2}, "delta must be above accumulation"),
        ({"t_end": -1}, "t_end must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        scheduler(bayesianize(mlp(), 0.25), **settings)


def test_an_optimiser_without_the_layers_is_refused():
    model = bayesianize(mlp(), 0.25)
    with pytest.raises(UserError, match="does not hold the parameters of layer '0'"):
        SubspaceScheduler(model, torch.optim.SGD([model[0].bias], lr=0.1), t_end=10)
