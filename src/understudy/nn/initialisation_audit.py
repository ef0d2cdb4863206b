r"""Audit of an initialisation: is this network at criticality.

The variances of weights and biases, read off a network, are held against the critical point of its
activation (Roberts, Yaida & Hanin 2022, arXiv 2106.10165), and what a pass forward and backward
does is held against the recursions of `understudy.nn.signal_propagation` with the variances found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.nn.critical_initialisation import Which, activation_of, linear_layers
from understudy.nn.criticality import CriticalPoint, UniversalityClass, find_critical_point
from understudy.nn.gaussian_expectation import Activation
from understudy.nn.gaussian_expectation import activation as describe
from understudy.nn.signal_propagation import (
    PERTURBATIVE,
    SignalPropagation,
    UnitStatistics,
)

TOLERANCE = 0.05
"""Relative error of a variance that counts as critical, beyond three standard errors."""

GROWTH = 3.0
"""Factor over the whole depth, off the critical network's, up to which signals are kept."""

_SMALLEST = 1e-60


@dataclass(frozen=True)
class LayerAudit:
    """One layer: what was found beside what is predicted.

    Parameters
    ----------
    C_b, C_W : float
        Variance of its biases, and of its weights times their fan-in.
    C_W_error : float
        Standard error of C_W, from the number of its weights.
    units : int
        Its width.
    K : float
        Mean square of what it puts out, over units and inputs.
    K_predicted : float
        What the recursion makes of the first layer's K with the variances found.
    gradient : float
        Norm of the gradient in what it puts out, for a random direction of the outputs; root mean
        square over the inputs. A network keeps it when chi_perp is 1.
    """

    C_b: float
    C_W: float
    C_W_error: float
    units: int
    K: float
    K_predicted: float
    gradient: float


