"""Units of operators."""

import torch

from understudy.core.grid import Grid
from understudy.core.operator import Operator
from understudy.core.scaling import Scaling


class Doubling(Operator):
    grid, inputs, outputs, parameters = Grid.of(4, 4), ("a", "b"), ("a", "b"), ("nu",)

    def predict(self, u, params=None):
        return 2.0 * u


def test_an_operator_without_units_sees_fields_and_parameters_as_they_are():
    operator, u, p = Doubling(), torch.randn(3, 2, 4, 4), torch.randn(3, 1)
    assert torch.equal(operator.field_units.forward(u), u)
    assert torch.equal(operator.parameter_units.inverse(p), p)
    assert operator.field_units.shift.shape == (1, 2, 1, 1)


def test_scaled_values_come_back():
    x = 3.0 + 5.0 * torch.randn(200, 2)
    scaling = Scaling.of(x, (0,))
    z = scaling.forward(x)
    torch.testing.assert_close(z.std(0), torch.ones(2))
    torch.testing.assert_close(scaling.inverse(z), x)


def test_what_never_varies_is_not_divided_by_nothing():
    scaling = Scaling.of(torch.full((5, 1), 7.0), (0,))
    assert torch.equal(scaling.forward(torch.full((1, 1), 8.0)), torch.ones(1, 1))
