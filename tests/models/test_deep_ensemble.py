"""The deep ensemble: weights of its halves, calibrated variances, functions, interruption."""

import numpy as np
import pytest
import torch

from understudy.models.tabular.deep_ensemble import (
    DeepEnsemble,
    Moments,
    scale_variances,
    weigh_kinds,
)
from understudy.nn.soap import SOAP


def table(n: int = 60, m: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.uniform(-2.0, 2.0, size=(n, 2))
    Y = np.column_stack([np.sin(2.0 * X[:, 0]), 50.0 + 10.0 * X[:, 1] ** 2])[:, :m]
    return X, Y


QUICK = {"members": 3, "width": 16, "max_steps": 80}


@pytest.fixture(scope="module")
def fitted() -> DeepEnsemble:
    return DeepEnsemble(**QUICK).fit(*table())


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- the halves -------------------------------------------------------------------------------


def test_weights_of_the_halves_are_the_best_on_a_fine_grid():
    Z = some(40, 3)
    means = Z + some(2, 40, 3, seed=1) * torch.tensor([0.3, 1.0, 5.0]).double()
    means[0, :, 2] = Z[:, 2]  # the first half is right about the last output
    found = weigh_kinds(means, Z)
    grid = torch.linspace(0.15, 0.85, 7001, dtype=torch.float64)
    for j in range(3):
        mixed = grid[:, None] * means[0, :, j] + (1.0 - grid[:, None]) * means[1, :, j]
        errors = (mixed - Z[:, j]).square().sum(1)
        assert float(found[0, j]) == pytest.approx(float(grid[errors.argmin()]), abs=1e-3)
    assert float(found[0, 2]) == pytest.approx(0.85)
    assert torch.allclose(found.sum(0), torch.ones(3).double())


def test_halves_that_agree_share_the_weight_within_its_limits():
    means = some(1, 10, 1).expand(2, 10, 1)
    weights = weigh_kinds(means, some(10, 1, seed=1))
    assert bool(((weights >= 0.15) & (weights <= 0.85)).all())


def test_moments_are_those_of_the_mixture():
    means, variances = some(2, 4, 9, 3), some(2, 4, 9, 3, seed=1).square()
    weights = torch.tensor([[0.2, 0.5, 0.7], [0.8, 0.5, 0.3]], dtype=torch.float64)
    moments = Moments.of(means, variances, weights)
    share = weights[:, None, None, :] / 4.0
    first = (share * means).sum((0, 1))
    second = (share * (variances + means.square())).sum((0, 1))
    assert torch.allclose(moments.mean, first)
    assert torch.allclose(moments.noise + moments.disagreement, second - first.square())


# -- the variances ----------------------------------------------------------------------------


def test_factors_of_the_variances_are_recovered():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(20_000, 1, generator=generator, dtype=torch.float64)
    spread = torch.rand(20_000, 1, generator=generator, dtype=torch.float64) ** 3
    variance = 0.5 * noise + 4.0 * spread + 0.2
    Z = variance.sqrt() * some(20_000, 1, seed=7)
    a, c, b = scale_variances(Moments(torch.zeros_like(Z), noise, spread), Z)[:, 0].tolist()
    assert (a, c, b) == (
        pytest.approx(0.5, rel=0.15),
        pytest.approx(4.0, rel=0.1),
        pytest.approx(0.2, rel=0.15),
    )


def test_no_other_factors_are_more_probable():
    noise, spread = some(30, 1).square(), some(30, 1, seed=1).square()
    Z = 2.0 * some(30, 1, seed=2)
    moments = Moments(torch.zeros_like(Z), noise, spread)
    found = scale_variances(moments, Z)[:, 0]
    start = torch.tensor([1.0, 1.0, 0.3 * float(Z.square().mean())]).double()

    def loss(factors: torch.Tensor) -> float:
        variance = (factors[0] * noise + factors[1] * spread + factors[2] + 1e-10)[:, 0]
        away = torch.tensor([1.0, 1.0, 0.1]).double() * (factors / start).log().square()
        likelihood = variance.log() + Z[:, 0].square() / variance
        return 0.5 * float(likelihood.sum() + away.sum())

    for k in range(3):
        for change in (0.97, 1.03):
            moved = found.clone()
            moved[k] *= change
            assert loss(found) < loss(moved)


def test_two_rows_leave_the_factors_near_one():
    moments = Moments(torch.zeros(2, 1).double(), torch.ones(2, 1).double(), torch.zeros(2, 1))
    a, c, _ = scale_variances(moments, torch.tensor([[1.0], [-1.0]]).double())[:, 0].tolist()
    assert a == pytest.approx(1.0, abs=0.4)
    assert c == pytest.approx(1.0)


# -- predictions ------------------------------------------------------------------------------


def test_its_variance_is_noise_and_disagreement_scaled(fitted):
    U = torch.rand(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means, variances = (values.double() for values in fitted._members_at(U))
    moments = Moments.of(means, variances, fitted._weights)
    a, c, b = fitted._factors
    predictive = fitted._predictive(U)
    assert torch.allclose(predictive.mean, moments.mean)
    wanted = a * moments.noise + c * moments.disagreement + b
    assert torch.allclose(predictive.sd.square(), wanted, rtol=1e-6)


def test_error_bars_grow_away_from_the_data(fitted):
    _, near = fitted.predict(table()[0], return_std=True)
    _, far = fitted.predict(np.array([[20.0, 20.0], [-20.0, 20.0]]), return_std=True)
    assert (far.min(0) > 3.0 * near.mean(0)).all()


def test_functions_differ_on_average_as_much_as_the_calibrated_networks(fitted):
    U = torch.quasirandom.SobolEngine(2, scramble=True, seed=0).draw(256).double()
    means, variances = (values.double() for values in fitted._members_at(U))
    moments = Moments.of(means, variances, fitted._weights)
    drawn = fitted._posterior(U, observation_noise=False).variance
    among = drawn * 2.0 / 3.0  # divided by one function less than there are
    wanted = (fitted._factors[1] * moments.disagreement).mean(0)
    inside = (fitted._stretch > 0.1) & (fitted._stretch < 10.0)
    assert bool(inside.all())
    ratio = among.mean(0) / wanted
    assert bool(((ratio / ratio.mean()) - 1.0).abs().max() < 1e-3)


def test_draws_are_whole_functions(fitted):
    U = torch.rand(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    draws = fitted._posterior(U, observation_noise=False).rsample(torch.Size([40]))
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 3


def test_the_posterior_differentiates_in_its_inputs(fitted):
    at, step = torch.from_numpy(table()[0][:1]).requires_grad_(), 1e-5
    (slope,) = torch.autograd.grad(fitted.posterior(at).mean[0, 1], at)
    for k, direction in enumerate(torch.eye(2).double()):
        ends = [fitted.posterior(at + sign * step * direction).mean[0, 1] for sign in (1, -1)]
        assert slope[0, k].item() == pytest.approx(
            (ends[0] - ends[1]).item() / (2 * step), rel=1e-4
        )


# -- interruption -----------------------------------------------------------------------------


@pytest.mark.parametrize("at", [60, 130], ids=["first half", "second half"])
def test_an_interrupt_keeps_what_was_learnt(monkeypatch, at):
    taken, step = [], SOAP.step

    def interrupted(self):
        taken.append(None)
        if len(taken) == at:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(SOAP, "step", interrupted)
    surrogate = DeepEnsemble(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        surrogate.fit(*table())
    assert len(taken) <= at + 1  # the half that had not begun is not trained any more
    assert surrogate.score(*table()) > 0.7
