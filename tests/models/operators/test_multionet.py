"""MultiONet against its definition and the sizes of the paper."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import UserError
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.multionet import (
    ACTIVATIONS,
    FieldMultiONet,
    MultiONet,
    VectorMultiONet,
    cell_points,
)
from understudy.models.operators.training import Training

kinds = st.sampled_from(sorted(ACTIVATIONS))


def spoken(network):
    """Network whose factors are not zero."""
    with torch.no_grad():
        network.w.uniform_(-1.0, 1.0)
        network.b.fill_(0.3)
    return network


def test_it_has_as_many_weights_as_that_of_the_paper():
    # 2 * 80 + 80, 128 * 80 + 80, twelve layers of 80 * 80 + 80, six factors, one constant
    assert sum(p.numel() for p in MultiONet(2, 128).parameters()) == 88_327


def test_every_layer_speaks_as_the_definition_says():
    torch.manual_seed(0)
    network = spoken(MultiONet(2, 5, [7, 7, 7]).double())
    x, beta = torch.rand(4, 2).double(), torch.randn(3, 5).double()

    def act(z):
        return torch.tanh(torch.sin(torch.pi * (z + 1))) + z

    t, g = act(network.x_net[0](x)), act(network.latent_net[0](beta))
    total = torch.zeros(3, 4).double()
    for k in range(3):
        t, g = act(network.x_net[k + 1](t)), act(network.latent_net[k + 1](g))
        total += network.w[k] * g @ t.T
    torch.testing.assert_close(network(x, beta), network.b + total / 3)


def test_with_the_last_layer_alone_it_is_a_deeponet():
    torch.manual_seed(0)
    whole = spoken(MultiONet(2, 5, [7, 7]))
    last = MultiONet(2, 5, [7, 7], last_only=True)
    state = whole.state_dict()
    last.load_state_dict({**state, "w": state["w"][-1:] / 2})
    with torch.no_grad():
        whole.w[0] = 0.0
    x, beta = torch.rand(4, 2), torch.randn(3, 5)
    torch.testing.assert_close(whole(x, beta), last(x, beta))


def test_several_outputs_are_weighed_sums_over_the_numbers_of_the_vector():
    torch.manual_seed(0)
    network = VectorMultiONet(2, 5, 3, [7, 7]).double()
    x, beta = torch.rand(4, 2).double(), torch.randn(6, 5).double()

    def act(z):
        return torch.tanh(torch.sin(torch.pi * (z + 1))) + z

    t, g = act(network.x_net[0](x)), act(network.latent_net[0](beta[..., None]))
    total = torch.zeros(6, 4, 5).double()
    for k in range(2):
        t, g = act(network.x_net[k + 1](t)), act(network.latent_net[k + 1](g))
        total += torch.einsum("nh,bmh->bnm", t, g)
    torch.testing.assert_close(network(x, beta), network.out(total / 2).mT)


def test_it_starts_from_zero():
    assert not MultiONet(2, 3, [4])(torch.rand(5, 2), torch.randn(2, 3)).any()


@given(kind=kinds, last=st.booleans(), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_gradients_of_its_functions_are_those_of_automatic_differentiation(kind, last, seed):
    torch.manual_seed(seed)
    network = spoken(MultiONet(2, 3, [5, 5], kind, last).double())
    x = torch.rand(6, 2).double().requires_grad_()
    beta = torch.randn(1, 3).double()
    (wanted,) = torch.autograd.grad(network(x, beta).sum(), x)
    values, rates = network.basis_with_gradient(x)
    torch.testing.assert_close(values, network.basis(x))
    c = network.coefficients(beta)
    torch.testing.assert_close((c @ rates.mT)[:, 0].T, wanted)


def test_centres_of_cells_have_the_last_axis_fastest():
    wanted = torch.tensor([[0.125, 0.125], [0.125, 0.375]], dtype=torch.float64)
    torch.testing.assert_close(cell_points((4, 4))[:2], wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 3, [4, 5]), "all layers of one width"),
        ((2, 3, []), "at least one layer"),
        ((2, 3, [4], "relu"), "tanh-sin"),
    ],
)
def test_what_it_cannot_be_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        MultiONet(*arguments)


def test_as_a_map_of_fields_it_learns_and_is_kept(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(40, 1, 4, 4)
    y = (1 + x[:, :, :1, :1].tanh()) * torch.linspace(0, 1, 16).reshape(1, 1, 4, 4)
    model = FieldMap(FieldMultiONet(1, 1, [4, 4], [16, 16]))
    model.fit(x, y, training=Training(steps=300, learning_rate=1e-2, batch_size=20))
    error = (model.predict(x) - y).norm() / y.norm()
    assert float(error) < 0.2
    again = FieldMap.load(model.save(tmp_path / "map.us"))
    torch.testing.assert_close(again.predict(x), model.predict(x))


def test_one_network_gives_several_fields_and_is_kept(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(40, 1, 4, 4)
    ramp = torch.linspace(0, 1, 16).reshape(1, 1, 4, 4)
    first = x[:, :, :1, :1].tanh()
    y = torch.cat([first * ramp, 1 - first * ramp.square()], 1)
    model = FieldMap(FieldMultiONet(1, 2, [4, 4], [16, 16], shared=True))
    model.fit(x, y, training=Training(steps=300, learning_rate=1e-2, batch_size=20))
    assert float((model.predict(x) - y).norm() / (y - y.mean(0)).norm()) < 0.4
    again = FieldMap.load(model.save(tmp_path / "map.us"))
    torch.testing.assert_close(again.predict(x), model.predict(x))
    with pytest.raises(UserError, match="speaks from all layers"):
        FieldMultiONet(1, 2, [4, 4], [8], last_only=True, shared=True)


def test_fields_of_other_sizes_are_refused():
    with pytest.raises(UserError, match=r"\(1, 4, 4\) expected, found \(1, 5, 5\)"):
        FieldMultiONet(1, 1, [4, 4], [8])(torch.zeros(2, 1, 5, 5))
