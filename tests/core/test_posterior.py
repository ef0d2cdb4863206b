"""Joint posteriors: draws are whole functions and acquisition functions accept them."""

import pytest
import torch
from botorch.acquisition import qExpectedImprovement, qLogExpectedImprovement
from botorch.models import SingleTaskGP
from botorch.sampling.get_sampler import get_sampler

from understudy.core.posterior import (
    FunctionSamplePosterior,
    MixturePosterior,
    independent_gaussian,
    rescale,
)


def functions(count: int = 6, q: int = 4, m: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, q, m, generator=generator, dtype=torch.float64)


def gaussian(mean: float, q: int = 4, m: int = 2):
    ones = torch.ones(q, m, dtype=torch.float64)
    return independent_gaussian(mean * ones, 0.25 * ones)


def test_every_draw_of_a_function_posterior_is_one_of_its_functions():
    samples = functions()
    draws = FunctionSamplePosterior(samples).rsample(torch.Size([50]))
    matches = (draws.unsqueeze(1) == samples).all(-1).all(-1).sum(1)
    assert bool((matches == 1).all())


def test_observation_noise_adds_to_the_variance():
    noise = torch.tensor([0.5, 2.0], dtype=torch.float64)
    plain, noisy = FunctionSamplePosterior(functions()), FunctionSamplePosterior(functions(), noise)
    assert torch.allclose(noisy.variance - plain.variance, noise.expand(4, 2))


def test_rescaling_a_posterior_moves_mean_and_variance():
    shift, scale = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 0.5]).double()
    weights = torch.tensor([[0.3, 0.3], [0.7, 0.7]]).double()
    mixed = MixturePosterior([gaussian(0.0), FunctionSamplePosterior(functions())], weights)
    for posterior in (gaussian(1.0), FunctionSamplePosterior(functions()), mixed):
        moved = rescale(posterior, shift, scale)
        assert torch.allclose(moved.mean, shift + scale * posterior.mean)
        assert torch.allclose(moved.variance, scale.square() * posterior.variance)


def test_mixture_draws_have_its_mean_and_variance():
    weights = torch.tensor([[0.25, 0.5], [0.75, 0.5]]).double()
    mixed = MixturePosterior([gaussian(-2.0), gaussian(1.0)], weights)
    draws = get_sampler(mixed, torch.Size([8192]), seed=0)(mixed)
    assert draws.shape == (8192, 4, 2)
    assert torch.allclose(draws.mean(0), mixed.mean, atol=0.02)
    assert torch.allclose(draws.var(0), mixed.variance, rtol=0.03)


def test_mixture_draws_take_all_points_from_the_same_component():
    weights = torch.full((2, 2), 0.5).double()
    mixed = MixturePosterior([gaussian(-50.0), gaussian(50.0)], weights)
    signs = mixed.rsample(torch.Size([64])).sign()
    assert bool((signs == signs[:, :1]).all())


def test_mixture_of_a_process_and_functions_serves_an_acquisition_function_with_gradients():
    torch.manual_seed(0)
    X = torch.rand(8, 2, dtype=torch.float64)
    gp = SingleTaskGP(X, X.sum(1, keepdim=True).sin())
    slopes = torch.randn(16, 2, 1, dtype=torch.float64)

    class Mixed(SingleTaskGP):
        def posterior(self, X, **kwargs):  # type: ignore[no-untyped-def]
            line = FunctionSamplePosterior(torch.stack([X @ slope for slope in slopes]))
            both = [super().posterior(X), line]
            return MixturePosterior(both, torch.tensor([[0.6], [0.4]]).double())

    model = Mixed(X, X.sum(1, keepdim=True).sin())
    model.load_state_dict(gp.state_dict())
    model.eval()
    for acquisition in (qExpectedImprovement, qLogExpectedImprovement):
        candidates = torch.rand(3, 2, 2, dtype=torch.float64, requires_grad=True)
        value = acquisition(model, best_f=-1.0)(candidates)
        value.sum().backward()
        assert value.shape == (3,)
        assert bool((candidates.grad.abs().sum((1, 2)) > 0).all())


@pytest.mark.parametrize("m", [1, 3])
def test_independent_gaussian_keeps_shapes_and_moments(m: int):
    mean = torch.arange(5.0 * m).reshape(5, m).double()
    posterior = independent_gaussian(mean, torch.ones(5, m).double())
    assert posterior.mean.shape == (5, m)
    assert torch.allclose(posterior.mean, mean)
    assert torch.allclose(posterior.variance, torch.ones(5, m).double())
