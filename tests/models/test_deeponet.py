import json
import math

import pytest
import torch
from torch import nn

from understudy.core.errors import UserError
from understudy.models.operators.deeponet import (
    DeepONet,
    FourierFeatures,
    ModifiedMLP,
    PlainMLP,
)
from understudy.models.operators.network import build


def test_waves_stand_beside_the_coordinates():
    y = torch.tensor([[0.25, -0.5]])
    found = FourierFeatures([1.0, 2.0])(y)
    expected = [0.25, -0.5]
    for f in (1.0, 2.0):
        expected += [math.cos(2 * math.pi * f * v) for v in (0.25, -0.5)]
        expected += [math.sin(2 * math.pi * f * v) for v in (0.25, -0.5)]
    torch.testing.assert_close(found, torch.tensor([expected]), rtol=1e-5, atol=1e-6)
    assert found.shape[1] == FourierFeatures([1.0, 2.0]).features(2)


def test_without_frequencies_coordinates_are_left_alone():
    y = torch.randn(3, 2)
    torch.testing.assert_close(FourierFeatures()(y), y)


@pytest.mark.parametrize("gate_first", [False, True])
@pytest.mark.parametrize("linear", [False, True])
def test_a_modified_perceptron_is_its_equations(gate_first, linear):
    network = ModifiedMLP(
        *(3, 5, 3, 2), activation="tanh", gate_first=gate_first, linear_encoders=linear
    )
    x = torch.randn(4, 3)
    U, V = (encoder(x) if linear else torch.tanh(encoder(x)) for encoder in network.encoders)
    first, second, third, last = network.layers
    H = torch.tanh(first(x))
    if gate_first:
        H = H * U + (1 - H) * V
    for layer in (second, third):
        Z = torch.tanh(layer(H))
        H = Z * U + (1 - Z) * V
    torch.testing.assert_close(network(x), last(H))


@pytest.mark.parametrize("kind", [ModifiedMLP, PlainMLP])
def test_the_factor_of_sine_networks_is_on_the_first_product_only(kind):
    network = kind(3, 5, 1, 2, activation="sin", omega=30.0)
    nn.init.normal_(network.layers[0].bias)
    x = torch.randn(4, 3)
    first, last = network.layers
    hidden = torch.sin(30.0 * x @ first.weight.T + first.bias)
    torch.testing.assert_close(network(x), last(hidden), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [ModifiedMLP, PlainMLP])
def test_sine_networks_start_within_the_bounds_of_their_paper(kind):
    torch.manual_seed(0)
    network = kind(4, 50, 3, 2, activation="sin", omega=30.0)
    first = [network.layers[0], *getattr(network, "encoders", [])]
    for layer in first:
        assert 0.9 / 4 < float(layer.weight.detach().abs().max()) <= 1 / 4
    for layer in network.layers[1:]:
        bound = math.sqrt(6 / 50) / 30
        assert 0.8 * bound < float(layer.weight.detach().abs().max()) <= bound
    assert not any(layer.bias.any() for layer in [*first, *network.layers])


def test_hidden_units_of_a_plain_sine_network_keep_their_spread():
    # sin of a normal number of variance 1 has variance (1 - e^-2)/2, see 2006.09661
    torch.manual_seed(0)
    network = PlainMLP(1, 512, 4, 512, activation="sin")
    network.layers[-1] = nn.Identity()
    h = network(torch.linspace(-1, 1, 512)[:, None])
    assert abs(float(h.detach().var()) - 0.432) < 0.08


def test_outputs_are_sums_of_products_of_branch_and_trunk():
    network = DeepONet(2, 3, [5, 4], num_basis=7, width=8, depth=2, frequencies=[1.0])
    nn.init.normal_(network.bias)
    u, y = torch.randn(2, 2, 5, 4), torch.rand(6, 2)
    B = network.branch(u.flatten(1)).reshape(2, 3, 7)
    T = network.trunk(network.features(2 * y - 1))
    expected = torch.einsum("bck,mk->bcm", B, T) + network.bias[:, None]
    torch.testing.assert_close(network.at(y, u), expected)


def test_points_may_differ_from_field_to_field():
    network = DeepONet(1, 2, [6], num_basis=5, width=8, depth=2)
    u, y = torch.randn(3, 1, 6), torch.rand(3, 4, 1)
    found = network.at(y, u)
    for i in range(3):
        torch.testing.assert_close(found[i : i + 1], network.at(y[i], u[i : i + 1]))


def test_on_a_grid_it_is_asked_at_the_grid():
    network = DeepONet(1, 1, [4, 6], num_basis=5, width=8, depth=2, num_params=1)
    u, p = torch.randn(2, 1, 4, 6), torch.randn(2, 1)
    points = torch.cartesian_prod(torch.arange(4) / 4, torch.arange(6) / 6)
    torch.testing.assert_close(network(u, p), network.at(points, u, p).reshape(2, 1, 4, 6))


@pytest.mark.parametrize("architecture", ["modified", "plain"])
@pytest.mark.parametrize("activation", ["tanh", "sin"])
def test_gradients_by_points_and_fields_are_right(architecture, activation):
    torch.manual_seed(0)
    network = DeepONet(
        *(1, 2, [3]),
        **{"num_basis": 3, "width": 4, "depth": 2, "architecture": architecture},
        **{"activation": activation, "frequencies": [1.0]},
    ).double()
    u = torch.randn(2, 1, 3, dtype=torch.double, requires_grad=True)
    y = torch.rand(3, 1, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(network.at, (y, u))


def test_settings_build_a_twin():
    network = DeepONet(1, 2, (5,), num_basis=4, width=6, depth=2, frequencies=(0.5,), num_params=2)
    twin = build(json.loads(json.dumps(network.describe())))
    twin.load_state_dict(network.state_dict())
    u, p = torch.randn(2, 1, 5), torch.randn(2, 2)
    torch.testing.assert_close(twin(u, p), network(u, p))


def test_it_learns_an_integral():
    # u = a cos(2 pi x) + b sin(2 pi x), G u = the integral from 0
    torch.manual_seed(0)
    x = torch.arange(16) / 16
    a, b = torch.randn(64, 1), torch.randn(64, 1)
    turn = 2 * torch.pi * x
    u = (a * turn.cos() + b * turn.sin())[:, None]
    y = ((a * turn.sin() + b * (1 - turn.cos())) / (2 * torch.pi))[:, None]
    network = DeepONet(1, 1, [16], num_basis=10, width=32, depth=2, frequencies=[0.5])
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(250):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(network(u), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02 * float(y.var())


def test_what_does_not_fit_is_refused():
    network = DeepONet(1, 1, [8], width=8, num_params=1)
    p = torch.randn(2, 1)
    with pytest.raises(UserError, match="sensors"):
        network(torch.randn(2, 1, 9), p)
    with pytest.raises(UserError, match="1 channels"):
        network(torch.randn(2, 2, 8), p)
    with pytest.raises(UserError, match="parameters"):
        network(torch.randn(2, 1, 8))
    for wrong in ({"activation": "step"}, {"depth": 0}, {"architecture": "deep"}, {"width": 0}):
        with pytest.raises(UserError):
            DeepONet(1, 1, [8], **wrong)
