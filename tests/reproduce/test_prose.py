import math
from dataclasses import replace

import pytest
import torch

from understudy.core.expressions import ExpressionList
from understudy.core.systems import find
from understudy.reproduce import Scale
from understudy.reproduce import prose as reproduction
from understudy.reproduce.equations.information import best_equations, posterior
from understudy.reproduce.equations.networks import new_network
from understudy.reproduce.equations.regression import (
    candidates,
    fitted_numbers,
    smoothed,
    sparse_coefficients,
    sparse_forecast,
)
from understudy.reproduce.equations.rivals import nearest
from understudy.reproduce.equations.scores import (
    expression_errors,
    finite_errors,
    solution_errors,
    typical,
)
from understudy.reproduce.equations.setting import (
    REDUCED,
    SIZES,
    UNSEEN,
    Task,
    beyond,
    held_out,
    sampled_test,
    seen,
)
from understudy.simulate.ode_families import LORENZ, SPROTT_B, THOMAS, ODEFamily, times

SMOKE = replace(SIZES[Scale.SMOKE], families=(LORENZ, THOMAS), train=12, test=6)


def lorenz(count=3, points=129):
    generator = torch.Generator().manual_seed(0)
    return LORENZ.sample(count, generator, t=times(2.0, points))


def test_the_system_is_implemented():
    assert find("prose").implemented


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale():
    claims = reproduction.run(Scale.SMOKE, seed=3)
    assert {claim.seeds for claim in claims} == {(3,)}
    assert len({claim.statement for claim in claims}) == len(claims) == 12
    always = [claim for claim in claims if "mean parameters" not in claim.statement]
    assert all(math.isfinite(claim.measured) for claim in always)


def test_held_out_cells_are_no_cells_of_the_training_and_a_fifth_of_the_box():
    unit = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0))
    out, inside = held_out(unit), seen(unit)
    assert bool((out ^ inside).all())
    assert float(out.double().mean()) == pytest.approx(0.2, abs=0.02)
    assert bool(held_out(torch.full((1, 3), 0.1)).all())


def test_parameters_beyond_the_range_have_one_at_least_outside_of_it():
    family = SPROTT_B
    unit = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    values = family.values(unit[beyond(unit)], spread=0.2)
    mean = torch.tensor([0.4, 1.2, 1.0], dtype=torch.float64)
    assert float((values / mean - 1).abs().amax(1).min()) > 0.095


def test_the_test_has_the_times_of_training_and_those_halfway():
    test = sampled_test(SMOKE, (LORENZ,), 2)
    torch.testing.assert_close(test.between.t[::2], test.at.t)
    torch.testing.assert_close(test.between.u[:, ::2], test.at.u)


def test_noise_of_the_test_is_the_same_at_every_call_but_for_its_size():
    test = sampled_test(SMOKE, (LORENZ,), 2)
    clean = test.at.u[:, :8]
    torch.testing.assert_close(
        2.5 * (test.inputs(8, 0.02) - clean), test.inputs(8, 0.05) - clean, rtol=1e-3, atol=1e-4
    )


def test_both_networks_have_the_same_parts_but_for_symbols():
    with_text, without = (new_network(SMOKE, v).network for v in ("multimodal", "no-text"))
    own, other = (dict(n.named_parameters()) for n in (with_text, without))
    assert all(own[name].shape == value.shape for name, value in other.items())
    extra = {name.split(".")[0] for name in own.keys() - other.keys()}
    symbols = {"types", "symbols", "symbol_encoder", "written", "symbol_decoder", "output_bias"}
    assert extra == symbols


def test_the_paper_scale_has_the_sizes_of_the_paper():
    size = SIZES[Scale.PAPER]
    assert (size.width, size.heads, size.layers) == (512, 8, (2, 4, 8, 8, 8))
    assert (size.train, size.steps, size.batch_size) == (512_000, 160_000, 512)
    assert len(size.families) == 15


def test_expression_errors_are_zero_of_the_truth_and_not_a_number_of_nothing():
    test = sampled_test(SMOKE, (LORENZ, THOMAS), 4)
    true = test.equations
    errors = expression_errors([true[0], None, true[2], true[0]], test)
    assert errors[0] == 0 and errors[2] == 0
    assert bool(errors[1].isnan()) and float(errors[3]) > 0.5


