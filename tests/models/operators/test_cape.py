"""The block that tells a network the parameters, against counts and formulas of its definition."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.models.operators.cape import (
    CAPE,
    ConcatParameters,
    ParameterConditioned,
    _add_to_blocks,
    scaled,
)
from understudy.models.operators.fno import FNO, SpectralConv
from understudy.models.operators.network import build
from understudy.models.operators.unet import PlainUNet

NEVER_READ = 2 * 9 * 32 * 64
"""Weights of the paper's block on 64 x 64 points that two corners of its spectrum share."""


def entries(module: nn.Module) -> int:
    """Parameters, of which a complex one counts once."""
    pairs = sum(m.weight.numel() // 2 for m in module.modules() if isinstance(m, SpectralConv))
    return sum(p.numel() for p in module.parameters()) - pairs


def line(width: int, channels: int, dims: int = 1) -> FNO:
    return FNO(channels, channels, [12] * dims, width, padding=2)


def fields(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_block_and_its_networks_have_as_many_entries_as_the_papers_in_one_dimension():
    cape = CAPE(1, 1, (128,))
    assert entries(cape) == 44_321
    assert entries(cape.spectral) == 32_768
    assert entries(line(36, 1)) == 72_509
    assert entries(ParameterConditioned(line(20, 2), cape)) == 68_230


def test_the_block_and_its_networks_have_as_many_entries_as_the_papers_in_two_dimensions():
    cape = CAPE(4, 3, (64, 64))
    assert cape.spectral.modes == (8, 9)
    assert entries(cape) + NEVER_READ == 355_972
    assert entries(line(36, 4, dims=2)) == 1_503_824
    assert entries(ParameterConditioned(line(20, 8, dims=2), cape)) + NEVER_READ == 822_428


def test_the_block_in_one_dimension_is_its_formula():
    torch.manual_seed(1)
    cape = CAPE(2, 3, (64,), modes=5, padding="zeros").eval()
    x, p = fields(4, 2, 64), fields(4, 3)
    F = nn.functional
    with torch.no_grad():
        z = F.gelu(F.conv1d(x, cape.lift.weight, padding=2))
        modes = torch.fft.rfft(z.unflatten(-1, (16, 4)).mean(-1))
        R = torch.view_as_complex(cape.spectral.weight)  # (modes, in, out)
        mixed = torch.zeros(4, 64, 9, dtype=torch.cfloat)
        mixed[..., :5] = torch.einsum("bik,kio->bok", modes[..., :5], R)
        far = torch.fft.irfft(mixed, n=16).repeat_interleave(4, dim=-1)
        near = F.conv1d(z, cape.depthwise.weight, padding=2, groups=32)
        e = [embed(p)[:, :, None] for embed in cape.attention]
        h = e[0] * far + e[1] * cape.pointwise(z) + e[2] * near + cape.direct(z)
        g = cape.project(F.gelu(h))
        g = (g - g.mean(-1, keepdim=True)) / (g.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(cape(x, p), x + g, rtol=1e-4, atol=1e-5)


def test_the_global_branch_is_spread_over_blocks_of_four_points():
    fine, coarse = fields(2, 3, 8, 12), fields(2, 3, 2, 3)
    spread = nn.functional.interpolate(coarse, scale_factor=4.0)
    torch.testing.assert_close(_add_to_blocks(fine, coarse), fine + spread)


def test_the_guess_goes_out_from_the_field_by_a_sum_or_a_factor():
    cape = CAPE(1, 1, (32, 32), modes=3)
    assert cape.combine == "multiply" and cape.scale == "fraction"
    assert CAPE(1, 1, (32,), modes=3).combine == "add"
    silent = torch.zeros(2, 1, 32, 32)
    assert torch.equal(cape(silent, torch.ones(2, 1)), silent)


def test_a_block_that_adds_keeps_the_mean_of_the_field_and_moves_it_by_unit_variance():
    x = fields(3, 1, 64)
    step = CAPE(1, 1, (64,), modes=4)(x, torch.ones(3, 1)) - x
    torch.testing.assert_close(step.mean(-1), torch.zeros(3, 1), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(step.var(-1, correction=0), torch.ones(3, 1), atol=1e-2, rtol=0.0)


def test_parameters_gate_the_channels():
    cape, x = CAPE(1, 2, (64,), modes=4), fields(1, 1, 64).expand(3, -1, -1)
    out = cape(x, torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]]))
    assert torch.equal(out[0], out[1])
    assert not torch.allclose(out[0], out[2])


def test_with_circular_padding_a_shift_by_the_pooling_commutes_with_the_block():
    x, p = fields(2, 1, 64), torch.ones(2, 1)
    for padding, commutes in (("circular", True), ("zeros", False)):
        torch.manual_seed(0)
        cape = CAPE(1, 1, (64,), modes=6, padding=padding)
        moved = cape(x.roll(8, -1), p)
        assert torch.allclose(moved, cape(x, p).roll(8, -1), atol=1e-5) is commutes


def test_several_times_to_come_are_guessed_one_behind_the_other():
    cape = CAPE(2, 1, (32,), modes=3, future_steps=3)
    nn.init.zeros_(cape.norm.weight)
    x = fields(2, 2, 32)
    assert torch.equal(cape(x, torch.ones(2, 1)), torch.cat([x, x, x], dim=1))
    net = ParameterConditioned(FNO(8, 8, [4], 8), cape)
    assert net(x, torch.ones(2, 1)).shape == (2, 2, 32)


def test_fewer_modes_than_asked_for_are_announced():
    with pytest.warns(UserWarning, match="64 points, averaged over 4, has 9 modes, so 9 are used"):
        cape = CAPE(1, 1, (64,))
    assert cape.settings["modes"] == 9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CAPE(1, 1, (120,))
        CAPE(4, 3, (64, 64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_shape": (126,)}, "multiple of 4 points"),
        ({"spatial_shape": (4,)}, "at least 8"),
        ({"spatial_shape": (16, 16, 16)}, "one or two dimensions"),
        ({"width": 33}, "width must be even"),
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"modes": 0}, "modes must be at least 1"),
        ({"num_params": 0}, "num_params must be at least 1"),
        ({"combine": "subtract"}, "combine must be one of add, multiply"),
        ({"padding": "reflect"}, "padding must be one of circular, zeros"),
        ({"parameter_scale": "log"}, "parameter_scale must be one of identity, fraction"),
    ],
)
def test_what_the_block_cannot_be_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        CAPE(**{"in_channels": 1, "num_params": 1, "spatial_shape": (128,), **arguments})


