import math

import pytest
import torch
from torch import nn

from understudy.core.convert import compare, layers, swap
from understudy.core.errors import UserError


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    )


def low_rank(name: str, linear: nn.Linear) -> nn.Module:
    return nn.Sequential(
        nn.Linear(linear.in_features, 1, bias=False), nn.Linear(1, linear.out_features)
    )


def test_layers_are_found_by_class_in_order():
    assert layers(network(), (nn.Linear,)) == ["0", "2.0", "2.1"]


def test_a_swap_makes_a_copy_and_leaves_the_network_as_it_was():
    model, x = network(), torch.randn(3, 4)
    before = model(x)
    made, swaps = swap(model, ["2.0"], low_rank)
    assert [s.name for s in swaps] == ["2.0"]
    assert isinstance(made[2][0], nn.Sequential) and isinstance(model[2][0], nn.Linear)
    with torch.no_grad():
        for p in made.parameters():
            p.zero_()
    torch.testing.assert_close(model(x), before)


def test_a_module_in_two_places_is_replaced_by_one_in_both():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    made, swaps = swap(model, layers(model, (nn.Linear,)), low_rank)
    assert len(swaps) == 1
    assert made[0] is made[2] is swaps[0].after


def test_a_module_that_stays_is_no_swap():
    model = network()
    made, swaps = swap(model, ["0"], lambda name, module: module)
    assert swaps == []
    assert made[0] is not model[0]
    torch.testing.assert_close(made[0].weight, model[0].weight)


def test_the_network_itself_can_be_swapped():
    made, _ = swap(nn.Linear(4, 4), [""], low_rank)
    assert isinstance(made, nn.Sequential)


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="no module '7'"):
        swap(network(), ["7"], low_rank)


def test_a_comparison_has_each_swap_and_the_whole():
    model = network()
    made, swaps = swap(model, ["0", "2.0"], low_rank)
    changes = compare(model, made, swaps, torch.randn(3, 4), rounds=1)
    assert [c.name for c in changes] == ["0", "2.0", "all"]
    assert changes[1].before.parameters == 72 and changes[1].after.parameters == 8 + 16
    assert changes[1].ratio == 3.0
    assert changes[1].before.macs == 3 * 64 and changes[1].after.macs == 3 * 16
    assert changes[2].before.macs == 3 * (32 + 64 + 16)
    assert all(c.before.seconds > 0 and c.after.seconds > 0 for c in changes)
    assert changes[0].speedup == changes[0].before.seconds / changes[0].after.seconds
    untimed = compare(model, made, swaps, torch.randn(3, 4), rounds=0)
    assert math.isnan(untimed[0].speedup)
