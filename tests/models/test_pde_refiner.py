from typing import ClassVar

import pytest
import torch
from torch import nn

from understudy.core.errors import UserError
from understudy.models.operators.dilated import DilatedResNet
from understudy.models.operators.one_step import OneStepModel
from understudy.models.operators.pde_refiner import NoiseSchedule, PDERefiner, full_precision
from understudy.models.operators.training import Training
from understudy.models.operators.unet import UNet

GEOMETRIC = NoiseSchedule.geometric(3, 4e-7)


# -- schedule --------------------------------------------------------------------------


def test_levels_of_the_paper():
    # 4e-7 ** (3/3, 2/3, 1/3, 0) and the products of one minus these, worked out by hand
    beta = torch.tensor([4e-7, 5.428835e-5, 7.368063e-3, 1.0], dtype=torch.float64)
    remaining = torch.tensor([0.9999996, 0.9999453, 0.9925777, 0.0], dtype=torch.float64)
    torch.testing.assert_close(GEOMETRIC.beta, beta, rtol=1e-6, atol=0)
    torch.testing.assert_close(GEOMETRIC.remaining, remaining, rtol=0, atol=5e-8)


def test_the_least_noise_is_a_variance_and_survives_single_precision():
    assert float(GEOMETRIC.noise.float()[0] ** 2) == pytest.approx(4e-7, rel=1e-6)


@pytest.mark.parametrize(
    "schedule", [GEOMETRIC, NoiseSchedule.linear(3, 4e-7), NoiseSchedule.cosine(4, 0.1)]
)
def test_noise_rises_until_nothing_is_left(schedule):
    assert bool((schedule.remaining.diff() < 0).all())
    assert float(schedule.remaining[-1]) == 0.0 and float(schedule.beta[-1]) == 1.0


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("schedule", [GEOMETRIC, NoiseSchedule.cosine(3, 0.1)])
def test_the_posterior_is_that_of_bayes(schedule, k):
    # prior y[k-1] | y0 times likelihood y[k] | y[k-1], both normal, by adding precisions
    y0, yk = 0.7, -0.2
    before, beta = float(schedule.remaining[k - 1]), float(schedule.beta[k])
    prior_mean, prior_precision = before**0.5 * y0, 1.0 / (1.0 - before)
    shrink = (1.0 - beta) ** 0.5
    precision = prior_precision + shrink**2 / beta
    mean = (prior_precision * prior_mean + shrink * yk / beta) / precision
    of_guess, of_noisy, sd = schedule.posterior(k)
    assert of_guess * y0 + of_noisy * yk == pytest.approx(mean, rel=1e-8)
    assert sd == pytest.approx(precision**-0.5, rel=1e-8)


# -- refinement --------------------------------------------------------------------------


class _Oracle(nn.Module):
    """Knows that y is normal with a mean and spread at every point, and gives the best v."""

    settings: ClassVar[dict] = {}

    def __init__(self, mean, spread, refiner_steps, schedule=GEOMETRIC):
        super().__init__()
        self.mean, self.variance, self.K, self.schedule = mean, spread**2, refiner_steps, schedule
        self.asked = []
        self.dummy = nn.Parameter(torch.zeros(1))

    def forward(self, x, p):
        self.asked.append(float(p[0, 0]))
        k = round(float(p[0, 0]) * self.K / 1000.0)
        a, b = float(self.schedule.signal[k]), float(self.schedule.noise[k])
        y = x[:, 1:].double()
        total = a * a * self.variance + b * b
        guess = self.mean + a * self.variance / total * (y - a * self.mean)
        noise = b / total * (y - a * self.mean)
        return (a * noise - b * guess).float()


def _with_oracle(mean, spread, **options):
    refiner = PDERefiner(_Oracle(mean, spread, 3), scale_fields=False, **options)
    still = torch.zeros(2, 3, 1, 8)
    still[:, 1] = 1.0  # so that increments have the spread 1
    refiner._describe(still, None, {"dt": 1.0})
    refiner._measure(still, None)
    return refiner


