import math

import pytest
import torch
from torch import nn

from understudy.core.errors import UserError
from understudy.models.operators.dilated import DilatedResNet
from understudy.models.operators.network import build
from understudy.models.operators.unet import (
    Conditioning,
    Doubling,
    PaddedConv,
    PlainUNet,
    UNet,
    beside,
    continued,
)

SMALL = {
    UNet: {"hidden": 8, "multipliers": (1, 2), "blocks": 1},
    PlainUNet: {"features": 4, "halvings": 2},
    DilatedResNet: {"channels": 6, "blocks": 3},
}


def _trained_at_random(network):
    """As if trained: no layer is zero."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return network.eval()


def _points(count):
    return sum(parameter.numel() for parameter in count.parameters())


def test_the_network_of_the_paper_has_54_million_parameters():
    # field and refined increment; index, time step and spacing
    assert round(_points(UNet(2, 1, num_params=3)) / 1e6, 1) == 53.9


def test_the_benchmark_network_has_as_many_parameters_as_the_layers_say():
    def pair(i, o):
        return 9 * i * o + o + 9 * o * o + o + 4 * o

    wide = [32, 64, 128, 256, 512]
    down = sum(pair(i, o) for i, o in zip([3, *wide[:-1]], wide, strict=True))
    up = sum(4 * 2 * o * o + o + pair(2 * o, o) for o in wide[:-1])
    assert _points(PlainUNet(3, 1, dims=2)) == down + up + 32 + 1


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_fields_of_any_dimension_keep_their_grid(kind, dims):
    network = kind(2, 3, dims=dims, num_params=2, **SMALL[kind])
    shape = (16, 20, 16)[:dims]
    assert network(torch.randn(2, 2, *shape), torch.rand(2, 2)).shape == (2, 3, *shape)


@pytest.mark.parametrize("kind", SMALL)
def test_a_circular_network_commutes_with_whole_shifts(kind):
    torch.manual_seed(0)
    network = _trained_at_random(kind(1, 1, dims=2, padding="circular", **SMALL[kind]))
    u = torch.randn(2, 1, 16, 24)
    with torch.no_grad():
        here, there = network(u), network(u.roll((4, 8), (-2, -1)))
    assert here.std() > 1e-3
    torch.testing.assert_close(here.roll((4, 8), (-2, -1)), there, rtol=1e-3, atol=1e-4)


def test_padding_by_zeros_sees_the_boundary():
    torch.manual_seed(0)
    network = _trained_at_random(UNet(1, 1, padding="zeros", **SMALL[UNet]))
    u = torch.randn(1, 1, 16)
    with torch.no_grad():
        assert not torch.allclose(network(u).roll(4, -1), network(u.roll(4, -1)), atol=1e-2)


@pytest.mark.parametrize("kind", SMALL)
def test_numbers_change_the_answer(kind):
    torch.manual_seed(0)
    network = _trained_at_random(kind(1, 1, num_params=1, **SMALL[kind]))
    u = torch.randn(1, 1, 16)
    with torch.no_grad():
        assert (network(u, torch.tensor([[2.0]])) - network(u, torch.tensor([[7.0]]))).std() > 1e-4


@pytest.mark.parametrize("kind", [UNet, DilatedResNet])
def test_it_starts_at_zero_and_learns_from_there(kind):
    network = kind(1, 1, **SMALL[kind])
    out = network(torch.randn(2, 1, 16))
    assert not out.any()
    (out - 1.0).square().mean().backward()
    last = network.project.conv.weight.grad
    assert last is not None and last.abs().sum() > 0


@pytest.mark.parametrize("kind", SMALL)
def test_a_twin_is_built_from_its_description(kind):
    torch.manual_seed(0)
    network = _trained_at_random(kind(1, 2, num_params=1, **SMALL[kind]))
    twin = build(network.describe()).eval()
    twin.load_state_dict(network.state_dict())
    u, p = torch.randn(2, 1, 16), torch.rand(2, 1)
    assert type(twin) is kind and torch.equal(twin(u, p), network(u, p))


def test_sizes_that_cannot_be_halved_are_refused():
    with pytest.raises(UserError, match=r"multiple of 8 points along each axis, found \(20,\)"):
        UNet(1, 1)(torch.zeros(1, 1, 20))
    with pytest.raises(UserError, match="multiple of 16"):
        PlainUNet(1, 1, dims=2, features=2)(torch.zeros(1, 1, 32, 24))
    with pytest.raises(UserError, match="at least 8 points"):
        DilatedResNet(1, 1)(torch.zeros(1, 1, 6))


@pytest.mark.parametrize("kind", SMALL)
def test_missing_and_surplus_numbers_are_refused(kind):
    network = kind(1, 1, num_params=2, **SMALL[kind])
    for p in (None, torch.zeros(1, 3)):
        with pytest.raises(UserError, match=r"numbers of shape \(B, 2\)"):
            network(torch.zeros(1, 1, 16), p)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hidden": 12}, "multiple of 8"),
        ({"dims": 4}, "dims must be 1, 2 or 3"),
        ({"padding": "reflect"}, "padding must be"),
        ({"multipliers": ()}, "multipliers and blocks"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings, says):
    with pytest.raises(UserError, match=says):
        UNet(1, 1, **settings)


def test_a_circular_convolution_is_that_of_the_periodic_field():
    torch.manual_seed(0)
    layer = PaddedConv(1, 1, 1, kernel=5, dilation=2)
    x = torch.randn(1, 1, 16)
    w, b = layer.conv.weight[0, 0], layer.conv.bias
    by_hand = sum(w[j] * x.roll(-2 * (j - 2), -1) for j in range(5)) + b
    torch.testing.assert_close(layer(x), by_hand)


def test_doubling_is_the_transposed_convolution_of_the_periodic_field():
    torch.manual_seed(0)
    layer = Doubling(1, 1, "circular")
    x = torch.randn(1, 1, 8)
    w, b = layer.conv.weight[0, 0], layer.conv.bias
    by_hand = torch.zeros(1, 1, 16) + b
    for i in range(8):
        for j in range(4):
            by_hand[..., (2 * i + j - 1) % 16] += w[j] * x[..., i]
    torch.testing.assert_close(layer(x), by_hand)


def test_a_field_is_continued_around_both_ends():
    x = torch.arange(4.0).reshape(1, 1, 4)
    assert continued(x, 2).flatten().tolist() == [2, 3, 0, 1, 2, 3, 0, 1]


def test_numbers_come_as_waves_of_falling_frequency():
    condition = Conditioning(1, 4, 3)
    seen = []
    condition.perceptrons[0].register_forward_hook(lambda m, given, out: seen.append(given[0]))
    condition(torch.tensor([[3.0]]))
    expected = [math.cos(3.0), math.cos(0.03), math.sin(3.0), math.sin(0.03)]
    torch.testing.assert_close(seen[0][0], torch.tensor(expected))


def test_constant_channels_lie_beside_the_fields():
    both = beside(torch.zeros(2, 1, 4, 4), torch.tensor([[1.0], [2.0]]))
    assert both.shape == (2, 2, 4, 4) and both[1, 1].unique().tolist() == [2.0]
