r"""Layers whose weights are Gaussian on a sparse support and zero elsewhere.

Li, Miao, Qiu & Zhang 2024, "Training Bayesian Neural Networks with Sparse Subspace Variational
Inference" (arXiv 2402.11025). With a support :math:`\gamma` of fixed size in every layer,

.. math:: q(\theta) = \prod_{i \in \gamma} N(\theta_i;\ \mu_i, \sigma_i^2)
                      \prod_{i \notin \gamma} \delta_0(\theta_i), \qquad
          \sigma_i = \mathrm{softplus}(\rho_i),

.. math:: \mathrm{KL} = \sum_{i \in \gamma} \ln\frac{s}{\sigma_i}
                        + \frac{\sigma_i^2 + \mu_i^2}{2 s^2} - \frac12

against the prior :math:`N(0, s^2)` of the active weights. In training mode a layer draws its
outputs rather than its weights (local reparameterisation, Kingma, Salimans & Welling 2015,
arXiv 1506.02557),

.. math:: a = \mu * x + \sqrt{\sigma^2 * x^2 + 10^{-8}} \odot \epsilon, \qquad \epsilon \sim N(0, I)

and in evaluation mode it is the mean network, :math:`a = \mu * x`. Biases and normalisation are
deterministic and dense. The support moves by `understudy.nn.sparse_subspace`, through which a
model has to be trained: it keeps what is outside the support at zero.

The support is an explicit mask over dense tensors, so a sparse layer is no faster than a dense one
here; it is smaller once it is stored (see `understudy.nn.sparse_compact`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.errors import UserError

_LEAST_VARIANCE = 1e-8
_LEAST_SD = 1e-6


@dataclass(frozen=True)
class MeanField:
    r"""Prior and start of the Gaussians.

    Parameters
    ----------
    prior_sd : float, optional
        Deviation s of the prior; 0.005 as in the official code. None is
        :math:`1/\sqrt{\text{active inputs}}` of a unit, which suits networks without normalisation.
    mean_sd : float, optional
        Deviation of the first means; 0.01 as in the official code, whose networks are normalised.
        None is :math:`\sqrt{2/\text{active inputs}}`, He's.
    sd, sd_spread : float
        The first deviations are :math:`|N(\mathrm{sd}, \mathrm{sd\_spread}^2)|`.
    """

    prior_sd: float | None = 0.005
    mean_sd: float | None = 0.01
    sd: float = 6e-4
    sd_spread: float = 5e-4

    def __post_init__(self) -> None:
        for name in ("prior_sd", "mean_sd", "sd"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise UserError(f"{name} must be positive and finite, got {value!r}")
        if not 0.0 <= self.sd_spread < math.inf:
            raise UserError(f"sd_spread must be at least 0 and finite, got {self.sd_spread!r}")


def inverse_softplus(sd: Tensor) -> Tensor:
    r"""Return :math:`\ln(e^{\sigma} - 1)` without cancellation, of a positive tensor."""
    return sd + torch.log(-torch.expm1(-sd))


def support_size(weights: int, density: float) -> int:
    """Active weights of a layer: all but the whole part of (1 - density) times their number."""
    if not 0.0 < density <= 1.0:
        raise UserError(f"density must be above 0 and at most 1, got {density!r}")
    return weights - int((1.0 - density) * weights)


class SparseBayesianLayer(nn.Module):
    """What linear and convolutional layers share: means, deviations, support and divergence.

    Attributes
    ----------
    mu, rho : Parameter (*networks, out, ...)
        Means, zero outside the support, and raw deviations, without effect there.
    mask : BoolTensor of the same shape
        The support, one for both; changed by `set_support` only.
    index : LongTensor (networks * active,)
        Places of the support in the flattened means.
    bias : Parameter or None
    """

    mask: Tensor
    index: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        density: float,
        init: MeanField,
        networks: int | None,
        bias: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        stack = () if networks is None else (networks,)
        weights, outputs = math.prod(shape), shape[0]
        active = support_size(weights, density)
        if active < outputs:
            raise UserError(
                f"density {density:g} leaves {active} of {weights} weights to a layer of {outputs} "
                f"outputs; it takes at least one each, a density of {outputs / weights:.2g}"
            )
        self.networks = networks
        self.density = density
        fed = max(active / outputs, 1.0)
        self.prior_sd = init.prior_sd if init.prior_sd is not None else fed**-0.5
        mean_sd = init.mean_sd if init.mean_sd is not None else math.sqrt(2.0 / fed)
        order = torch.rand(networks or 1, weights, generator=generator).argsort(1)
        mask = torch.zeros(networks or 1, weights, dtype=torch.bool)
        mask.scatter_(1, order[:, :active], True)
        self.register_buffer("mask", mask.reshape(*stack, *shape))
        self.register_buffer("index", self.mask.flatten().nonzero()[:, 0], persistent=False)
        self.register_load_state_dict_post_hook(_find_support)
        mean = mean_sd * torch.randn(*stack, *shape, generator=generator)
        noise = torch.randn(*stack, *shape, generator=generator)
        sd = (init.sd + init.sd_spread * noise).abs().clamp_min(_LEAST_SD)
        self.mu = nn.Parameter(mean * self.mask)
        self.rho = nn.Parameter(inverse_softplus(sd) * self.mask)
        self.bias = nn.Parameter(torch.zeros(*stack, outputs)) if bias else None

    @property
    def sigma(self) -> Tensor:
        """Deviations, zero outside the support, of the shape of the means."""
        return self._spread_out(F.softplus(self.on_support(self.rho)))

    @property
    def active(self) -> int:
        """Size of the support of one network."""
        return len(self.index) // (self.networks or 1)

    def set_support(self, mask: Tensor) -> None:
        """Make a mask of the same size and shape the support."""
        index = mask.flatten().nonzero()[:, 0]
        if mask.shape != self.mask.shape or len(index) != len(self.index):
            raise ValueError(f"the support has {len(self.index)} weights, not {len(index)}")
        self.mask.copy_(mask)
        self.index.copy_(index)

    def on_support(self, tensor: Tensor) -> Tensor:
        """Active entries (networks * active,) of a tensor shaped like the means."""
        return tensor.flatten().gather(0, self.index)

    def _spread_out(self, values: Tensor) -> Tensor:
        """Inverse of `on_support`, with zeros elsewhere."""
        flat = torch.zeros(self.mask.numel(), dtype=values.dtype, device=values.device)
        return flat.scatter(0, self.index, values).reshape(self.mask.shape)

    def flat(self, tensor: Tensor) -> Tensor:
        """View of a tensor shaped like the means as one row a network, (networks or 1, weights)."""
        return tensor.reshape(self.networks or 1, -1)

    def kl_divergence(self) -> Tensor:
        """Divergence of the active weights from their prior, () or (networks,)."""
        mu, s = self.on_support(self.mu), self.prior_sd
        sigma = F.softplus(self.on_support(self.rho)).clamp_min(1e-30)
        each = torch.log(s / sigma) + (sigma.square() + mu.square()) / (2.0 * s**2) - 0.5
        total = each.reshape(self.networks or 1, -1).sum(1)
        return total if self.networks is not None else total[0]

    def forward(self, x: Tensor) -> Tensor:
        """Outputs at x; noisy in training mode, of the mean network in evaluation mode."""
        mean = self._apply_weight(x, self.mu, self.bias)
        if not self.training:
            return mean
        spread = self._spread_out(F.softplus(self.on_support(self.rho)).square())
        variance = self._apply_weight(x.square(), spread, None)
        return mean + (variance + _LEAST_VARIANCE).sqrt() * torch.randn_like(mean)

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Sizes, as `print` shows them."""
        weights = self.flat(self.mask).shape[1]
        return f"{tuple(self.mu.shape)}, active={self.active} of {weights}"


