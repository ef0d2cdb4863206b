"""A decoder from numbers to fields, as an operator, and as one-way filters."""

from __future__ import annotations

import pytest
import torch

from understudy.compress import compress_a_priori
from understudy.compress.a_priori import example_inputs, rebuilt
from understudy.core.cost import count_parameters
from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.network import build
from understudy.models.operators.parametric_decoder import ParametricDecoder
from understudy.models.operators.training import Training
from understudy.nn.one_way_conv import OneWayConv2d, OneWayConvTranspose2d
from understudy.nn.one_way_network import OneWayPlan, densified


def nothing(runs: int, *size: int) -> torch.Tensor:
    return torch.zeros(runs, 0, *size)


@pytest.mark.parametrize("size", [(17,), (9, 12), (5, 6, 7)])
def test_fields_of_any_size_are_made_of_numbers(size: tuple[int, ...]) -> None:
    network = ParametricDecoder(3, 2, size, channels=4, levels=2, kernel=3)
    assert network(nothing(5, *size), torch.randn(5, 3)).shape == (5, 2, *size)


def test_a_description_builds_an_untrained_twin() -> None:
    network = ParametricDecoder(2, 1, (10, 10), channels=4, levels=2)
    twin = build(network.describe())
    twin.load_state_dict(network.state_dict())
    p = torch.randn(3, 2)
    assert torch.equal(twin(nothing(3, 10, 10), p), network(nothing(3, 10, 10), p))


def test_fields_start_with_a_spread_of_the_order_of_one() -> None:
    torch.manual_seed(0)
    network = ParametricDecoder(3, 1, (32, 32), channels=16)
    spread = float(network(nothing(32, 32, 32), torch.randn(32, 3)).std().detach())
    assert 0.03 < spread < 3.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kernel": 4}, "kernel must be odd"),
        ({"levels": 4}, "size must be one to three numbers above 16"),
        ({"size": (4, 4, 4, 4)}, "one to three numbers"),
        ({"channels": 0}, "at least one number, channel"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change: dict, words: str) -> None:
    options = {"num_params": 1, "out_channels": 1, "size": (10, 10)}
    with pytest.raises(UserError, match=words):
        ParametricDecoder(**options | change)


def test_other_fields_and_missing_numbers_are_refused() -> None:
    network = ParametricDecoder(2, 1, (10, 10), channels=4, levels=2)
    with pytest.raises(UserError, match="makes its own of numbers, found"):
        network(torch.zeros(1, 1, 10, 10), torch.zeros(1, 2))
    with pytest.raises(UserError, match="makes its own of numbers, found"):
        network(nothing(1, 12, 12), torch.zeros(1, 2))
    with pytest.raises(UserError, match=r"needs numbers of shape \(B, 2\)"):
        network(nothing(1, 10, 10))


def test_transposed_convolutions_become_one_way_filters_too() -> None:
    dense = ParametricDecoder(3, 1, (32, 32), channels=16)
    small, report = compress_a_priori(dense, rank=2, skip=("last",))
    kinds = [type(swap.after) for swap in report.swaps]
    assert kinds.count(OneWayConvTranspose2d) == 3
    assert kinds.count(OneWayConv2d) == 6
    assert all(count_parameters(s.after) < count_parameters(s.before) / 3 for s in report.swaps)
    p = torch.randn(2, 3)
    torch.testing.assert_close(
        densified(small)(nothing(2, 32, 32), p), small(nothing(2, 32, 32), p), atol=1e-5, rtol=1e-4
    )


def bumps(runs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Places and heights ``(N, 3)``, and Gaussians there on 12 x 12 points."""
    p = torch.rand(runs, 3, generator=torch.Generator().manual_seed(seed))
    s = (torch.arange(12) + 0.5) / 12
    along = [torch.exp(-((s - (0.2 + 0.6 * p[:, i, None])) ** 2) / 0.045) for i in (0, 1)]
    return p, (1.0 + p[:, 2, None, None]) * along[0][:, :, None] * along[1][:, None, :]


@pytest.mark.parametrize("rank", [0, 2])
def test_an_operator_learns_where_a_bump_is_and_is_kept(rank: int, tmp_path) -> None:
    torch.manual_seed(0)
    p, fields = bumps(100, 1)
    q, true = bumps(40, 2)
    model = FieldMap(ParametricDecoder(3, 1, (12, 12), channels=8, levels=1, kernel=3, waves=2))
    if rank:
        model, _ = rebuilt(model, OneWayPlan(rank, skip=("last",)))
    plan = Training(steps=150, batch_size=10, learning_rate=1e-2, ema_decay=0.97)
    grid = Grid.of(12, 12, placement="cells")
    names = {"inputs": (), "parameters": ("x", "y", "height"), "grid": grid}
    model.fit(nothing(100, 12, 12), fields[:, None], p, training=plan, **names)
    found = model.predict(nothing(40, 12, 12), q)
    assert float((found[:, 0] - true).norm() / true.norm()) < 0.25
    model.save(tmp_path / "bumps.us")
    back = FieldMap.load(tmp_path / "bumps.us")
    assert torch.equal(back.predict(nothing(40, 12, 12), q), found)
    assert [tuple(t.shape) for t in example_inputs(back)] == [(1, 0, 12, 12), (1, 3)]
