"""SOAP: Adam where it is Adam, better where the axes are the trouble."""

import pytest
import torch
from torch import Tensor, nn

from understudy.nn.soap import SOAP, groups_of


def rotation(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q


def some(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def descend(start: Tensor, loss, steps: int, **options) -> Tensor:
    weight = nn.Parameter(start.clone())
    optimizer = SOAP([weight], **options)
    for _ in range(steps):
        (weight.grad,) = torch.autograd.grad(loss(weight), weight)
        optimizer.step()
    return weight.detach()


def valley(size: int, condition: float, turned: bool = True):
    """Quadratic in a matrix whose curvature differs among directions; its minimum is 0 at 1."""
    scales = torch.logspace(0.0, -torch.tensor(condition).log10().item(), size).double()
    left = rotation(size, 1) if turned else torch.eye(size).double()
    right = rotation(size, 2) if turned else torch.eye(size).double()

    def loss(weight: Tensor) -> Tensor:
        away = left.mT @ (weight - 1.0) @ right
        return (torch.outer(scales, scales) * away.square()).sum()

    return loss


def test_it_finds_the_floor_of_a_turned_valley_sooner_than_adam():
    loss, start = valley(6, condition=100.0), some(6, 6)
    options = {"lr": 3e-2, "every": 5}
    found = float(loss(descend(start, loss, 300, **options)))
    adam = float(loss(descend(start, loss, 300, largest_side=1, **options)))
    assert found < 1e-4 * float(loss(start))
    assert found < 0.5 * adam


@pytest.mark.parametrize("shape", [(7,), (1, 7), (7, 1), (3, 7, 1)])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_vectors_get_adam(shape, decay):
    start = torch.linspace(-1.0, 2.0, 7 * max(1, shape[0] if len(shape) == 3 else 1))
    start = start.double().reshape(shape)

    def loss(weight: Tensor) -> Tensor:
        return (weight - 0.3).pow(4).sum() + weight.sum().square()

    weight = start.clone()
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for t in range(1, 21):  # Kingma & Ba (2015), algorithm 1, with decoupled decay
        g = torch.autograd.functional.jacobian(loss, weight)
        first, second = 0.9 * first + 0.1 * g, 0.99 * second + 0.01 * g.square()
        update = first / (1 - 0.9**t) / ((second / (1 - 0.99**t)).sqrt() + 1e-8)
        weight = weight - 0.02 * (decay * weight + update)
    found = descend(start, loss, 20, lr=0.02, betas=(0.9, 0.99), weight_decay=decay)
    assert torch.allclose(found, weight, rtol=1e-10)


def test_it_is_adam_where_the_eigenvectors_are_the_axes():
    start = torch.diag(torch.tensor([3.0, -2.0, 1.0, 0.5], dtype=torch.float64))

    def loss(weight: Tensor) -> Tensor:
        return (torch.tensor([4.0, 1.0, 0.3, 0.1]).double() * weight.diagonal().square()).sum()

    options = {"lr": 0.05, "every": 4}
    assert torch.allclose(
        descend(start, loss, 40, **options),
        descend(start, loss, 40, largest_side=1, **options),
        rtol=1e-9,
        atol=1e-12,
    )


def test_its_path_does_not_depend_on_the_axes():
    start = some(5, 5)
    left, right = rotation(5, 3), rotation(5, 4)
    plain = valley(5, condition=10.0)

    def turned(weight: Tensor) -> Tensor:
        return plain(left.mT @ weight @ right)

    options = {"lr": 0.02, "every": 5}
    for side, same in ((512, True), (1, False)):  # Adam's path does
        path = descend(start, plain, 15, largest_side=side, **options)
        other = descend(left @ start @ right.mT, turned, 15, largest_side=side, **options)
        away = float((left @ path @ right.mT - other).abs().max())
        assert away < 1e-6 if same else away > 1e-2


def test_networks_of_a_stack_are_trained_each_as_if_alone():
    start = some(3, 4, 4)
    scale = torch.tensor([1.0, 20.0, 0.1]).double().reshape(3, 1, 1)

    def loss(weight: Tensor) -> Tensor:
        return (scale * (weight - 0.5).square()).sum() + (weight @ weight.mT).square().sum()

    together = descend(start, loss, 25, every=5)
    for b in range(3):

        def own(weight: Tensor, b: int = b) -> Tensor:
            return (
                scale[b, 0, 0] * (weight - 0.5).square().sum() + (weight @ weight.mT).square().sum()
            )

        assert torch.allclose(together[b], descend(start[b], own, 25, every=5), atol=1e-5)


def test_kernels_are_matrices_of_their_patches():
    start = some(4, 2, 3, 3)
    target = some(4, 18) / 3.0

    def loss(weight: Tensor) -> Tensor:
        away = weight.reshape(4, 18) - target
        return away.square().sum() + (away @ away.mT).square().sum()

    kernel = descend(start, loss, 25, every=5, kernels=True)
    matrix = descend(start.reshape(4, 18), loss, 25, every=5)
    assert torch.allclose(kernel.reshape(4, 18), matrix)
    assert not torch.allclose(kernel, descend(start, loss, 25, every=5))


def test_every_weight_is_in_one_group_and_kernels_in_theirs():
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.GELU(), nn.Conv2d(3, 1, 1), nn.Linear(4, 4))
    network[2].weight.requires_grad_(False)
    kernels, rest = groups_of(network)
    assert kernels["kernels"] and kernels["params"] == [network[0].weight]
    trained = {p for p in network.parameters() if p.requires_grad}
    assert len(rest["params"]) == len(trained) - 1
    assert {*kernels["params"], *rest["params"]} == trained
    assert len(groups_of(nn.Linear(3, 2))) == 1


def test_weights_decay_by_themselves():
    weight = nn.Parameter(torch.full((3, 3), 2.0))
    optimizer = SOAP([weight], lr=0.1, weight_decay=0.5)
    for _ in range(4):
        weight.grad = torch.zeros(3, 3)
        optimizer.step()
    assert torch.allclose(weight, torch.full((3, 3), 2.0 * 0.95**4))


def test_groups_have_options_of_their_own():
    slow, fast = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimizer = SOAP([{"params": [slow], "lr": 0.0}, {"params": [fast]}], lr=0.1)
    for parameter in (slow, fast):
        parameter.grad = torch.eye(2)
    optimizer.step()
    assert torch.equal(slow, torch.ones(2, 2))
    assert not torch.equal(fast, torch.ones(2, 2))


def test_parameters_without_a_gradient_are_left_alone():
    weight = nn.Parameter(torch.ones(2, 2))
    SOAP([weight]).step()
    assert torch.equal(weight, torch.ones(2, 2))


def test_it_goes_on_from_its_state():
    loss, start = valley(4, condition=10.0), some(4, 4)
    weight = nn.Parameter(start.clone())
    optimizer = SOAP([weight], every=4)
    for step in range(20):
        if step == 10:
            state = optimizer.state_dict()
            optimizer = SOAP([weight], every=4)
            optimizer.load_state_dict(state)
        (weight.grad,) = torch.autograd.grad(loss(weight), weight)
        optimizer.step()
    assert torch.equal(weight, descend(start, loss, 20, every=4))
