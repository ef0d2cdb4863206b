"""The wave network, and networks of one-way filters as operators that are trained and kept."""

from __future__ import annotations

import pytest
import torch

from understudy.core.errors import UserError
from understudy.models.operators.network import build
from understudy.models.operators.one_step import OneStepModel
from understudy.models.operators.one_way import OneWayNetwork
from understudy.models.operators.training import Training
from understudy.models.operators.wave_cnn import WaveCNN
from understudy.nn.one_way_conv import ONE_WAY
from understudy.nn.one_way_network import OneWayPlan, balanced, densified, set_way


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """Network whose weights are all drawn, those that start at zero too."""
    torch.manual_seed(3)
    with torch.no_grad():
        for p in network.parameters():
            p.normal_(0.0, 0.2)
    return network


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_any_grid_is_kept(dims: int, padding: str) -> None:
    network = WaveCNN(2, 3, dims, num_params=1, channels=4, kernel=3, blocks=1, padding=padding)
    space = (7, 8, 9)[:dims]
    assert network(torch.randn(2, 2, *space), torch.randn(2, 1)).shape == (2, 3, *space)


def test_three_blocks_are_eight_convolutions() -> None:
    network = WaveCNN(3, 3)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in network.modules()) == 8
    inner = 32 * 32 * 25 + 32
    ends = 3 * 32 * 25 + 32 + 32 * 3 * 25 + 3
    assert sum(p.numel() for p in network.parameters()) == 6 * inner + ends


def test_a_wave_crosses_as_many_points_as_the_kernels_reach() -> None:
    network = shaken(WaveCNN(1, 1, dims=1, channels=4, kernel=5, blocks=2)).double()
    u = torch.zeros(1, 1, 61, dtype=torch.float64)
    spike = u.clone()
    spike[..., 30] = 1.0
    moved = (network(spike) - network(u))[0, 0].abs() > 1e-12
    reach = (5 - 1) * (2 + 1)
    assert moved.nonzero().flatten().tolist() == list(range(30 - reach, 31 + reach))


def test_it_starts_by_saying_that_nothing_changes() -> None:
    assert not WaveCNN(2, 2)(torch.randn(1, 2, 9, 9)).any()


def test_the_layout_in_memory_changes_no_value() -> None:
    network, u = shaken(WaveCNN(2, 2, channels=8)).double(), torch.randn(2, 2, 12, 12).double()
    last = network(u)
    network.memory_format = torch.contiguous_format
    torch.testing.assert_close(network(u), last)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="kernel must be odd, found 4"):
        WaveCNN(1, 1, kernel=4)
    with pytest.raises(UserError, match="at least 1"):
        WaveCNN(1, 1, blocks=0)
    with pytest.raises(UserError, match="needs numbers of shape"):
        WaveCNN(1, 1, num_params=2)(torch.zeros(1, 1, 8, 8))


# -- one-way filters in networks --------------------------------------------------------------


def test_the_ends_and_points_stay() -> None:
    network = OneWayNetwork(WaveCNN(3, 3, channels=8), OneWayPlan(rank=2))
    assert len(network.swaps) == 6
    filters = [m for m in network.modules() if isinstance(m, tuple(ONE_WAY.values()))]
    assert len(filters) == 6
    assert isinstance(network.network.lift.conv, torch.nn.Conv2d)
    assert isinstance(network.network.project.conv, torch.nn.Conv2d)


def test_the_network_itself_stays_as_it_is() -> None:
    dense = shaken(WaveCNN(3, 3, channels=8))
    kept = {name: value.clone() for name, value in dense.state_dict().items()}
    small = OneWayNetwork(dense, OneWayPlan())
    shaken(small)
    for name, value in dense.state_dict().items():
        assert torch.equal(value, kept[name])


def test_a_description_builds_an_untrained_twin() -> None:
    plan = OneWayPlan(3, "shared", ("first", "second.1.*"), 3)
    network = shaken(OneWayNetwork(WaveCNN(2, 2, channels=6), plan))
    twin = build(network.describe())
    twin.load_state_dict(network.state_dict())
    u = torch.randn(1, 2, 10, 10)
    torch.testing.assert_close(twin(u), network(u))