def test_a_step_calls_the_network_once_a_level_from_noise_to_none():
    refiner = _with_oracle(0.5, 0.1)
    refiner.step(torch.zeros(1, 1, 8))
    assert refiner.network.asked == pytest.approx([1000.0, 2000.0 / 3.0, 1000.0 / 3.0, 0.0])


def test_a_network_that_knows_the_answer_is_not_led_astray():
    refiner = _with_oracle(0.5, 0.0)
    u = torch.linspace(-1.0, 1.0, 8).reshape(1, 1, 8)
    torch.testing.assert_close(refiner.step(u), u + 0.5, rtol=0, atol=1e-6)


def test_samples_have_the_mean_and_the_spread_of_the_chain():
    # all is linear and normal: var(y[k-1]) = (A g + B)^2 var(y[k]) + sd^2 with g the best gain
    variance, truth = 1.0, 0.1**2
    for k in (3, 2, 1, 0):
        left = float(GEOMETRIC.remaining[k])
        gain = left**0.5 * truth / (left * truth + 1.0 - left)
        if k:
            of_guess, of_noisy, sd = GEOMETRIC.posterior(k)
            variance = (of_guess * gain + of_noisy) ** 2 * variance + sd**2
    refiner = _with_oracle(0.5, 0.1)
    ahead = refiner.rollout(torch.zeros(500, 1, 8), 1, samples=4)[:, :, 1]
    assert float(ahead.mean()) == pytest.approx(0.5, abs=3e-3)
    assert float(ahead.std()) == pytest.approx(gain * variance**0.5, rel=0.03)


def test_zeros_are_as_good_a_first_guess():
    refiner = _with_oracle(0.5, 0.0, first_guess="zeros")
    torch.testing.assert_close(refiner.step(torch.zeros(1, 1, 8)), torch.full((1, 1, 8), 0.5))


class _Spy(nn.Module):
    """Gives zeros and keeps what it was asked."""

    settings: ClassVar[dict] = {}

    def __init__(self):
        super().__init__()
        self.dummy = nn.Parameter(torch.zeros(1))

    def forward(self, x, p):
        self.x, self.p = x, p
        return 0.0 * self.dummy + torch.zeros_like(x[:, 1:])


@pytest.mark.parametrize("first_share", [None, 0.5])
def test_the_loss_is_the_size_of_v_at_levels_drawn_as_asked(first_share):
    torch.manual_seed(0)
    refiner = PDERefiner(_Spy(), scale_fields=False, first_share=first_share)
    clip = torch.stack((torch.zeros(4000, 1, 16), torch.randn(4000, 1, 16)), dim=1)
    refiner._describe(clip, None, {"dt": 1.0})
    refiner._measure(clip, None)
    loss = refiner._loss(clip, None, torch.Generator().manual_seed(1), 0.0)
    # y and the noise are independent with variance 1, so v has it too
    assert float(loss.detach()) == pytest.approx(1.0, abs=0.02)
    levels = (refiner.network.p[:, 0] * 3 / 1000).round().long()
    shares = levels.bincount(minlength=4) / 4000
    expected = [0.25] * 4 if first_share is None else [1 / 6] * 3 + [0.5]
    assert shares.tolist() == pytest.approx(expected, abs=0.03)
    first = refiner.network.x[levels == 3, 1:]
    y = clip[levels == 3, 1]
    assert abs(float((first * y).mean())) < 0.02  # nothing of y is left
    last = refiner.network.x[levels == 0, 1:]
    spread = float((last - clip[levels == 0, 1] / refiner._increment[:, 0]).std())
    assert spread == pytest.approx(4e-7**0.5, rel=0.05)


