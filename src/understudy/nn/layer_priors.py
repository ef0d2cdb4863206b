r"""Priors over the weights of a network, one distribution a layer, that can be fitted.

Tran, Rossi, Milios & Filippone (2022, arXiv 2011.12829), section 4. Layers are
:math:`z = x W / \sqrt{n_{\text{in}}} + b` (`ScaledMLP`). The entries of each :math:`W` share a
distribution, and so do those of each :math:`b`; with :math:`g` for either,

.. math:: \text{Gaussian:}\quad & w = \operatorname{softplus}(\rho_g)\, \varepsilon \\
          \text{hierarchical:}\quad & w = \varepsilon / \sqrt{\lambda_g}, \quad
          \lambda_g \sim \operatorname{Gamma}(\operatorname{softplus}(a_g),
          \operatorname{softplus}(r_g)) \\
          \text{flow:}\quad & [W; b] = F_K \circ \dots \circ F_1(v), \quad
          v \sim N(0, \operatorname{diag} e^{s}), \quad F_k(v) = v + u_k \tanh(w_k^\top v + b_k)

with :math:`\varepsilon \sim N(0, 1)`. All draws are differentiable in
:math:`\rho, a, r, s, u_k, w_k, b_k`, those of the Gamma implicitly (Figurnov, Mohamed & Mnih 2018,
arXiv 1805.08498). Each function has precisions of its own, so the density of its weights is

.. math:: \log p(w) = \sum_g \log\Gamma(a + \tfrac n2) - \log\Gamma(a) + a \log r
          - \tfrac n2 \log 2\pi - (a + \tfrac n2) \log(r + \tfrac12 |w_g|^2)

for the :math:`n` weights of each group, and the precisions given the weights are
:math:`\operatorname{Gamma}(a + n/2,\ r + |w_g|^2/2)`. The density of a flow needs its inverse: with
:math:`a = w^\top v`, the image has :math:`w^\top F(v) = a + w^\top u \tanh(a + b)`, which rises in
:math:`a` where :math:`w^\top u > -1`, so that :math:`a` is the root of a function of one number.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from understudy.nn.bayesian_mlp import DiagonalPrior, FlatMLP, Prior

_LOG_2PI = math.log(2.0 * math.pi)
_INITIAL_RAW = 1.0  # rho, a and r to begin with
_INITIAL_FLOW = 0.1  # length of w and u to begin with
_NEWTON_STEPS = 80  # at most; a handful, but where the flow is all but flat


def raw(positive: float) -> float:
    """Return the number whose softplus is this one."""
    return positive + math.log(-math.expm1(-positive))


def group_sizes(network: FlatMLP) -> list[int]:
    """Number of entries of W_0, b_0, W_1, b_1, ... in the vector of all weights."""
    return [size for i, o in pairwise(network.sizes) for size in (i * o, o)]


class LayerPrior(nn.Module):
    """Distribution of the weights of a network; a subclass writes `sample` and `log_prob`.

    Parameters
    ----------
    network : FlatMLP
        Architecture; `ScaledMLP` for priors that are comparable between widths.
    """

    def __init__(self, network: FlatMLP) -> None:
        super().__init__()
        self.network = network

    def sample(self, functions: int, generator: torch.Generator) -> Tensor:
        """Weights (S, dim) of S functions, differentiable in the prior's parameters."""
        raise NotImplementedError

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log densities (chains,) of weights theta (chains, dim)."""
        raise NotImplementedError

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities (chains,) at theta (chains, dim), and their gradients in theta."""
        with torch.enable_grad():
            leaf = theta.detach().requires_grad_()
            value = self.log_prob(leaf)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient

    def frozen(self) -> Prior:
        """Return this density for many evaluations with the parameters that it has now."""
        return self

    def sample_functions(self, X: Tensor, functions: int, generator: torch.Generator) -> Tensor:
        """Values of S functions at shared points.

        Parameters
        ----------
        X : Tensor (N, d)
        functions : int
            S, at least 1.
        generator : torch.Generator

        Returns
        -------
        Tensor (N, S, out)
            Differentiable in the prior's parameters.
        """
        return self.network(self.sample(functions, generator), X).transpose(0, 1)

    def _normal(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        like = next(self.parameters())
        return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)