def _find_support(layer: nn.Module, keys: object) -> None:
    """Find the places of a support that was loaded."""
    assert isinstance(layer, SparseBayesianLayer)
    index = layer.mask.flatten().nonzero()[:, 0]
    if len(index) != len(layer.index):
        raise ValueError(f"the support has {len(layer.index)} weights, the state {len(index)}")
    layer.index.copy_(index)


class SparseBayesianLinear(SparseBayesianLayer):
    """Linear layer with sparse Gaussian weights.

    Parameters
    ----------
    inputs, outputs : int
    density : float in (0, 1]
        Share of the weights that is active.
    bias : bool
    init : MeanField
    networks : int, optional
        Independent layers stacked along a first dimension, as `understudy.core.loop` has them;
        inputs (n, in) are shared, (networks, n, in) are not.
    generator : torch.Generator, optional
        Of the support and the first values; by default seeded with 0.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        density: float = 1.0,
        *,
        bias: bool = True,
        init: MeanField | None = None,
        networks: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        generator = generator or torch.Generator().manual_seed(0)
        init = init or MeanField()
        super().__init__((outputs, inputs), density, init, networks, bias, generator)

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.networks is None:
            return F.linear(x, weight, bias)
        product = torch.matmul(x, weight.mT)
        return product if bias is None else product + bias.unsqueeze(-2)


class SparseBayesianConv2d(SparseBayesianLayer):
    """Two-dimensional convolution with sparse Gaussian weights.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel_size, stride, padding, dilation, groups
        As of `torch.nn.Conv2d`, with zeros for padding.
    density, bias, init, generator
        As of `SparseBayesianLinear`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int | tuple[int, ...],
        density: float = 1.0,
        *,
        stride: int | tuple[int, ...] = 1,
        padding: int | str | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        init: MeanField | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        kernel = (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)
        shape = (outputs, inputs // groups, *kernel)
        generator = generator or torch.Generator().manual_seed(0)
        super().__init__(shape, density, init or MeanField(), None, bias, generator)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def bayesianize(
    model: nn.Module,
    density: float,
    *,
    sparse_first: bool = False,
    init: MeanField | None = None,
    networks: int | None = None,
    seed: int = 0,
) -> nn.Module:
    """Copy a network with its linear and convolutional layers made sparse and Bayesian.

    Every layer has the same density, except the first, which stays dense unless it is the only
    one. Weights start anew and biases at zero; all else is copied.

    Parameters
    ----------
    model : nn.Module
        Layers count in the order in which it holds them.
    density : float in (0, 1]
    sparse_first : bool
        Whether the first layer is sparse as well.
    init : MeanField, optional
    networks : int, optional
        Independent copies stacked along a first dimension; for linear layers only.
    seed : int

    Raises
    ------
    UserError
        If there is no such layer, one cannot be converted, or the density leaves one fewer weights
        than outputs.
    """
    model = deepcopy(model)
    found = [
        (name, child)
        for name, child in model.named_modules(remove_duplicate=False)
        if type(child) in (nn.Linear, nn.Conv2d)
    ]
    if not found:
        raise UserError("the model holds no torch.nn.Linear and no torch.nn.Conv2d to convert")
    generator = torch.Generator().manual_seed(seed)
    dense = found[0][1] if len({id(child) for _, child in found}) > 1 and not sparse_first else None
    made: dict[int, SparseBayesianLayer] = {}
    for name, child in found:
        share = 1.0 if child is dense else density
        support_size(1, density)
        if id(child) not in made:
            made[id(child)] = _converted(name, child, share, init, networks, generator)
        if not name:
            return made[id(child)]
        model.set_submodule(name, made[id(child)])
    return model


def _converted(
    name: str,
    child: nn.Module,
    density: float,
    init: MeanField | None,
    networks: int | None,
    generator: torch.Generator,
) -> SparseBayesianLayer:
    bias = child.bias is not None
    try:
        if isinstance(child, nn.Linear):
            return SparseBayesianLinear(
                child.in_features,
                child.out_features,
                density,
                bias=bias,
                init=init,
                networks=networks,
                generator=generator,
            )
        assert isinstance(child, nn.Conv2d)
        if networks is not None:
            raise UserError("convolutions cannot be stacked; leave networks out")
        if child.padding_mode != "zeros":
            raise UserError(f"padding_mode must be 'zeros', got {child.padding_mode!r}")
        return SparseBayesianConv2d(
            child.in_channels,
            child.out_channels,
            child.kernel_size,
            density,
            stride=child.stride,
            padding=child.padding,
            dilation=child.dilation,
            groups=child.groups,
            bias=bias,
            init=init,
            generator=generator,
        )
    except UserError as error:
        raise UserError(f"layer {name!r}: {error}") from error


def sparse_layers(model: nn.Module) -> dict[str, SparseBayesianLayer]:
    """Sparse Bayesian layers of a model by name, each once."""
    found = {n: m for n, m in model.named_modules() if isinstance(m, SparseBayesianLayer)}
    if not found:
        raise UserError("the model holds no sparse Bayesian layer; make some with bayesianize")
    return found


def kl_divergence(model: nn.Module) -> Tensor:
    """Divergence from the prior, summed over layers: () or (networks,)."""
    return torch.stack([layer.kl_divergence() for layer in sparse_layers(model).values()]).sum(0)


# -- prediction -----------------------------------------------------------------------------------


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for a while; each part goes back to the mode it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def draw_weights(model: nn.Module, samples: int, seed: int = 0) -> dict[str, Tensor]:
    """Draw weights of whole networks from the posterior.

    Parameters
    ----------
    model : nn.Module
    samples : int
        Networks S to draw.
    seed : int

    Returns
    -------
    dict of str to Tensor (S, *shape)
        By the name of the parameter that holds the means.
    """
    if samples < 1:
        raise UserError(f"samples must be at least 1, got {samples}")
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, layer in sparse_layers(model).items():
        noise = torch.randn(samples, *layer.mu.shape, generator=generator)
        weight = layer.mu.cpu() + layer.sigma.cpu() * noise.to(layer.mu.dtype)
        drawn[f"{name}.mu" if name else "mu"] = weight.to(layer.mu.device)
    return drawn


def outputs_of_draws(
    model: nn.Module, draws: dict[str, Tensor], x: Tensor, chunk: int | None = None
) -> Tensor:
    """Outputs (S, n, ...) of drawn networks at x (n, ...), differentiable in x.

    Parameters
    ----------
    model : nn.Module
    draws : dict of str to Tensor (S, *shape)
        As `draw_weights` returned them.
    x : Tensor (n, ...)
    chunk : int, optional
        Networks evaluated at once; by default all.
    """

    def one(weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, weights, (x,))

    with evaluating(model):
        return torch.vmap(one, chunk_size=chunk)(draws)


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, samples: int = 16, seed: int = 0) -> Tensor:
    """Class probabilities (n, c) at x (n, ...): the mean softmax of drawn networks."""
    outputs = outputs_of_draws(model, draw_weights(model, samples, seed), x)
    return outputs.softmax(-1).mean(0)
