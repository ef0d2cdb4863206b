import math

import pytest
import torch

from understudy.models.inverse.imaging_operators import MatrixOperator
from understudy.reproduce import Scale
from understudy.reproduce import learned_proximal_networks as reproduction
from understudy.reproduce.proximal import denoisers, digit_priors, numbers, restoration


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale():
    claims = reproduction.run(Scale.SMOKE, seed=3)
    assert {claim.seeds for claim in claims} == {(3,)}
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({(claim.statement, claim.metric) for claim in claims}) == len(claims) == 16


def test_a_lattice_has_the_moments_of_its_distributions():
    laplace = numbers.Lattice(numbers.laplace_quantile, 1597, 987)
    generator = torch.Generator().manual_seed(0)
    x = laplace.clean(1597, generator)
    noise = laplace.noise(x, generator)
    assert float(x.square().mean()) == pytest.approx(2.0, abs=0.05)
    assert float(x.abs().mean()) == pytest.approx(1.0, abs=0.01)
    assert float(noise.square().mean()) == pytest.approx(1.0, abs=0.02)
    assert abs(float((x * noise).mean())) < 0.02


def test_lattices_of_two_steps_differ():
    lattice = numbers.Lattice(numbers.laplace_quantile, 21, 13)
    first, second = (lattice.clean(21, torch.Generator().manual_seed(k)) for k in (0, 1))
    assert not torch.equal(first, second)


def test_the_mixture_has_two_modes_and_an_operator_that_jumps():
    u = torch.arange(1, 4000, dtype=torch.float64) / 4000
    x = numbers.mixture_quantile(u)
    assert float(x.abs().mean()) == pytest.approx(2.0, abs=0.01)
    assert float(x[x > 0].std()) == pytest.approx(0.5, abs=0.01)
    # of one mode at 2 of deviation s the operator is (y s^2 + 2) / (s^2 + 1)
    y = torch.tensor([[-2.0], [-0.01], [0.01], [3.0]])
    exact = numbers.exact_mixture(y).flatten()
    expected = (y.flatten() * 0.25 + 2.0 * y.flatten().sign()) / 1.25
    torch.testing.assert_close(exact, expected, atol=2e-2, rtol=0.0)


def test_errors_after_an_affine_function_forget_scale_and_constant():
    x = torch.linspace(-3, 3, 31)
    assert numbers.after_affine(5.0 + 0.3 * x.abs(), x.abs()) < 1e-6
    assert numbers.after_affine(x.square(), x.abs()) > 0.1


def test_shares_of_rising_columns_count_whole_columns():
    values = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, -1.0], [2.0, 0.5, 3.0]])
    assert digit_priors.rising(values) == pytest.approx(1 / 3)


def test_a_blur_keeps_the_sum_of_what_is_far_from_the_sides():
    x = torch.zeros(1, 1, 28, 28)
    x[..., 14, 14] = 1.0
    assert float(digit_priors.blurred(x, 2.0).sum()) == pytest.approx(1.0, abs=1e-5)
    assert digit_priors.blurred(x, 4.0).shape == x.shape


def test_measurements_are_those_of_the_claims():
    blur, sensing = restoration.tasks()
    assert blur.operator.measurement_shape == (1, 24, 24)
    assert sensing.operator.measurement_shape == (1, 196)


def test_classical_ways_are_exact_where_nothing_is_lost():
    x = torch.rand(2, 1, 4, 4)
    matrix = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    operator = MatrixOperator(matrix, (1, 4, 4))
    restored = restoration.classical(operator, operator.apply(x))
    assert min(float((image - x).abs().max()) for image in restored) < 1e-2


@pytest.mark.slow
def test_bm3d_denoises_each_image_by_itself():
    pytest.importorskip("bm3d")
    clean = torch.zeros(2, 1, 24, 24)
    clean[:, :, 8:16] = 1.0
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    found = denoisers.BM3D(0.1)(noisy)
    assert found.shape == clean.shape
    assert float((found - clean).square().mean()) < 0.5 * float((noisy - clean).square().mean())


def test_the_plain_denoiser_keeps_the_shape():
    network = denoisers.PlainDenoiser(4)
    assert network(torch.rand(2, 1, 9, 9)).shape == (2, 1, 9, 9)