def test_truncation_loses_nothing_of_kernels_of_one_term_and_something_of_others() -> None:
    u = torch.randn(1, 2, 9, 9).double()
    filters = shaken(OneWayNetwork(WaveCNN(2, 2, channels=4, kernel=3), OneWayPlan(1))).double()
    dense = densified(filters).network
    again = OneWayNetwork(dense, OneWayPlan(1), "truncated")
    torch.testing.assert_close(again(u), filters(u), rtol=1e-4, atol=1e-6)
    other = shaken(dense)
    assert not torch.allclose(
        OneWayNetwork(other, OneWayPlan(1), "truncated")(u), other(u), rtol=1e-2
    )


def test_dense_again_composed_or_balanced_it_is_the_same_function() -> None:
    network = shaken(OneWayNetwork(WaveCNN(2, 2, channels=6), OneWayPlan(2))).double()
    u = torch.randn(2, 2, 12, 12).double()
    expected = network(u)
    torch.testing.assert_close(densified(network)(u), expected)
    torch.testing.assert_close(balanced(network)(u), expected)
    for way in ("chain", "recomputed", "composed"):
        torch.testing.assert_close(set_way(network, way)(u), expected)
    with pytest.raises(UserError, match="way must be one of auto, chain"):
        set_way(network, "fused")


def test_names_are_skipped_and_unknown_ones_refused() -> None:
    names, left = OneWayPlan(skip=("second.*",)).choose(WaveCNN(3, 3, channels=8))
    assert names == ["lift.conv", "first.0.conv", "first.1.conv", "first.2.conv", "project.conv"]
    assert left["second.0.conv"] == "skipped by name"
    with pytest.raises(UserError, match=r"no convolution is called 'third'; there are lift\.conv"):
        OneWayPlan(skip=("third",)).choose(WaveCNN(3, 3))


def test_what_would_not_become_smaller_stays() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(8, 8, 1), torch.nn.Conv2d(16, 16, 3)
    )
    names, left = OneWayPlan(rank=1, skip=()).choose(model)
    assert (names, left) == (["0", "2"], {"1": "1 point wide"})
    # two terms of 1 + 3 + 3 numbers for each of four outputs, and four biases, for 4 x 9 + 4
    names, left = OneWayPlan(rank=2, skip=()).choose(model)
    assert names == ["2"]
    assert left["0"] == "60 parameters would take the place of 40"


def test_groups_are_refused_by_name() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, groups=8), torch.nn.Conv2d(8, 8, 3))
    with pytest.raises(UserError, match=r"the convolution '0' has 8 groups.*skip='0'"):
        OneWayPlan(skip=()).choose(model)
    assert OneWayPlan(skip=("0",)).choose(model)[0] == ["1"]


def test_a_network_without_convolutions_is_refused() -> None:
    with pytest.raises(UserError, match=r"no convolution of this network.*it has none"):
        OneWayPlan(skip=()).choose(torch.nn.Linear(3, 3))


@pytest.mark.parametrize("bad", [{"rank": 0}, {"mode": "svd"}, {"min_kernel": 1}])
def test_plans_that_cannot_be_are_refused(bad: dict) -> None:
    with pytest.raises(UserError):
        OneWayPlan(**bad)


def test_an_operator_of_filters_learns_a_shift_and_is_kept(tmp_path) -> None:
    torch.manual_seed(0)
    start = torch.randn(12, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    moving = torch.stack([start.roll(t, dims=-1) for t in range(5)], dim=1)
    network = OneWayNetwork(
        WaveCNN(1, 1, channels=8, kernel=3, blocks=1, padding="circular"), OneWayPlan(2)
    )
    model = OneStepModel(network, difference=False)
    plan = Training(steps=150, batch_size=8, learning_rate=1e-2, ema_decay=0.9)
    model.fit(moving, dt=0.1, training=plan)
    path = model.rollout(moving[:, 0], 2)
    assert float((path[:, 0] - moving[:, :3]).square().mean()) < 0.05
    model.save(tmp_path / "wave.us")
    back = OneStepModel.load(tmp_path / "wave.us")
    assert torch.equal(back.rollout(moving[:, 0], 2), path)
