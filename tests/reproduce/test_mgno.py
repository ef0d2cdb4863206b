import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from understudy.core.cost import count_parameters
from understudy.core.systems import find
from understudy.reproduce import Scale
from understudy.reproduce import mgno as reproduction
from understudy.reproduce.elliptic import training
from understudy.reproduce.elliptic.networks import helmholtz_mgno, mgno, network_of
from understudy.reproduce.elliptic.setting import SIZES, darcy_pairs
from understudy.reproduce.elliptic.training import Bench, measured

SMOKE, CPU = SIZES[Scale.SMOKE], SIZES[Scale.CPU]
RIVALS = ("FNO", "U-Net", "U-NO")


def test_the_system_is_implemented():
    assert find("mgno").implemented


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale():
    claims = reproduction.run(Scale.SMOKE, seed=3)
    assert {claim.seeds for claim in claims} == {(3,)}
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims) == 9


def test_media_are_those_of_the_claims_and_the_test_pairs_are_never_trained_on():
    pairs = darcy_pairs(SMOKE, "rough", [0, 1])
    assert set(pairs[0].x.unique().tolist()) == {3.0, 12.0}
    torch.testing.assert_close(pairs[0].test_x, pairs[1].test_x)
    fields = torch.cat([pairs[0].x, pairs[1].x, pairs[0].test_x]).flatten(1)
    assert len(fields.unique(dim=0)) == 2 * SMOKE.train + SMOKE.test


@pytest.mark.parametrize("scale", [Scale.CPU, Scale.PAPER])
def test_rivals_have_no_fewer_weights_than_mgno(scale):
    size = SIZES[scale]
    own = count_parameters(mgno(size))
    for name in RIVALS:
        assert own <= count_parameters(network_of(name, size)) < 1.4 * own


def test_the_paper_scale_has_the_network_of_the_paper():
    size = SIZES[Scale.PAPER]
    assert count_parameters(mgno(size)) == 572_661


def test_every_network_keeps_the_grid():
    u = torch.randn(2, 1, CPU.points, CPU.points)
    for name in ("MgNO", *RIVALS):
        assert network_of(name, CPU)(u).shape == u.shape
    assert helmholtz_mgno(CPU)(u).shape == u.shape


def test_a_network_of_dearer_steps_gets_fewer_of_them(monkeypatch):
    monkeypatch.setattr(training, "TIMED", (2, 4))
    bench = Bench(SMOKE)
    pairs = darcy_pairs(SMOKE, "rough", [0])
    make = partial(mgno, replace(SMOKE, depth=12))
    deep = bench.fits("MgNO, deep", make, pairs, 12)
    assert deep[0].steps < 6
    assert bench.fits("MgNO", partial(mgno, SMOKE), pairs, 3)[0].steps == 3


def test_errors_of_a_network_that_says_nothing_are_one():
    pairs = darcy_pairs(SMOKE, "rough", [0])
    fit = Bench(SMOKE).fits("MgNO", partial(mgno, SMOKE), pairs, 2)[0]
    fit.model.network.combine.weight.data.zero_()
    fit.model._y = replace(fit.model._y, shift=torch.zeros(1, 1, 1, 1))
    again = measured(fit.model, pairs[0], 2)
    for error in (again.h1, again.l2, again.train_l2, again.edge):
        assert error == pytest.approx(1.0, abs=1e-6)


def test_the_same_seed_trains_the_same():
    pairs = darcy_pairs(SMOKE, "multiscale", [0])
    first, second = (Bench(SMOKE).fits("MgNO", partial(mgno, SMOKE), pairs, 5)[0] for _ in range(2))
    assert first.h1 == second.h1


def test_a_claim_on_the_median_forgets_the_largest():
    claim = reproduction._middle(
        {0: 0.1, 1: 0.2, 2: 9.0},
        statement="s",
        paper_figure="p",
        metric="m",
        bar=0.6,
        direction="at most",
    )
    assert claim.holds and claim.measured == 0.2
