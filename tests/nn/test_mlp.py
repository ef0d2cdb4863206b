"""Stacked perceptrons: each is an ordinary one."""

import pytest
import torch
from torch.nn import functional as F

from understudy.nn.mlp import ACTIVATIONS, BatchedMLP

SIZES = (3, 8, 6, 2)


def network(activation: str = "silu", **options) -> BatchedMLP:
    return BatchedMLP(4, SIZES, activation, seed=1, dtype=torch.float64, **options)


def alone(mlp: BatchedMLP, b: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and last hidden layer of one network, layer by layer."""
    for weight, bias in zip(mlp.weights[:-1], mlp.biases[:-1], strict=True):
        x = mlp.activation(F.linear(x, weight[b].T, bias[b, 0]))
    return F.linear(x, mlp.weights[-1][b].T, mlp.biases[-1][b, 0]), x


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_network_is_a_chain_of_linear_layers(activation):
    mlp, x = network(activation), torch.randn(5, 3, dtype=torch.float64)
    outputs, hidden = mlp(x), mlp.features(x)
    for b in range(4):
        wanted, features = alone(mlp, b, x)
        assert torch.allclose(outputs[b], wanted)
        assert torch.allclose(hidden[b], features)


def test_networks_may_have_inputs_of_their_own():
    mlp, x = network(), torch.randn(4, 5, 3, dtype=torch.float64)
    outputs = mlp(x)
    for b in range(4):
        assert torch.allclose(outputs[b], alone(mlp, b, x[b])[0])


def test_some_of_the_networks_are_those_of_all():
    mlp, x = network(), torch.randn(5, 3, dtype=torch.float64)
    which = slice(1, 3)
    assert torch.allclose(mlp(x, which), mlp(x)[which])
    assert torch.allclose(mlp(x.expand(2, 5, 3), which), mlp(x)[which])
    assert torch.allclose(mlp.features(x, which), mlp.features(x)[which])


def test_gradients_of_one_network_leave_the_others_alone():
    mlp, x = network(), torch.randn(5, 3, dtype=torch.float64)
    mlp(x)[2].square().sum().backward()
    for parameter in mlp.parameters():
        assert bool(parameter.grad[2].any())
        assert not bool(parameter.grad[[0, 1, 3]].any())


def test_a_perceptron_without_hidden_layers_is_linear():
    mlp, x = BatchedMLP(2, (3, 2)), torch.randn(5, 3)
    assert torch.allclose(mlp(x), x @ torch.stack(list(mlp.weights[0])) + mlp.biases[0])


def test_weights_are_drawn_with_the_gain_asked_for():
    mlp = BatchedMLP(50, (100, 80, 60), gain=1.5, last_gain=0.2)
    assert float(mlp.weights[0].detach().std()) * 10.0 == pytest.approx(1.5, rel=0.02)
    assert float(mlp.weights[1].detach().std()) * 80.0**0.5 == pytest.approx(0.2, rel=0.02)
    assert float(mlp.biases[0].detach().abs().max()) <= 0.1


def test_the_seed_decides_the_weights():
    first, same, other = (BatchedMLP(2, SIZES, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.weights[0], same.weights[0])
    assert not torch.equal(first.weights[0], other.weights[0])
    assert not torch.equal(first.weights[0][0], first.weights[0][1])


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="swish"):
        BatchedMLP(1, SIZES, "swish")
