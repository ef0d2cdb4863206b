r"""Initialise a multilayer perceptron critically, and give each layer its learning rate.

Roberts, Yaida & Hanin (2022, arXiv 2106.10165), chapters 5 and 9. Weights are :math:`N(0,
C_W/\text{fan-in})` and biases :math:`N(0, C_b)` at the critical point of the activation; the first
layer's weights also absorb the scale of the inputs. Learning rates, of a weight divided by its
fan-in, that let every one of L layers contribute alike and the total not depend on depth are

.. math:: \lambda_b = \tilde\lambda_b / L, \quad \lambda_W = \tilde\lambda_W / L

where the variance is kept, and in the class K*=0

.. math:: \lambda_b^{(l)} = \tilde\lambda_b\, l^{-p_\perp} L^{p_\perp - 1}, \quad
          \lambda_W^{(l)} = \tilde\lambda_W\, (L/l)^{p_\perp - 1} .
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation as activation_modules

from understudy.core.errors import UserError
from understudy.nn.criticality import CriticalPoint, UniversalityClass, find_critical_point
from understudy.nn.gaussian_expectation import Activation
from understudy.nn.gaussian_expectation import activation as describe
from understudy.nn.signal_propagation import LearningRates

Which = str | nn.Module | Callable[[Tensor], Tensor] | Activation

_NORMALISATIONS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


def linear_layers(module: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of a multilayer perceptron, in the order of their registration.

    Raises
    ------
    UserError
        If there are none, or the module normalises or has other parameters than theirs.
    """
    found = []
    for name, part in module.named_modules():
        if isinstance(part, _NORMALISATIONS):
            raise UserError(
                f"{name or 'the module'} is a {type(part).__name__}: normalisation makes its own "
                "signal scale, and is not covered"
            )
        if type(part) is nn.Linear:
            found.append(part)
        elif any(p is not None for p in part._parameters.values()) and not _is_activation(part):
            raise UserError(
                f"{name or 'the module'} is a {type(part).__name__} with parameters of its own; "
                "only perceptrons of torch.nn.Linear layers are covered"
            )
    if not found:
        raise UserError(f"the module {type(module).__name__} has no torch.nn.Linear layer")
    return found


def activation_of(module: nn.Module) -> Activation:
    """Activation that all hidden layers of a module share.

    Raises
    ------
    UserError
        If there is none among its modules, or several.
    """
    found = {repr(part): part for part in module.modules() if _is_activation(part)}
    if len(found) != 1:
        what = "no activation module" if not found else f"several activations, {', '.join(found)}"
        raise UserError(f"the network has {what}; name its activation by activation=")
    return describe(next(iter(found.values())))


def _is_activation(part: nn.Module) -> bool:
    return type(part).__module__ == activation_modules.__name__ and not isinstance(
        part, nn.MultiheadAttention
    )


@torch.no_grad()
def critical_init_(
    module: nn.Module,
    activation: Which | None = None,
    inputs: Tensor | None = None,
    gamma: float = 0.0,
    seed: int = 0,
) -> CriticalPoint:
    """Draw the weights and biases of a multilayer perceptron at criticality, in place.

    Parameters
    ----------
    module : Module
        Any composition of `torch.nn.Linear` layers, of which the first takes the inputs.
    activation : str, Module, callable or Activation, optional
        Of its hidden layers; found among its modules by default.
    inputs : Tensor (m, n_0), optional
        Typical inputs. The first layer's weights are scaled so that the variance of its units,
        averaged over them, is K*, or 1 where there is no positive K*.
    gamma : float in [0, 1)
        What the module's hidden layers multiply their own inputs by before adding them, if they
        do.
    seed : int

    Returns
    -------
    CriticalPoint

    Raises
    ------
    UserError
        If the activation has no criticality, or the module is not covered.
    """
    layers = linear_layers(module)
    phi = activation_of(module) if activation is None else describe(activation)
    point = find_critical_point(phi, gamma).required()
    if point.C_b > 0.0 and any(layer.bias is None for layer in layers):
        raise UserError(
            f"{point.activation} needs biases of variance {point.C_b:.4g}, but a layer has none"
        )
    variances = [point.C_W] * len(layers)
    if inputs is not None:
        variances[0] = _first_weight_variance(point, layers[0], inputs)
    generator = torch.Generator().manual_seed(seed)
    for layer, C_W in zip(layers, variances, strict=True):
        _draw_(layer.weight, C_W / layer.in_features, generator)
        if layer.bias is not None:
            _draw_(layer.bias, point.C_b, generator)
    return point


def _first_weight_variance(point: CriticalPoint, layer: nn.Linear, inputs: Tensor) -> float:
    """C_W of the first layer with C_b + C_W |x|^2 / n_0 = K*, on average."""
    if inputs.ndim != 2 or inputs.shape[1] != layer.in_features:
        raise UserError(
            f"inputs must be rows of {layer.in_features} features, got {tuple(inputs.shape)}"
        )
    square = float(inputs.double().square().mean())
    if not (math.isfinite(square) and square > 0.0):
        raise UserError("inputs must be finite and not all zero")
    target = point.K_star if point.universality_class is UniversalityClass.HALF_STABLE else 1.0
    return (target - point.C_b) / square


def _draw_(parameter: Tensor, variance: float, generator: torch.Generator) -> None:
    draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    parameter.copy_(math.sqrt(variance) * draw)


def equivalent_rates(
    point: CriticalPoint, depth: int, bias: float = 1.0, weight: float = 1.0
) -> LearningRates:
    """Learning rates of each layer that make all contribute alike.

    Parameters
    ----------
    point : CriticalPoint
    depth : int
        Layers, the output included.
    bias, weight : float
        Global rates of biases and weights, which need no change with depth or width.
    """
    if point.required().universality_class is not UniversalityClass.ZERO:
        return LearningRates([bias / depth] * depth, [weight / depth] * depth)
    p, layers = point.p_perp, range(1, depth + 1)
    return LearningRates(
        [bias * l**-p * depth ** (p - 1.0) for l in layers],
        [weight * (depth / l) ** (p - 1.0) for l in layers],
    )


def equivalent_learning_rates(
    module: nn.Module,
    point: CriticalPoint | Which | None = None,
    bias: float = 1.0,
    weight: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameter groups for `torch.optim.SGD` with the learning rate of every layer.

    Parameters
    ----------
    module : Module
    point : CriticalPoint or activation, optional
        The activation is found among the module's modules by default.
    bias, weight : float
        Global rates, as in `equivalent_rates`.

    Returns
    -------
    list of dict
        ``params`` and ``lr``, the latter of a weight divided by its fan-in.
    """
    layers = linear_layers(module)
    if not isinstance(point, CriticalPoint):
        point = find_critical_point(activation_of(module) if point is None else point)
    lam_b, lam_W = equivalent_rates(point, len(layers), bias, weight).layers(len(layers))
    groups: list[dict[str, Any]] = []
    for layer, rate_b, rate_W in zip(layers, lam_b, lam_W, strict=True):
        groups.append({"params": [layer.weight], "lr": rate_W / layer.in_features})
        if layer.bias is not None:
            groups.append({"params": [layer.bias], "lr": rate_b})
    return groups
