"""The transformer over rows: who sees whom."""

import pytest
import torch

from understudy.nn.in_context import Architecture, PFNTransformer


@pytest.fixture
def network() -> PFNTransformer:
    torch.manual_seed(0)
    made = PFNTransformer(Architecture(features=3, outputs=7, width=32, depth=3, heads=4)).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def rows(n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, n, 3, generator=generator, dtype=torch.float64)
    return x, torch.randn(2, n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("context", [0, 1, 5, 11])
def test_training_and_use_give_the_same_answers(network, context):
    x, y = rows()
    memory = network.remember(x[:, :context], y[:, :context])
    assert torch.allclose(network(x, y, context), network.answer(memory, x[:, context:]))


def test_the_order_of_the_context_does_not_matter(network):
    x, y = rows()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    memory = network.remember(x[:, :8], y[:, :8])
    again = network.remember(x[:, :8][:, order], y[:, :8][:, order])
    assert torch.allclose(network.answer(memory, x[:, 8:]), network.answer(again, x[:, 8:]))


def test_questions_do_not_see_one_another(network):
    x, y = rows()
    other = x.clone()
    other[:, -1] += 5.0
    before, after = network(x, y, 8), network(other, y, 8)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_outcomes_of_questions_are_not_looked_at(network):
    x, y = rows()
    hidden = y.clone()
    hidden[:, 8:] = torch.nan
    assert torch.equal(network(x, y, 8), network(x, hidden, 8))


def test_one_data_set_serves_a_batch_of_questions(network):
    x, y = rows()
    memory = network.remember(x[:1, :8], y[:1, :8])
    many = torch.randn(5, 4, 3, dtype=torch.float64)
    each = torch.cat([network.answer(memory, part.unsqueeze(0)) for part in many])
    assert torch.allclose(network.answer(memory, many), each)


def test_layers_start_as_norms_alone_and_alike():
    network = PFNTransformer(Architecture(features=2, outputs=3, width=16, depth=2, heads=2))
    first, second = network.layers
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    x, y = torch.randn(1, 6, 2), torch.randn(1, 6)
    assert torch.allclose(network(x, y, 4), network(x, y + 1.0, 4), atol=1e-6)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        Architecture(features=1, outputs=1, width=10, heads=4)
