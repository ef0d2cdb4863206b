import itertools
import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.errors import UserError
from understudy.models.operators import fno
from understudy.models.operators.fno import FNO, SpectralConv
from understudy.models.operators.network import build

SPACES = [((5,), (8,)), ((4,), (9,)), ((4, 3), (8, 9)), ((2, 3, 3), (5, 6, 7))]


def usual(layer, v):
    """Frequency by frequency, in the whole spectrum, as the equation says."""
    axes = tuple(range(2, v.ndim))
    spectrum = torch.fft.rfftn(v, dim=axes)
    out = torch.zeros(len(v), layer.out_channels, *spectrum.shape[2:], dtype=spectrum.dtype)
    matrices = torch.view_as_complex(layer.weight.detach())
    places = itertools.product(*map(range, layer.kept))
    for matrix, place in zip(matrices, places, strict=True):
        signed = [
            i if i < m else i - k for i, m, k in zip(place, layer.modes, layer.kept, strict=True)
        ]
        at = (slice(None), slice(None), *signed)
        out[at] = spectrum[at] @ matrix
    return torch.fft.irfftn(out, s=v.shape[2:], dim=axes)


def wave(n, k, shift=0.0):
    return torch.cos(2 * torch.pi * k * (torch.arange(n).double() / n + shift))


@pytest.mark.parametrize(("modes", "space"), SPACES)
def test_a_spectral_layer_multiplies_each_low_frequency_by_its_matrix(modes, space):
    layer = SpectralConv(3, 2, modes).double()
    v = torch.randn(2, 3, *space, dtype=torch.double)
    torch.testing.assert_close(layer(v), usual(layer, v), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("modes", "space"), SPACES)
def test_matrix_products_and_ffts_give_the_same(modes, space, monkeypatch):
    layer = SpectralConv(3, 2, modes, bias=True).double()
    v = torch.randn(2, 3, *space, dtype=torch.double)
    by_matrices = layer(v, add=v[:, :2].clone())
    monkeypatch.setattr(fno, "_MATRIX_MODES", 0)
    torch.testing.assert_close(layer(v, add=v[:, :2].clone()), by_matrices, rtol=1e-12, atol=1e-12)


def test_a_wave_comes_out_longer_and_shifted_as_its_matrix_says():
    layer = SpectralConv(1, 1, [4]).double()
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[3, 0, 0] = torch.tensor([0.0, 2.0])  # 2 exp(i pi / 2): a quarter of a wave
    seen = wave(16, 3) + wave(16, 5)
    torch.testing.assert_close(layer(seen[None, None])[0, 0], 2 * wave(16, 3, shift=1 / 12))


def test_the_bias_of_a_spectral_layer_is_a_constant_of_each_channel():
    layer = SpectralConv(2, 3, (2, 2), bias=True)
    out = layer(torch.zeros(1, 2, 6, 6))
    torch.testing.assert_close(out, layer.bias.reshape(1, 3, 1, 1).expand_as(out))


@pytest.mark.parametrize(("modes", "space"), [((3,), (7,)), ((2, 2), (4, 5))])
def test_gradients_of_a_spectral_layer_are_right_twice(modes, space):
    layer = SpectralConv(2, 2, modes).double()
    v = torch.randn(2, 2, *space, dtype=torch.double, requires_grad=True)

    def of(v, weight):
        return torch.func.functional_call(layer, {"weight": weight}, (v,))

    assert torch.autograd.gradcheck(of, (v, layer.weight))
    assert torch.autograd.gradgradcheck(of, (v, layer.weight), fast_mode=True)