def test_a_network_learns_its_first_guess_from_zeros_where_it_will_get_them():
    refiner = PDERefiner(_Spy(), scale_fields=False, first_guess="zeros")
    clip = torch.stack((torch.zeros(400, 1, 16), torch.randn(400, 1, 16)), dim=1)
    refiner._describe(clip, None, {"dt": 1.0})
    refiner._measure(clip, None)
    refiner._loss(clip, None, torch.Generator().manual_seed(1), 0.0)
    first = refiner.network.p[:, 0] == 1000.0
    assert bool((refiner.network.x[first, 1:] == 0.0).all())
    assert bool((refiner.network.x[~first, 1:] != 0.0).all())


def test_antithetic_noise_comes_in_pairs_on_the_same_step_parameters_and_level():
    refiner = PDERefiner(_Spy(), scale_fields=False, antithetic=True, parameter_scaling="none")
    clip = torch.stack((torch.zeros(401, 1, 16), torch.randn(401, 1, 16)), dim=1)
    told = torch.rand(401, 2)
    refiner._describe(clip, told, {"dt": 1.0})
    refiner._measure(clip, told)
    refiner._loss(clip, told, torch.Generator().manual_seed(1), 0.0)
    (x, twin), (p, its) = (
        (seen[:200], seen[200:400]) for seen in (refiner.network.x[:, 1:], refiner.network.p)
    )
    torch.testing.assert_close(p[:, 0], its[:, 0])
    first = p[:, 0] == 1000.0
    torch.testing.assert_close(p[~first], its[~first])
    assert bool((p[first, 1:] != its[first, 1:]).all())  # steps of their own at level K
    k = (p[:, 0] * 3 / 1000).round().long()
    y = (clip[:200, 1] / refiner._increment[:, 0])[~first]
    signal = refiner._signal[k[~first]].reshape(-1, 1, 1)
    torch.testing.assert_close((x + twin)[~first] / 2, signal * y, rtol=0, atol=1e-6)
    assert bool(((x - twin)[~first] != 0.0).any(-1).all())
    shares = k.bincount(minlength=4) / 200
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.1)


# -- training on a wave --------------------------------------------------------------------------


def _waves(runs, times, seed=0):
    generator = torch.Generator().manual_seed(seed)
    phase = 6.2832 * torch.rand(runs, 1, 1, generator=generator)
    speed = 0.2 + 0.2 * torch.rand(runs, generator=generator)
    x = torch.arange(16) * (6.2832 / 16)
    t = torch.arange(times).reshape(1, -1, 1)
    u = torch.sin(x + phase + speed.reshape(-1, 1, 1) * t)
    return u.unsqueeze(2).float(), speed.unsqueeze(1)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    network = DilatedResNet(2, 1, num_params=2, channels=8, blocks=2)
    u, speed = _waves(32, 12)
    plan = Training(steps=150, batch_size=32, learning_rate=3e-3, validate_every=50)
    refiner = PDERefiner(network, num_refinement_steps=2, min_noise_variance=1e-3)
    return refiner.fit(
        u, speed, dt=0.5, parameters=["speed"], validation=_waves(8, 12, 1), training=plan
    )


def test_it_learns_to_step_and_is_told_the_speed(trained):
    u, speed = _waves(16, 2, seed=2)
    ahead = trained.step(u[:, 0], speed)
    still = (u[:, 0] - u[:, 1]).square().mean()
    assert float((ahead - u[:, 1]).square().mean()) < 0.2 * float(still)
    assert trained.outcome.score < 0.2


def test_samples_differ_and_each_is_the_same_whatever_their_number(trained):
    u, speed = _waves(3, 1, seed=3)
    few = trained.rollout(u[:, 0], 3, speed, samples=2, seed=5)
    many = trained.rollout(u[:, 0], 3, speed, samples=4, seed=5)
    torch.testing.assert_close(few, many[:, :2])
    assert (few[:, 0, -1] - few[:, 1, -1]).abs().max() > 1e-6
    assert torch.equal(few, trained.rollout(u[:, 0], 3, speed, samples=2, seed=5))