class GaussianLayerPrior(LayerPrior):
    r"""Independent normal weights about zero, of deviation :math:`\operatorname{softplus}(\rho)`.

    Parameters
    ----------
    network : FlatMLP
    per : {"layer", "parameter"}
        Whether the weights, and the biases, of a layer share a deviation, or each has its own.
    deviation : float, optional
        Of all weights to begin with; softplus(1) = 1.3133 as in the official code.
    """

    def __init__(
        self,
        network: FlatMLP,
        per: Literal["layer", "parameter"] = "layer",
        deviation: float | None = None,
    ) -> None:
        super().__init__(network)
        if per not in ("layer", "parameter"):
            raise ValueError(f"per must be layer or parameter, got {per!r}")
        if deviation is not None and not 0.0 < deviation < math.inf:
            raise ValueError(f"deviation must be positive and finite, got {deviation}")
        first = _INITIAL_RAW if deviation is None else raw(deviation)
        shape = network.dim if per == "parameter" else len(group_sizes(network))
        self.rho = nn.Parameter(torch.full((shape,), first, dtype=torch.float64))

    @property
    def deviation(self) -> Tensor:
        """Deviation (dim,) of each weight."""
        deviation = softplus(self.rho)
        if len(deviation) == self.network.dim:
            return deviation
        return _spread_out(deviation, self.network)

    def sample(self, functions: int, generator: torch.Generator) -> Tensor:
        """Weights (S, dim) of S functions, differentiable in the prior's parameters."""
        return self.deviation * self._normal((functions, self.network.dim), generator)

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log densities (chains,) of weights theta (chains, dim)."""
        return DiagonalPrior(self.deviation.square()).log_prob(theta)

    @torch.no_grad()
    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities (chains,) at theta (chains, dim), and their gradients in theta."""
        return self.frozen().value_and_gradient(theta)

    def frozen(self) -> DiagonalPrior:
        """Return this density for many evaluations with the parameters that it has now."""
        return DiagonalPrior(self.deviation.detach().square())


