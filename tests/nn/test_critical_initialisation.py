"""Critical initialisation of modules, their learning rates, and the audit."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from understudy.core.errors import UserError
from understudy.nn.critical_initialisation import (
    critical_init_,
    equivalent_learning_rates,
    equivalent_rates,
)
from understudy.nn.criticality import find_critical_point
from understudy.nn.initialisation_audit import audit_initialisation
from understudy.nn.signal_propagation import SignalPropagation


def perceptron(activation=nn.ReLU, depth=6, width=200, inputs=20, outputs=10, bias=True):
    parts = []
    for layer in range(depth - 1):
        parts += [nn.Linear(width if layer else inputs, width, bias=bias), activation()]
    return nn.Sequential(*parts, nn.Linear(width, outputs, bias=bias))


def rows(m=200, d=20):
    return 5.0 * torch.randn(m, d, generator=torch.Generator().manual_seed(1))


class Functional(nn.Module):
    """A residual network that calls its activation as a function."""

    def __init__(self, gamma=0.5, depth=5, width=300):
        super().__init__()
        self.first = nn.Linear(20, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.gamma = gamma

    def forward(self, x):
        z = self.first(x)
        for layer in self.hidden:
            z = layer(F.gelu(z)) + self.gamma * z
        return z


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU])
def test_a_module_initialised_critically_is_found_critical(activation):
    model = perceptron(activation)
    critical_init_(model, inputs=rows())
    audit = audit_initialisation(model, rows())
    assert audit.critical and not audit.findings
    assert audit.text.startswith("Critical: 6 layers")
    assert audit.gradient_ratio == pytest.approx(audit.gradient_ratio_predicted, rel=0.5)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU])
def test_the_default_initialisation_is_found_to_vanish(activation):
    torch.manual_seed(0)
    audit = audit_initialisation(perceptron(activation, depth=8), rows())
    assert not audit.critical
    assert audit.gradient_growth < 0.1
    assert "C_W of layers 2, 3, 4, 5, 6, 7, 8" in audit.text and "vanish" in audit.text


def test_weights_that_are_too_large_are_found_to_explode():
    model = perceptron(depth=10)
    critical_init_(model)
    with torch.no_grad():
        for part in model:
            if isinstance(part, nn.Linear):
                part.weight.mul_(math.sqrt(1.5))
    audit = audit_initialisation(model, rows())
    assert not audit.critical
    assert audit.signal_growth == pytest.approx(1.5**9, rel=0.3)
    assert "The signals explode" in str(audit)


def test_an_activation_without_criticality_is_reported_with_its_reason():
    audit = audit_initialisation(perceptron(nn.Sigmoid), rows())
    assert not audit.critical and math.isnan(audit.signal_growth)
    assert "sigmoid has no critical initialisation: phi(0) = 0.5" in audit.text


def test_predicted_variances_are_those_found():
    model = perceptron(nn.Tanh, depth=5, width=500)
    critical_init_(model, inputs=rows())
    for layer in audit_initialisation(model, rows()).layers[:-1]:
        assert math.isclose(layer.K, layer.K_predicted, rel_tol=0.1)


def test_a_residual_network_with_a_functional_activation_is_covered():
    model = Functional(gamma=0.5)
    critical_init_(model, "gelu", inputs=rows(), gamma=0.5)
    audit = audit_initialisation(model, rows(), "gelu", gamma=0.5)
    assert audit.critical
    for layer in audit.layers:
        assert math.isclose(layer.K, layer.K_predicted, rel_tol=0.3)


def test_a_zero_output_layer_is_reported_not_divided_by():
    model = perceptron()
    critical_init_(model)
    nn.init.zeros_(model[-1].weight)
    audit = audit_initialisation(model, rows())
    assert not audit.critical and audit.signal_growth == 0.0
    assert "C_W of layer 6 is 0" in audit.text


def test_inputs_far_from_the_fixed_point_are_reported():
    model = perceptron(nn.GELU, depth=3)
    critical_init_(model)
    audit = audit_initialisation(model, 1e-3 * rows())
    assert "scale the inputs" in audit.text


@pytest.mark.parametrize(("activation", "target"), [(nn.ReLU, 1.0), (nn.GELU, 3.56155281)])
def test_the_first_layer_absorbs_the_scale_of_the_inputs(activation, target):
    model = perceptron(activation, width=4000, depth=2)
    critical_init_(model, inputs=rows())
    assert model[0](rows()).square().mean().item() == pytest.approx(target, rel=0.1)


def test_the_scale_of_the_inputs_does_not_alter_the_ratio_of_gradients():
    ratios = []
    for scale in (1.0, 255.0):
        model = perceptron(nn.GELU)
        critical_init_(model, inputs=scale * rows())
        ratios.append(audit_initialisation(model, scale * rows()).gradient_ratio)
    assert ratios[1] == pytest.approx(ratios[0], rel=1e-3)


def test_the_same_seed_draws_the_same_network():
    one, two, other = perceptron(), perceptron(), perceptron()
    critical_init_(one, seed=3)
    critical_init_(two, seed=3)
    critical_init_(other, seed=4)
    assert torch.equal(one[2].weight, two[2].weight)
    assert not torch.equal(one[2].weight, other[2].weight)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(20, 5), nn.LayerNorm(5), nn.ReLU()), "normalisation"),
        (nn.Sequential(nn.Linear(20, 5), nn.BatchNorm1d(5), nn.ReLU()), "normalisation"),
        (nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Linear(20, 5)), "Conv1d"),
        (nn.Sequential(nn.Linear(20, 5), nn.ReLU(), nn.Linear(5, 5), nn.Tanh()), "several"),
        (nn.Sequential(nn.Linear(20, 5)), "no activation module"),
        (nn.Sequential(nn.ReLU()), "no torch.nn.Linear"),
        (nn.Sequential(nn.Linear(20, 5), nn.Sigmoid(), nn.Linear(5, 5)), "sigmoid has no critical"),
        (
            nn.Sequential(nn.Linear(20, 5, bias=False), nn.GELU(), nn.Linear(5, 5)),
            "needs biases",
        ),
    ],
)
def test_modules_that_the_theory_does_not_cover_are_refused(model, message):
    with pytest.raises(UserError, match=message):
        critical_init_(model)


def test_a_refused_module_keeps_its_weights():
    model = nn.Sequential(nn.Linear(20, 5, bias=True), nn.GELU(), nn.Linear(5, 5, bias=False))
    before = model[0].weight.clone()
    with pytest.raises(UserError, match="needs biases"):
        critical_init_(model)
    assert torch.equal(model[0].weight, before)


def test_a_layer_that_is_used_twice_is_refused_by_the_audit():
    shared = nn.Linear(20, 20)
    with pytest.raises(UserError, match="exactly once"):
        audit_initialisation(nn.Sequential(shared, nn.ReLU(), shared), rows())


def test_the_audit_leaves_the_module_in_its_mode_and_without_gradients():
    model = perceptron().train()
    audit_initialisation(model, rows())
    assert model.training and model[0].weight.grad is None
    assert not model[0]._forward_hooks


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu"])
def test_equivalent_rates_make_the_tangent_kernel_independent_of_depth(name):
    point = find_critical_point(name)
    here = SignalPropagation.critical(name)
    K1 = 1.0 if math.isnan(point.K_star) else max(point.K_star, 1.0)
    kernels = [
        float(here.ntk_fluctuations(K1, depth, equivalent_rates(point, depth)).Theta[-1])
        for depth in (50, 200)
    ]
    assert kernels[1] == pytest.approx(kernels[0], rel=0.1)


def test_parameter_groups_hold_every_parameter_once_with_its_rate():
    model = perceptron(nn.Tanh, depth=4, width=50)
    groups = equivalent_learning_rates(model, bias=0.2, weight=0.5)
    parameters = [p for group in groups for p in group["params"]]
    assert {id(p) for p in parameters} == {id(p) for p in model.parameters()}
    assert len(parameters) == 8
    torch.optim.SGD(groups, lr=1.0)
    rates = [group["lr"] for group in groups]
    assert rates[::2] == pytest.approx([0.5 / 20, 0.5 / 50, 0.5 / 50, 0.5 / 50], rel=1e-5)
    assert rates[1::2] == pytest.approx([0.2, 0.1, 0.2 / 3, 0.05], rel=1e-5)
