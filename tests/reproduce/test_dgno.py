import math
from dataclasses import replace

import pytest
import torch

from understudy.core.systems import find
from understudy.models.operators.deeponet import DeepONet
from understudy.models.operators.residual_operator import DifferenceDeepONet, PIDeepONet
from understudy.reproduce import Scale
from understudy.reproduce import dgno as reproduction
from understudy.reproduce.generative.inversion import Recovered, by_total_variation, read
from understudy.reproduce.generative.label_free import ResidualPlan
from understudy.reproduce.generative.pairs import KINDS, BurgersPairs, burgers_fields
from understudy.reproduce.generative.setting import TEST_SEED, darcy_fields, media
from understudy.simulate.pde.darcy import darcy_solution

SMOKE = reproduction._SIZES[Scale.SMOKE]
CPU = reproduction._SIZES[Scale.CPU]


def test_the_system_is_implemented():
    assert find("dgno").implemented


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale():
    claims = reproduction.run(Scale.SMOKE, seed=3)
    assert {claim.seeds for claim in claims} == {(3,)}
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims) == 17


def test_test_fields_are_never_trained_on():
    trained = media(SMOKE, 0, 8).flatten(1)
    pairs = darcy_fields(SMOKE, 100_000, 8).a.flatten(1)
    tests = darcy_fields(SMOKE, TEST_SEED, 8).a.flatten(1)
    torch.testing.assert_close(trained, pairs)
    assert len(torch.cat([trained, tests]).unique(dim=0)) == 16


def test_twice_as_many_fields_begin_with_as_many():
    few, many = (media(SMOKE, 0, count) for count in (4, 8))
    torch.testing.assert_close(few, many[:4])


def test_a_rival_has_the_same_residuals_and_decoders():
    test = darcy_fields(SMOKE, 5, 2)
    own = ResidualPlan(SMOKE, 0, test).operator()
    rival = ResidualPlan(SMOKE, 0, test, "weak").operator()
    assert isinstance(rival, PIDeepONet) and rival.residual == own.residual
    layers = [[layer.weight.shape for layer in op.network.u.x_net] for op in (own, rival)]
    assert layers[0] == layers[1]


def test_the_rival_of_the_paper_has_no_flux_and_about_the_weights():
    test = darcy_fields(SMOKE, 5, 2)
    sizes = []
    for kind in ("own", "differences"):
        network = ResidualPlan(CPU, 0, test, kind).operator().network
        sizes.append(sum(p.numel() for p in network.parameters()))
    assert isinstance(ResidualPlan(CPU, 0, test, "differences").operator(), DifferenceDeepONet)
    assert 0.8 < sizes[1] / sizes[0] < 1.2


def test_networks_for_burgers_are_of_one_size_that_of_the_paper():
    none = burgers_fields(0, 1)
    made = [BurgersPairs(CPU, 0, kind, none, none).network() for kind in KINDS]
    sizes = [sum(p.numel() for p in network.parameters()) for network in made]
    # 1 * 128 + 128, four layers of branch and three of trunk of 128 * 128 + 128, and constants
    assert isinstance(made[1], DeepONet) and sizes[1] == 115_841
    assert all(abs(size - 115_841) <= 4 for size in sizes)


def test_burgers_pairs_of_training_and_test_differ():
    train, test = burgers_fields(100_000, 2), burgers_fields(TEST_SEED, 2)
    assert train.a.shape == train.u.shape == (2, 1, 128)
    assert not torch.equal(train.a, test.a)


def test_the_noise_of_readings_is_what_the_ratio_says():
    fields = darcy_fields(SMOKE, 0, 200)
    readings = read(SMOKE, fields, 100, 20.0, seed=1)
    truth = fields.u.flatten(1)[:, readings.cells].double()
    errors = readings.y - truth
    ratio = errors.square().mean() / truth.square().mean()
    assert float(10 * torch.log10(ratio)) == pytest.approx(-20.0, abs=0.3)


def test_a_field_of_one_phase_where_there_are_two_is_half_right():
    true = torch.full((1, 2, 2), 5.0)
    true[0, 0] = 10.0
    found = Recovered.of(torch.full((1, 2, 2), 5.0), true)
    assert found.right == 0.5
    assert found.error == pytest.approx(math.sqrt(50 / 250))


def test_gradients_of_darcy_solutions_are_those_of_differences():
    torch.manual_seed(0)
    a = (1 + torch.rand(2, 5, 5, dtype=torch.float64)).requires_grad_()
    f = torch.rand(2, 5, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: darcy_solution(a, f), (a,), atol=1e-6)


@pytest.mark.slow
def test_pixels_with_total_variation_find_a_field_from_many_exact_readings():
    size = replace(CPU, points=15)
    fields = darcy_fields(size, 7, 2)
    readings = read(size, fields, 200, 50.0, seed=1)
    found = Recovered.of(by_total_variation(size, readings, 0.3), fields.a[:, 0])
    assert found.right > 0.85


def test_the_same_seed_trains_the_same():
    test = darcy_fields(SMOKE, 5, 2)
    first, second = (ResidualPlan(SMOKE, 1, test).result().error for _ in range(2))
    assert first == second