def test_gradients_of_the_network_are_right():
    network = FNO(1, 2, [2, 2], width=3, depth=2, projection=4, num_params=1, padding=1).double()
    u = torch.randn(2, 1, 5, 4, dtype=torch.double, requires_grad=True)
    p = torch.randn(2, 1, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(network, (u, p))


def test_large_fields_are_projected_in_parts_that_give_the_same(monkeypatch):
    network = FNO(1, 2, [2, 2], width=3, depth=1, projection=4).double()
    u = torch.randn(3, 1, 4, 4, dtype=torch.double, requires_grad=True)
    whole = network(u)
    gradients = torch.autograd.grad(whole.square().sum(), list(network.parameters()))
    monkeypatch.setattr(fno, "_PROJECTED", 1)
    parts = network(u)
    torch.testing.assert_close(parts, whole)
    again = torch.autograd.grad(parts.square().sum(), list(network.parameters()))
    torch.testing.assert_close(again, gradients)
    with torch.no_grad():
        torch.testing.assert_close(network(u), whole)
    assert torch.autograd.gradgradcheck(network, u, fast_mode=True)


def test_a_network_first_used_for_answers_can_be_trained():
    network, u = FNO(1, 1, [3], width=4), torch.randn(2, 1, 23)
    with torch.inference_mode():
        network(u)
    network(u).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_the_network_of_the_cape_paper_has_72509_entries():
    # 4 blocks of 36 x 36 complex numbers for 12 modes, see 2304.14118; a complex number is one
    network = FNO(1, 1, [12], width=36)
    counted = sum(p.numel() // (2 if p.ndim == 4 else 1) for p in network.parameters())
    assert counted == 72509


@given(st.integers(0, 31), st.integers(0, 15))
def test_on_a_periodic_grid_a_shifted_field_gives_the_shifted_field(along, across):
    torch.manual_seed(0)
    network = FNO(2, 1, [4, 5], width=6, grid_channels=False)
    u = torch.randn(1, 2, 32, 16)
    moved = torch.roll(u, (along, across), dims=(2, 3))
    expected = torch.roll(network(u), (along, across), dims=(2, 3))
    torch.testing.assert_close(network(moved), expected, rtol=1e-4, atol=1e-6)


def test_coordinates_break_that():
    network = FNO(1, 1, [4], width=6)
    u = torch.randn(1, 1, 32)
    assert not torch.allclose(network(u.roll(5, 2)), network(u).roll(5, 2), atol=1e-4)


def test_the_affine_part_of_a_smooth_field_does_not_depend_on_the_number_of_points():
    layer = SpectralConv(1, 1, [6], bias=True).double()

    def of(n):
        return layer((wave(n, 1) + wave(n, 4, 0.1) + 0.3)[None, None])

    torch.testing.assert_close(of(128)[..., ::4], of(32))


def test_a_network_gives_the_same_on_a_finer_grid_to_what_the_coarse_one_resolves():
    # GELU makes new frequencies, and those beyond the coarse grid are all that differs
    torch.manual_seed(0)
    network = FNO(1, 1, [8], width=16, grid_channels=False).double()
    for layer in network.spectral:
        torch.nn.init.uniform_(layer.weight, 0.0, 0.1)  # so large that the field matters

    def of(n):
        return network((wave(n, 1) + wave(n, 2, 0.1))[None, None])

    fine = of(1024)
    for n, bar in ((32, 1e-8), (128, 1e-12)):
        assert (of(n) - fine[..., :: 1024 // n]).abs().max() < bar * fine.std()


@pytest.mark.parametrize("padding", [5, 0.25])
def test_padding_puts_zeros_after_each_axis_before_the_blocks(padding):
    network = FNO(1, 1, [3, 4], width=4, depth=1, padding=padding).double()
    u = torch.randn(2, 1, 20, 20, dtype=torch.double)
    lifted = torch.nn.functional.pad(network.lift(network._inputs(u, None)), [0, 5, 0, 5])
    spectral, pointwise = network.spectral[0], network.pointwise[0]
    block = usual(spectral, lifted) + spectral.bias[:, None, None] + pointwise(lifted)
    hidden, out = network.project
    by_hand = out(torch.nn.functional.gelu(hidden(block[..., :20, :20])))
    torch.testing.assert_close(network(u), by_hand)


def test_parameters_are_further_channels_that_are_constant():
    torch.manual_seed(0)
    told, wide = FNO(1, 1, [4], width=8, num_params=2), FNO(3, 1, [4], width=8)
    wide.load_state_dict(told.state_dict())
    u, p = torch.randn(2, 1, 16), torch.randn(2, 2)
    beside = torch.cat([u, p[..., None].expand(-1, -1, 16)], dim=1)
    torch.testing.assert_close(told(u, p), wide(beside))


def test_parameters_are_not_looked_at_unless_asked_for():
    network, u = FNO(1, 1, [4], width=8), torch.randn(2, 1, 16)
    torch.testing.assert_close(network(u, torch.randn(2, 3)), network(u))


def test_settings_build_a_twin():
    network = FNO(2, 1, (4, 3), width=5, depth=2, projection=7, padding=0.1, num_params=1)
    twin = build(json.loads(json.dumps(network.describe())))
    twin.load_state_dict(network.state_dict())
    u, p = torch.randn(2, 2, 12, 10), torch.randn(2, 1)
    torch.testing.assert_close(twin(u, p), network(u, p))


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ((8, 8, 8), "2 axes of space"),
        ((7, 16), "points"),
        ((16, 5), "points"),
        ((16,), "2 axes of space"),
    ],
)
def test_fields_with_too_few_points_or_axes_are_refused(space, sentence):
    with pytest.raises(UserError, match=sentence):
        FNO(1, 1, [4, 4], width=4)(torch.randn(2, 1, *space))


def test_the_fewest_points_are_taken():
    assert FNO(1, 1, [4, 4], width=4)(torch.randn(2, 1, 8, 6)).shape == (2, 1, 8, 6)


def test_wrong_channels_and_parameters_are_refused():
    network = FNO(2, 1, [4], width=4, num_params=3)
    with pytest.raises(UserError, match="2 channels"):
        network(torch.randn(2, 1, 16), torch.randn(2, 3))
    for p in (None, torch.randn(2, 2), torch.randn(1, 3)):
        with pytest.raises(UserError, match="parameters must have shape"):
            network(torch.randn(2, 2, 16), p)


@pytest.mark.parametrize(
    "wrong", [{"modes": []}, {"modes": [0]}, {"modes": [4] * 4}, {"width": 0}, {"padding": -1}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(UserError):
        FNO(**{"in_channels": 1, "out_channels": 1, "modes": [4], **wrong})


@pytest.mark.parametrize("case", ["1d", "2d"])
def test_neuraloperator_with_the_same_weights_gives_the_same(case, monkeypatch):
    pytest.importorskip("neuralop")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks" / "peers"))
    sys.modules.pop("speed_operators", None)
    import speed_operators

    mine, theirs = speed_operators.neuraloperator(speed_operators.CASES[case])
    u = torch.randn(2, 1, *speed_operators.CASES[case]["space"])
    torch.testing.assert_close(mine(u), theirs(u), rtol=1e-4, atol=1e-5)