def test_disagreement_of_samples_says_for_how_long_to_believe(trained):
    u, speed = _waves(4, 1, seed=3)
    horizon = trained.reliable_horizon(u[:, 0], 6, speed, samples=4)
    assert horizon.shape == (4,) and bool((horizon <= 6 * 0.5).all())
    strict = trained.reliable_horizon(u[:, 0], 6, speed, samples=4, threshold=1.0 - 1e-7)
    assert bool((strict <= horizon).all()) and float(strict.mean()) < 3.0


def test_it_is_restored_from_a_file(trained, tmp_path):
    u, speed = _waves(2, 1, seed=3)
    twin = PDERefiner.load(trained.save(tmp_path / "refiner.us"))
    assert torch.equal(
        twin.rollout(u[:, 0], 2, speed, samples=2), trained.rollout(u[:, 0], 2, speed, samples=2)
    )
    with pytest.raises(UserError, match="holds a 'pde-refiner'"):
        OneStepModel.load(tmp_path / "refiner.us")


def test_several_fields_in_and_out_of_a_step():
    torch.manual_seed(0)
    network = DilatedResNet(4, 2, num_params=1, channels=4, blocks=1)
    refiner = PDERefiner(network, history=2, bundle=2, num_refinement_steps=1, difference=False)
    u, _ = _waves(4, 8)
    refiner.fit(u, dt=1.0, training=Training(steps=2, batch_size=4))
    assert refiner.rollout(u[:, :2], 3, samples=2).shape == (4, 2, 4, 1, 16)


def test_flows_in_two_dimensions_are_refined_too():
    torch.manual_seed(0)
    network = UNet(4, 2, dims=2, num_params=1, hidden=8, multipliers=(1, 2), blocks=1)
    flow = torch.randn(3, 4, 2, 8, 12)
    refiner = PDERefiner(network, num_refinement_steps=1)
    refiner.fit(flow, dt=1.0, channels=["vx", "vy"], training=Training(steps=2, batch_size=3))
    assert refiner.rollout(flow[:, 0], 2, samples=2).shape == (3, 2, 3, 2, 8, 12)


def test_devices_do_not_round_while_it_computes():
    before = torch.backends.cudnn.allow_tf32
    with full_precision():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


# -- bad input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_refinement_steps": 0}, "num_refinement_steps must be at least 1"),
        ({"min_noise_variance": 0.0}, "between 0 and 1"),
        ({"min_noise_variance": 1.0}, "between 0 and 1"),
        ({"first_share": 1.0}, "first_share must lie"),
        ({"first_guess": "mean"}, "first_guess must be"),
        ({"schedule": "quadratic"}, "schedule must be"),
    ],
)
def test_options_that_make_no_refiner_are_refused(options, says):
    with pytest.raises(UserError, match=says):
        PDERefiner(_Spy(), **options)


def test_fields_with_nan_are_refused(trained):
    u, speed = _waves(4, 6)
    u[1, 3] = torch.nan
    with pytest.raises(UserError, match="1 of 4 trajectories hold NaN"):
        PDERefiner(DilatedResNet(2, 1, num_params=1)).fit(u, dt=1.0)
    with pytest.raises(UserError, match="must be finite"):
        trained.step(u[:, 3], speed)


def test_a_network_without_room_for_the_noisy_increment_is_refused():
    u, _ = _waves(4, 6)
    with pytest.raises(UserError, match="in_channels=2, found 1"):
        PDERefiner(DilatedResNet(1, 1, num_params=1)).fit(u, dt=1.0)
    with pytest.raises(UserError, match="num_params=1, found 0"):
        PDERefiner(DilatedResNet(2, 1)).fit(u, dt=1.0)


def test_a_resolution_that_the_unet_cannot_halve_is_refused():
    u = torch.randn(4, 6, 1, 20)
    with pytest.raises(UserError, match="multiple of 8"):
        PDERefiner(UNet(2, 1, num_params=1, hidden=8)).fit(u, dt=1.0)