@dataclass(frozen=True)
class InitialisationAudit:
    """Answer to "is this network initialised at criticality?"; ``str`` or ``text`` to read it.

    Parameters
    ----------
    critical : bool
        Whether the variances are those of the critical point and signals and gradients are kept.
    point : CriticalPoint
        The critical point of the activation, if there is one.
    layers : tuple of LayerAudit
        From the first to the output.
    signal_growth, gradient_growth : float
        Products over the hidden layers of chi_par and chi_perp, as the variances found predict
        them, over those of the critical network that starts from the same K; NaN without one.
    gradient_ratio_predicted : float
        Gradient norm of the first layer over that of the last, by the variances found.
    deviation : float
        Predicted deviation from a Gaussian at the output, V / (n K^2).
    findings : tuple of str
        What is off, one sentence each.
    """

    critical: bool
    point: CriticalPoint
    layers: tuple[LayerAudit, ...]
    signal_growth: float
    gradient_growth: float
    gradient_ratio_predicted: float
    deviation: float
    findings: tuple[str, ...]

    @property
    def gradient_ratio(self) -> float:
        """Measured gradient norm of the first layer over that of the last."""
        last = self.layers[-1].gradient
        return self.layers[0].gradient / last if last > 0.0 else math.nan

    @property
    def text(self) -> str:
        """The whole answer, to be read."""
        lines = [
            f"{'Critical' if self.critical else 'Not critical'}: {len(self.layers)} layers of "
            f"{self.point.activation} (class {self.point.universality_class}).",
            *(f"- {finding}" for finding in self.findings),
        ]
        if self.point.exists:
            lines.append(
                f"Criticality is C_W = {self.point.C_W:.4g}, C_b = {self.point.C_b:.4g}. Against "
                f"it, signals change by a factor {self.signal_growth:.3g} and squared gradients "
                f"by {self.gradient_growth:.3g} over the depth."
            )
        lines.append(
            f"Deviation from a Gaussian at the output: {self.deviation:.3g} "
            f"({'fine' if self.deviation <= PERTURBATIVE else 'too deep for its width'}); "
            f"gradient norm, first layer over last: {self.gradient_ratio:.3g}, predicted "
            f"{self.gradient_ratio_predicted:.3g}."
        )
        lines.append("layer      C_W      C_b    K found  predicted   gradient")
        lines += [
            f"{number:5d} {layer.C_W:8.4g} {layer.C_b:8.4g} {layer.K:10.4g} "
            f"{layer.K_predicted:10.4g} {layer.gradient:10.4g}"
            for number, layer in enumerate(self.layers, 1)
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text


def audit_initialisation(
    module: nn.Module,
    X: Tensor,
    activation: Which | None = None,
    gamma: float = 0.0,
    seed: int = 0,
) -> InitialisationAudit:
    """Say whether a multilayer perceptron is initialised at criticality.

    The first layer is exempt from the critical C_W, as it may absorb the scale of the inputs.

    Parameters
    ----------
    module : Module
        A composition of `torch.nn.Linear` layers, called on X.
    X : Tensor (m, n_0)
        Typical inputs.
    activation : str, Module, callable or Activation, optional
        Of its hidden layers; found among its modules by default.
    gamma : float
        Residual coefficient of its hidden layers.
    seed : int
        Of the direction in which the outputs are differentiated.

    Raises
    ------
    UserError
        If the module is not such a network, normalises, or uses a layer more than once or not at
        all.
    """
    linear_layers(module)
    phi = activation_of(module) if activation is None else describe(activation)
    point = find_critical_point(phi, gamma)
    calls, gradients = _passes(module, X, seed)
    K = [float(z.square().mean()) for _, z in calls]
    if not (math.isfinite(K[0]) and K[0] > 0.0):
        raise UserError(f"the mean square of the first layer's units is {K[0]} for these inputs")
    variances = [_variances(layer) for layer, _ in calls]
    widths = [layer.in_features for layer, _ in calls[1:]]
    found = _predict(phi, gamma, K[0], variances[1:], widths)
    growth = (math.nan, math.nan)
    if point.exists:
        ideal = [(point.C_b, point.C_W)] * len(widths)
        growth = _off_critical(found, _predict(phi, gamma, K[0], ideal, widths))
    layers = tuple(
        LayerAudit(
            C_b=C_b,
            C_W=C_W,
            C_W_error=C_W * math.sqrt(2.0 / layer.weight.numel()),
            units=layer.out_features,
            K=square,
            K_predicted=predicted,
            gradient=gradient,
        )
        for (layer, _), (C_b, C_W), square, predicted, gradient in zip(
            calls, variances, K, found.K, gradients, strict=True
        )
    )
    return InitialisationAudit(
        critical=_is_critical(point, layers, growth),
        point=point,
        layers=layers,
        signal_growth=growth[0],
        gradient_growth=growth[1],
        gradient_ratio_predicted=_exp(0.5 * found.log_growth[1]),
        deviation=found.deviation,
        findings=tuple(_findings(point, layers, growth)),
    )


def _passes(
    module: nn.Module, X: Tensor, seed: int
) -> tuple[list[tuple[nn.Linear, Tensor]], list[float]]:
    """Outputs of the linear layers in the order of their use, and the gradients' norms there."""
    calls: list[tuple[nn.Linear, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, _, z: calls.append((layer, z)))
        for layer in linear_layers(module)
    ]
    was_training = module.training
    module.eval()
    try:
        with torch.enable_grad():
            output = module(X)
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    used = [layer for layer, _ in calls]
    if len(set(used)) != len(used) or len(used) != len(hooks):
        raise UserError("every linear layer must be used exactly once for one set of inputs")
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(output.shape, generator=generator).to(output)
    outputs = [z for _, z in calls]
    gradients = torch.autograd.grad(output, outputs, direction / math.sqrt(len(X)))
    norms = [float(gradient.double().norm()) for gradient in gradients]
    return [(layer, z.detach().double()) for layer, z in calls], norms


def _variances(layer: nn.Linear) -> tuple[float, float]:
    """C_b and C_W of a layer, about a mean of zero."""
    C_b = 0.0 if layer.bias is None else float(layer.bias.detach().double().square().mean())
    return C_b, float(layer.weight.detach().double().square().mean()) * layer.in_features


@dataclass(frozen=True)
class _Prediction:
    """Variances of every layer, both growths as logarithms, and V / (n K^2) at the output."""

    K: list[float]
    log_growth: tuple[float, float]
    deviation: float


def _predict(
    phi: Activation,
    gamma: float,
    K1: float,
    variances: Sequence[tuple[float, float]],
    widths: Sequence[int],
) -> _Prediction:
    """Propagate K1 through layers of these variances (C_b, C_W), fed by that many units."""
    now = UnitStatistics(torch.tensor(K1, dtype=torch.float64))
    predicted, log_parallel, log_perpendicular = [K1], 0.0, 0.0
    for (C_b, C_W), width in zip(variances, widths, strict=True):
        if C_W == 0.0 or not _SMALLEST < float(now.K) < 1.0 / _SMALLEST:
            end = -math.inf if C_W == 0.0 or float(now.K) <= _SMALLEST else math.inf
            missing = [math.nan] * (len(variances) + 1 - len(predicted))
            return _Prediction(predicted + missing, (end, end), math.nan)
        layer = SignalPropagation(phi, C_b, C_W, gamma)
        chi = layer.susceptibilities(now.K)
        log_parallel += _log(chi.parallel)
        log_perpendicular += _log(chi.perpendicular)
        carried = gamma**2 * float(now.K)
        now = layer.next_layer(now, width)
        predicted.append(float(now.K) - carried)
    deviation = float(now.covariance / now.K.square())
    return _Prediction(predicted, (log_parallel, log_perpendicular), deviation)


def _log(value: Tensor) -> float:
    size = abs(float(value))
    return math.log(size) if size > 0.0 else -math.inf


def _exp(value: float) -> float:
    return math.exp(value) if value < 700.0 else math.inf


def _off_critical(found: _Prediction, ideal: _Prediction) -> tuple[float, float]:
    """Both growths of what was found, over those of the critical network."""
    parallel, perpendicular = (
        _exp(a - b) for a, b in zip(found.log_growth, ideal.log_growth, strict=True)
    )
    return parallel, perpendicular


def _findings(
    point: CriticalPoint, layers: Sequence[LayerAudit], growth: tuple[float, float]
) -> Iterator[str]:
    """What keeps the network from criticality, or endangers it."""
    if not point.exists:
        yield f"{point.activation} has no critical initialisation: {point.reason}."
        return
    for name, value, found in (
        ("C_W", point.C_W, [layer.C_W for layer in layers]),
        ("C_b", point.C_b, [layer.C_b for layer in layers]),
    ):
        off = [n for n, layer in enumerate(layers) if _is_off(point, layer, name, first=n == 0)]
        if off:
            span = f"{min(found[n] for n in off):.4g} to {max(found[n] for n in off):.4g}"
            which = "layer" if len(off) == 1 else "layers"
            yield (
                f"{name} of {which} {', '.join(str(n + 1) for n in off)} is {span}, "
                f"critical is {value:.4g}."
            )
    for name, factor in zip(("signals", "squared gradients"), growth, strict=True):
        if not _kept(factor):
            verb = "explode" if factor > 1.0 else "vanish"
            yield f"The {name} {verb}: {factor:.3g} times those of the critical network."
    if point.universality_class is not UniversalityClass.ZERO:
        change = layers[-1].K_predicted / layers[0].K
        if not _kept(change) and all(map(_kept, growth)):
            yield f"The variance of a unit changes by a factor {change:.3g} over the depth."
    if point.universality_class is UniversalityClass.HALF_STABLE and not _near(
        layers[0].K, point.K_star
    ):
        yield (
            f"The first layer's K is {layers[0].K:.4g}, the fixed point K* is {point.K_star:.4g}: "
            "scale the inputs, or give them to critical_init_."
        )


def _is_off(point: CriticalPoint, layer: LayerAudit, name: str, first: bool) -> bool:
    if name == "C_W":
        allowed = TOLERANCE * point.C_W + 3.0 * layer.C_W_error
        return not first and abs(layer.C_W - point.C_W) > allowed
    scale = max(point.C_b, TOLERANCE * max(layer.K, 1e-300))
    spread = TOLERANCE + 3.0 * math.sqrt(2.0 / layer.units)
    return abs(layer.C_b - point.C_b) > scale * (spread if point.C_b > 0.0 else 1.0)


def _near(K: float, K_star: float) -> bool:
    return K_star / 2.0 <= K <= K_star * 2.0


def _kept(factor: float) -> bool:
    return 1.0 / GROWTH <= factor <= GROWTH


def _is_critical(
    point: CriticalPoint, layers: Sequence[LayerAudit], growth: tuple[float, float]
) -> bool:
    variances = not any(
        _is_off(point, layer, name, first=n == 0)
        for n, layer in enumerate(layers)
        for name in ("C_W", "C_b")
    )
    drifts = point.universality_class is not UniversalityClass.ZERO and not _kept(
        layers[-1].K_predicted / layers[0].K
    )
    return point.exists and variances and all(map(_kept, growth)) and not drifts