def test_a_forecast_that_diverged_errs_as_much_as_zero():
    true = torch.ones(2, 4, 1)
    said = true.clone()
    said[0, 2] = torch.nan
    assert finite_errors(said, true).tolist() == [1.0, 0.0]


def test_samples_of_a_decay_tell_its_rate_as_the_formula_says():
    # u = u_0 e^{-c t}, c = 1: with both unknown the information is a matrix of two by two
    family = ODEFamily("decay", "-c * u_0", {"c": 1.0})
    t = torch.linspace(0.0, 2.0, 9, dtype=torch.float64)
    u = torch.exp(-t)[None, :, None]
    found = posterior(family, torch.ones(1, 1, dtype=torch.float64), u, t, noise=0.1)
    slopes = torch.stack([-t * torch.exp(-t), torch.exp(-t)], dim=1)
    variance = 0.01 * u.square().mean()
    prior = torch.tensor([300.0, 0.75], dtype=torch.float64)
    expected = torch.linalg.inv(slopes.T @ slopes / variance + torch.diag(prior))
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-9)


def test_the_best_equations_have_the_right_trees_and_err_less_than_mean_parameters():
    test = sampled_test(SMOKE, (LORENZ, THOMAS), 8)
    best = best_equations(SMOKE, test, 8)
    assert [e.skeleton for e in best] == [e.skeleton for e in test.equations]
    errors, trivial = (expression_errors(e, test) for e in (best, typical(SMOKE, test)))
    assert 0.0 < float(errors.mean()) < float(trivial.mean())


def test_the_nearest_trajectory_of_the_training_is_found():
    test = sampled_test(SMOKE, (LORENZ,), 4)
    forecast = nearest(SMOKE, test.at)
    torch.testing.assert_close(forecast(test), test.at.u[:, max(SMOKE.given) :])


def test_solving_the_true_equation_from_clean_samples_forecasts():
    data = lorenz(points=65)
    fine = Task(data, data)
    errors = solution_errors(fine.equations, fine, 32)
    assert float(errors.median()) < 0.2


def test_sindy_finds_the_terms_of_clean_trajectories():
    data = lorenz()
    states, slopes = smoothed(data.t, data.u)
    exact = data.skeletons[0].evaluate(states, data.numbers[:, None])
    xi = sparse_coefficients(states, exact, threshold=0.05)
    assert ((xi != 0).sum(2) == torch.tensor([2, 3, 2])).all()
    # columns are 1, u_0, u_1, u_2, u_0 u_0, u_0 u_1, ...
    torch.testing.assert_close(xi[:, 0, 2], data.numbers[:, 0], rtol=1e-3, atol=0)
    torch.testing.assert_close(-xi[:, 2, 3], data.numbers[:, 2], rtol=1e-3, atol=0)
    assert float((slopes - exact)[:, 4:-4].norm() / exact[:, 4:-4].norm()) < 0.02


def test_candidates_are_sixteen_of_three_components():
    u = torch.tensor([[1.0, 2.0, 3.0]])
    expected = [1, 1, 2, 3, 1, 2, 3, 4, 6, 9]
    assert candidates(u)[0, :10].tolist() == expected and candidates(u).shape == (1, 16)


def test_numbers_of_a_known_tree_are_those_of_the_slopes():
    data = lorenz()
    states, _ = smoothed(data.t, data.u)
    exact = data.skeletons[0].evaluate(states, data.numbers[:, None])
    found = fitted_numbers(data.skeletons[0], states, exact)
    torch.testing.assert_close(found, data.numbers, rtol=1e-6, atol=0)


def test_sindy_goes_on_from_the_last_sample():
    data = THOMAS.sample(3, torch.Generator().manual_seed(1), t=times(3.0, 97))
    said = sparse_forecast(data.t[:64], data.u[:, :64], data.t[64:], threshold=0.02)
    error = (said - data.u[:, 64:]).flatten(1).norm(dim=1) / data.u[:, 64:].flatten(1).norm(dim=1)
    assert float(error.max()) < 0.1


def test_the_unseen_combination_has_a_tree_of_its_own():
    trees = {family.skeleton for family in REDUCED}
    assert UNSEEN.skeleton not in trees
    assert ExpressionList.parse(str(UNSEEN.skeleton)).dim == 3