class HierarchicalLayerPrior(LayerPrior):
    """Normal weights whose precision, one a layer and function, has a Gamma distribution.

    Parameters
    ----------
    network : FlatMLP
    shape, rate : float, optional
        Of all Gamma distributions to begin with; softplus(1) = 1.3133 as in the official code.
    """

    def __init__(
        self, network: FlatMLP, shape: float | None = None, rate: float | None = None
    ) -> None:
        super().__init__(network)
        sizes = group_sizes(network)
        for name, value in (("shape", shape), ("rate", rate)):
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")
            first = _INITIAL_RAW if value is None else raw(value)
            parameter = nn.Parameter(torch.full((len(sizes),), first, dtype=torch.float64))
            self.register_parameter(name, parameter)
        self.register_buffer("sizes", torch.tensor(sizes, dtype=torch.float64), persistent=False)

    shape: nn.Parameter
    rate: nn.Parameter
    sizes: Tensor

    def sample_precisions(self, functions: int, generator: torch.Generator) -> Tensor:
        """Precisions (S, groups) of S functions, differentiable in shape and rate."""
        a, r = softplus(self.shape), softplus(self.rate)
        standard = torch._standard_gamma(a.expand(functions, -1), generator=generator)
        return standard / r

    def sample(self, functions: int, generator: torch.Generator) -> Tensor:
        """Weights (S, dim) of S functions, each with precisions of its own."""
        deviation = 1.0 / (self.sample_precisions(functions, generator).sqrt() + 1e-8)
        normal = self._normal((functions, self.network.dim), generator)
        return _spread_out(deviation, self.network) * normal

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log densities (chains,) of weights theta (chains, dim), precisions integrated out."""
        a, r, half = softplus(self.shape), softplus(self.rate), 0.5 * self.sizes
        constant = torch.lgamma(a + half) - torch.lgamma(a) + a * r.log() - half * _LOG_2PI
        return (constant - (a + half) * (r + self._half_squares(theta)).log()).sum(1)

    @torch.no_grad()
    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities (chains,) at theta (chains, dim), and their gradients in theta."""
        a, r, half = softplus(self.shape), softplus(self.rate), 0.5 * self.sizes
        expected = (a + half) / (r + self._half_squares(theta))
        return self.log_prob(theta), -theta * _spread_out(expected, self.network)

    @torch.no_grad()
    def resample(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the precisions (chains, groups) given weights theta (chains, dim)."""
        a = softplus(self.shape) + 0.5 * self.sizes
        rate = softplus(self.rate) + self._half_squares(theta)
        return torch._standard_gamma(a.expand_as(rate), generator=generator) / rate

    def given(self, precisions: Tensor) -> DiagonalPrior:
        """Prior of the weights of each chain given its precisions (chains, groups)."""
        return DiagonalPrior(_spread_out(1.0 / precisions, self.network))

    def _half_squares(self, theta: Tensor) -> Tensor:
        parts = theta.square().split(group_sizes(self.network), dim=1)
        return 0.5 * torch.stack([part.sum(1) for part in parts], dim=1)


class PlanarFlowLayerPrior(LayerPrior):
    """Normal weights of each layer, passed through planar flows (Rezende & Mohamed 2015).

    Parameters
    ----------
    network : FlatMLP
    flows : int
        K; 4 as in the official demonstration.
    seed : int
        Of the flows' first directions.
    """

    def __init__(self, network: FlatMLP, flows: int = 4, seed: int = 0) -> None:
        super().__init__(network)
        if flows < 1:
            raise ValueError(f"flows must be at least 1, got {flows}")
        generator = torch.Generator().manual_seed(seed)
        sizes = [(i + 1) * o for i, o in pairwise(network.sizes)]
        first = 2.0 * math.log(math.log1p(math.e))  # deviation softplus(1), as the others begin
        self.log_variance = nn.ParameterList(
            torch.full((size,), first, dtype=torch.float64) for size in sizes
        )
        drawn = [
            torch.randn(2, flows, size, generator=generator, dtype=torch.float64)
            * (_INITIAL_FLOW / math.sqrt(size))
            for size in sizes
        ]
        self.w = nn.ParameterList(draw[0].clone() for draw in drawn)
        self.u = nn.ParameterList(draw[1].clone() for draw in drawn)
        self.b = nn.ParameterList(torch.zeros(flows, dtype=torch.float64) for _ in sizes)

    def sample(self, functions: int, generator: torch.Generator) -> Tensor:
        """Weights (S, dim) of S functions, differentiable in the prior's parameters."""
        parts = []
        for layer, log_variance in enumerate(self.log_variance):
            shape = (functions, len(log_variance))
            value = (0.5 * log_variance).exp() * self._normal(shape, generator)
            for w, u, b in self._flows(layer):
                value = value + u * torch.tanh(value @ w + b).unsqueeze(1)
            parts.append(value)
        return torch.cat(parts, dim=1)

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log densities (chains,) of weights theta (chains, dim), through the inverse flows."""
        values = theta.split([len(log_variance) for log_variance in self.log_variance], dim=1)
        layers = [reversed(self._flows(layer)) for layer in range(len(values))]
        total = theta.new_zeros(len(theta))
        for flows in zip(*layers, strict=True):
            image = torch.stack([v @ w for v, (w, _, _) in zip(values, flows, strict=True)], dim=1)
            slope = torch.stack([w @ u for w, u, _ in flows])
            b = torch.stack([b for _, _, b in flows])
            bent = torch.tanh(_preimage(image, slope, b) + b)
            total = total - torch.log1p(slope * (1.0 - bent.square())).sum(1)
            values = tuple(
                v - torch.outer(t, u)
                for v, t, (_, u, _) in zip(values, bent.unbind(1), flows, strict=True)
            )
        variance = torch.cat(list(self.log_variance)).exp()
        return total + DiagonalPrior(variance).log_prob(torch.cat(values, dim=1))

    def _flows(self, layer: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Direction w (D,), shift u (D,) bent so that w u > -1, and offset b () of each flow."""
        w, u = self.w[layer], self.u[layer]
        inner = (w * u).sum(1, keepdim=True)
        away = softplus(inner) - 1.0 - inner
        u = u + away * w / w.square().sum(1, keepdim=True)
        return list(zip(w, u, self.b[layer], strict=True))


LAYER_PRIORS: dict[str, type[LayerPrior]] = {
    "gaussian": GaussianLayerPrior,
    "hierarchical": HierarchicalLayerPrior,
    "flow": PlanarFlowLayerPrior,
}
"""Families by name."""


def fixed_gaussian(network: FlatMLP) -> GaussianLayerPrior:
    """N(0, 1) on every weight and bias, the usual prior (FG)."""
    return GaussianLayerPrior(network, deviation=1.0)


def fixed_hierarchical(network: FlatMLP) -> HierarchicalLayerPrior:
    """Gamma(1, 1) on the precision of every layer (FH)."""
    return HierarchicalLayerPrior(network, shape=1.0, rate=1.0)


def restored(network: FlatMLP, tensors: dict[str, Tensor]) -> LayerPrior:
    """Return the prior whose ``state_dict`` these tensors are."""
    prior: LayerPrior
    if "rho" in tensors:
        whole = len(tensors["rho"]) == network.dim
        prior = GaussianLayerPrior(network, per="parameter" if whole else "layer")
    elif "shape" in tensors:
        prior = HierarchicalLayerPrior(network)
    else:
        prior = PlanarFlowLayerPrior(network, flows=len(tensors["w.0"]))
    prior.load_state_dict(tensors)
    return prior


def _spread_out(values: Tensor, network: FlatMLP) -> Tensor:
    """One value a group (..., groups) to one a weight (..., dim)."""
    sizes = torch.tensor(group_sizes(network), device=values.device)
    return values.repeat_interleave(sizes, dim=-1, output_size=network.dim)


def _preimage(image: Tensor, slope: Tensor, b: Tensor) -> Tensor:
    r"""Solve :math:`a + s \tanh(a + b) = c` for images c (chains, flows), differentiably.

    The solution lies within :math:`|s|` of c and is found by Newton's steps, halving the interval
    where one would leave it. In the last step the residual alone carries gradients, so it has the
    value and, by the implicit function theorem, the gradient of the solution.
    """
    with torch.no_grad():
        low, high, a = image - slope.abs(), image + slope.abs(), image
        for _ in range(_NEWTON_STEPS):
            residual, steepness = _residual(a, image, slope, b)
            low, high = torch.where(residual < 0.0, a, low), torch.where(residual < 0.0, high, a)
            step = a - residual / steepness
            a = torch.where((step >= low) & (step <= high), step, 0.5 * (low + high))
            if bool((residual.abs() < 1e-12 * (1.0 + image.abs())).all()):
                break
        steepness = _residual(a, image, slope, b)[1]
    return a - _residual(a, image, slope, b)[0] / steepness


def _residual(a: Tensor, image: Tensor, slope: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Image of a less the one wanted, and its derivative in a, which is positive."""
    bent = torch.tanh(a + b)
    return a + slope * bent - image, 1.0 + slope * (1.0 - bent.square())
