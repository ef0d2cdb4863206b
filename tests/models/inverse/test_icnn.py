"""Input-convex networks are convex, smooth, and as large as the paper's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from understudy.core.errors import UserError
from understudy.models.inverse.icnn import ConvexConvNet, ConvexNetwork, InputConvexNet, build


def networks() -> list[ConvexNetwork]:
    """One of each kind, with weights that are large enough to bend."""
    torch.manual_seed(0)
    nets: list[ConvexNetwork] = [
        InputConvexNet(dim=3, hidden=12, layers=2, alpha=0.05),
        ConvexConvNet(channels=2, size=8, hidden=6, beta=10.0),
        ConvexConvNet.patches(channels=1, size=16, hidden=6, head=5),
    ]
    for net in nets:
        for weight in net.convex_weights():
            nn.init.uniform_(weight, 0.0, 0.3)
    return nets


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_networks_have_as_many_weights_as_those_of_the_paper():
    assert count(InputConvexNet()) == 10_502
    assert count(ConvexConvNet()) == 317_056
    assert count(ConvexConvNet.patches(3)) == 7_235_713
    assert count(ConvexConvNet.patches(1)) == 7_175_297


@pytest.mark.parametrize("network", networks(), ids=lambda n: f"{n.kind}-{n.shape}")
def test_values_lie_below_their_chords(network):
    a, b = 3.0 * torch.randn(2, 64, *network.shape)
    share = torch.rand(64, *[1] * len(network.shape))
    with torch.no_grad():
        between = network(share * a + (1.0 - share) * b)
        t = share.flatten()
        chord = t * network(a) + (1.0 - t) * network(b)
    assert bool((between <= chord + 1e-4 * chord.abs()).all())
    assert bool((between < chord - 1e-3).any())  # and it does bend


@pytest.mark.parametrize("network", networks(), ids=lambda n: f"{n.kind}-{n.shape}")
def test_without_projection_a_negative_weight_breaks_convexity_and_projection_mends_it(network):
    with torch.no_grad():
        for weight in network.convex_weights():
            weight.neg_()
    network.project()
    assert all(bool((weight >= 0.0).all()) for weight in network.convex_weights())


def test_only_weights_between_features_are_projected():
    network = ConvexConvNet(size=8, hidden=4)
    with torch.no_grad():
        for p in network.parameters():
            p.fill_(-1.0)
    network.project()
    negative = {name for name, p in network.named_parameters() if bool((p < 0.0).any())}
    assert not negative & {"across.0.weight", "across.2.weight", "head.weight", "last.weight"}
    assert {"first.weight", "skips.0.weight", "skips.0.bias", "head_skip.weight"} <= negative


def test_weights_of_image_networks_start_at_exp_of_minus_ten():
    logs = torch.cat([w.detach().flatten().log() for w in ConvexConvNet().convex_weights()])
    assert float(logs.mean()) == pytest.approx(-10.0, abs=0.01)
    assert float(logs.std()) == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("network", networks(), ids=lambda n: f"{n.kind}-{n.shape}")
def test_a_description_builds_an_untrained_twin(network):
    twin = build(network.describe())
    twin.load_state_dict(network.state_dict())
    x = torch.randn(3, *network.shape)
    torch.testing.assert_close(twin(x), network(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InputConvexNet(beta=0.0), "beta, the sharpness"),
        (lambda: InputConvexNet(alpha=-1.0), "alpha must not be negative"),
        (lambda: InputConvexNet(hidden=0), "hidden must be at least 1"),
        (lambda: ConvexConvNet(size=30), "a multiple of 4 points"),
        (lambda: ConvexConvNet(size=27), "a multiple of 4 points"),
        (lambda: ConvexConvNet(strides=(2, 1)), "strides must start with 1"),
        (lambda: build({"kind": "lstm", "settings": {}}), "no convex network is called 'lstm'"),
        (lambda: build({"kind": "dense", "settings": {"depth": 3}}), "cannot have these settings"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