def test_fields_and_parameters_of_other_shapes_are_refused():
    cape = CAPE(1, 2, (64,), modes=4)
    with pytest.raises(UserError, match=r"fields of shape \(B, 1, 64\), found \(2, 1, 128\)"):
        cape(fields(2, 1, 128), torch.ones(2, 2))
    for wrong in (None, torch.ones(2, 1)):
        with pytest.raises(UserError, match=r"numbers of shape \(B, 2\)"):
            cape(fields(2, 1, 64), wrong)


def test_a_fraction_of_a_negative_parameter_is_refused():
    p = torch.tensor([0.5, 3.0])
    torch.testing.assert_close(scaled(p, "fraction"), p.log().sigmoid())
    assert scaled(-p, "identity").equal(-p)
    with pytest.raises(UserError, match="must be at least 0, found -3"):
        scaled(-p, "fraction")


def test_a_network_of_other_channels_cannot_stand_behind_the_block():
    with pytest.raises(UserError, match="needs in_channels 2, found 1"):
        ParameterConditioned(line(8, 1), CAPE(1, 1, (64,), modes=4))


@pytest.mark.parametrize(
    "net",
    [
        ParameterConditioned(FNO(2, 2, [4], 8), CAPE(1, 1, (64,), modes=4)),
        ParameterConditioned(PlainUNet(2, 2, features=4), CAPE(1, 1, (64,), modes=4)),
        ConcatParameters(PlainUNet(2, 1, features=4), 1, "fraction"),
    ],
    ids=["fno", "unet", "concat"],
)
def test_a_twin_is_built_from_the_description(net):
    twin = build(net.describe())
    twin.load_state_dict(net.state_dict())
    x, p = fields(3, 1, 64), torch.tensor([[0.5], [1.0], [2.0]])
    assert torch.equal(twin.eval()(x, p), net.eval()(x, p))
    assert twin.describe() == net.describe()


def test_concatenated_parameters_are_constant_channels():
    base = FNO(3, 1, [4], 8)
    net = ConcatParameters(base, 2, "fraction")
    x, p = fields(2, 1, 32), torch.tensor([[1.0, 3.0], [0.0, 1.0]])
    constant = torch.tensor([[0.5, 0.75], [0.0, 0.5]])[:, :, None].expand(-1, -1, 32)
    torch.testing.assert_close(net(x, p), base(torch.cat([x, constant], dim=1)))
