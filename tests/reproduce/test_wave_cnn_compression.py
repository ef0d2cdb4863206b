import math
from dataclasses import replace

import pytest
import torch

from understudy.core.cost import count_parameters
from understudy.models.operators.one_step import OneStepModel
from understudy.nn.one_way_network import set_way
from understudy.reproduce import Scale
from understudy.reproduce import wave_cnn_compression as reproduction
from understudy.reproduce.waves.costs import training_bytes
from understudy.reproduce.waves.networks import (
    dense_network,
    narrow_network,
    one_way_network,
    shared_network,
)
from understudy.reproduce.waves.setting import SIZES, Runs, simulated
from understudy.reproduce.waves.training import Bench, step_error

pytest.importorskip("skfem")
SMOKE, CPU = SIZES[Scale.SMOKE], SIZES[Scale.CPU]


@pytest.fixture(scope="module")
def runs() -> dict[int, Runs]:
    return {0: simulated(SMOKE, 0), 1: simulated(SMOKE, 1)}


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale():
    claims = reproduction.run(Scale.SMOKE, seed=3)
    assert {claim.seeds for claim in claims} == {(3,)}
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims) == 9


def test_runs_are_split_by_pulse_and_the_test_is_the_same_for_all(runs):
    assert torch.equal(runs[0].test, runs[1].test)
    starts = torch.cat([part[:, 0] for r in runs.values() for part in (r.train, r.held)])
    both = torch.cat([starts, runs[0].test[:, 0]]).flatten(1)
    assert len(both.unique(dim=0)) == 2 * (SMOKE.train + SMOKE.held) + SMOKE.test


def test_networks_have_the_weights_that_comparisons_ask_for():
    dense = count_parameters(dense_network(CPU))
    two = count_parameters(one_way_network(CPU, 2))
    assert dense >= 5 * two
    shared = count_parameters(shared_network(CPU))
    assert 0.95 * two < shared <= two
    narrow = count_parameters(narrow_network(CPU, two))
    assert two <= narrow < 1.4 * two


def test_inner_layers_of_32_channels_shrink_as_counted_by_hand():
    """25.6 k weights of 32 channels and 5 x 5 become 1.34 k of rank 1 and 5.4 k of rank 4."""
    wide = replace(CPU, channels=32)
    for rank, weights in ((1, 1344), (4, 5376)):
        swap = one_way_network(wide, rank).swaps[0]
        assert count_parameters(swap.before) == 25_600 + 32
        assert count_parameters(swap.after) == weights + 32


def test_the_rank_is_chosen_by_validation_among_the_small():
    class Fit:
        def __init__(self, weights, held_one):
            self.weights, self.held_one = weights, held_one

    dense = {0: Fit(1000, 0.1)}
    ways = {1: {0: Fit(100, 0.3)}, 2: {0: Fit(200, 0.2)}, 4: {0: Fit(400, 0.1)}}
    assert reproduction._chosen(dense, ways) == 2


def test_an_exact_network_has_no_error_and_one_that_keeps_still_has(runs):
    bench = Bench(SMOKE, runs)
    fit = bench.fits("dense", lambda: dense_network(SMOKE))[0]
    still = OneStepModel(dense_network(SMOKE)).prepare(
        runs[0].train, dt=0.1, grid=runs[0].simulator.grid, channels=runs[0].simulator.channels
    )
    test = runs[0].test
    gap = (test[:, 1:, 0] - test[:, :-1, 0]).flatten(0, 1).flatten(1).norm(dim=1)
    size = test[:, 1:, 0].flatten(0, 1).flatten(1).norm(dim=1)
    assert step_error(still, test) == pytest.approx(float((gap / size).mean()))
    assert fit.one != step_error(still, test)


def test_the_same_seed_trains_the_same(runs):
    bench = Bench(SMOKE, {0: runs[0]})
    first, second = (bench.fits("one-way", lambda: one_way_network(SMOKE, 2))[0] for _ in range(2))
    assert first.one == second.one


def test_few_runs_are_trained_on_to_the_last_step_without_validation(runs):
    bench = Bench(replace(SMOKE, few=2), {0: runs[0]})
    fit = bench.fits("dense", lambda: dense_network(SMOKE), few=True)[0]
    assert fit.model.outcome.best_step is None and fit.model.outcome.steps == SMOKE.steps
    # units are those of the two runs that it saw
    seen = OneStepModel(dense_network(SMOKE)).prepare(
        runs[0].train[:2], dt=0.1, grid=runs[0].simulator.grid
    )
    torch.testing.assert_close(fit.model._fields.scale, seen._fields.scale)


def test_what_training_keeps_grows_with_a_chain_and_not_with_what_is_recomputed_or_composed():
    dense = dense_network(SMOKE)
    own, kept, most = training_bytes(dense, SMOKE)
    assert own == 16 * count_parameters(dense)
    ways = {
        way: training_bytes(set_way(one_way_network(SMOKE, 1), way), SMOKE)
        for way in ("chain", "recomputed", "composed")
    }
    assert all(less < own for less, _, _ in ways.values())
    assert ways["chain"][1] > kept and ways["chain"][2] > most
    assert ways["recomputed"][1] == kept > 0
    assert kept <= ways["composed"][1] < 1.4 * kept
    assert all(many > held for _, held, many in ways.values())
