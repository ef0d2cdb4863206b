r"""Input-convex networks (Amos et al. 2017, 1609.07152) in the form of 2310.14344.

With an activation :math:`s` that is convex and does not fall, weights :math:`W_k, w \ge 0` and any
:math:`H_k, b_k`,

.. math::

   z_1 = s(H_1 x + b_1), \qquad z_{k+1} = s(W_k z_k + H_{k+1} x + b_{k+1}), \qquad
   \psi(x) = w^\top z_K + h^\top x + b + \alpha |x|^2

is convex in :math:`x`, and strongly so where :math:`\alpha > 0`. The activation is the softplus
of sharpness :math:`\beta`, so that the gradient of :math:`\psi` is smooth. The maps
:math:`W_k, H_k` are dense, or convolutions; the :math:`H_k` of a coarse layer sees the image
resized to its grid, which is linear as well.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.errors import UserError


class ConvexNetwork(nn.Module, ABC):
    """A convex function of what is in a tensor, and how it is described and kept convex.

    Attributes
    ----------
    kind : str
        Its key in :data:`NETWORKS`.
    settings : dict
        JSON from which :func:`build` makes an untrained twin.
    shape : tuple of int
        Of one input: ``(dim,)`` or ``(channels, height, width)``.
    alpha : float
        Factor of the square norm; the gradient is strongly monotone with twice it.
    """

    kind: ClassVar[str]
    settings: dict[str, Any]
    shape: tuple[int, ...]
    alpha: float

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Values ``(B,)`` at inputs ``(B, *shape)``."""

    @abstractmethod
    def convex_weights(self) -> Iterator[nn.Parameter]:
        """Weights that must not be negative."""

    @torch.no_grad()
    def project(self) -> None:
        """Set negative weights to zero where the function would not be convex with them."""
        for weight in self.convex_weights():
            weight.clamp_(min=0.0)

    @torch.no_grad()
    def start_small(self, generator: torch.Generator | None = None) -> None:
        r"""Draw the weights that must not be negative from :math:`\exp N(-10, 0.1^2)`.

        The network then starts near an affine function of the first layer's features.
        """
        for weight in self.convex_weights():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_((0.1 * noise - 10.0).exp())

    def describe(self) -> dict[str, Any]:
        """JSON that :func:`build` reads."""
        return {"kind": self.kind, "settings": self.settings}


class InputConvexNet(ConvexNetwork):
    """Dense input-convex network of vectors.

    The defaults are the paper's network of numbers, of 10,502 weights.

    Parameters
    ----------
    dim : int
    hidden : int
        Units of each layer.
    layers : int
        Layers after the first, each with a look at the input.
    beta : float, positive
        Sharpness of the softplus.
    alpha : float, not negative
        Factor of the square norm. With 0 the gradient need not have an inverse.
    """

    kind = "dense"

    def __init__(
        self,
        dim: int = 1,
        hidden: int = 50,
        layers: int = 4,
        beta: float = 10.0,
        alpha: float = 0.0,
    ) -> None:
        super().__init__()
        _check_numbers(beta, alpha, dim=dim, hidden=hidden, layers=layers)
        self.settings = {
            **{"dim": dim, "hidden": hidden, "layers": layers},
            **{"beta": beta, "alpha": alpha},
        }
        self.shape, self.beta, self.alpha = (dim,), beta, alpha
        self.first = nn.Linear(dim, hidden, bias=False)
        self.across = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(layers))
        self.skips = nn.ModuleList(nn.Linear(dim, hidden) for _ in range(layers))
        self.last = nn.Linear(hidden, 1, bias=False)
        self.last_skip = nn.Linear(dim, 1)
        self.project()

    def forward(self, x: Tensor) -> Tensor:
        """Values ``(B,)`` at vectors ``(B, dim)``."""
        z = F.softplus(self.first(x), self.beta)
        for across, skip in zip(self.across, self.skips, strict=True):
            z = F.softplus(across(z) + skip(x), self.beta)
        value = self.last(z) + self.last_skip(x)
        return value.squeeze(-1) + self.alpha * x.square().sum(-1)

    def convex_weights(self) -> Iterator[nn.Parameter]:
        """Weights that must not be negative."""
        for layer in (*self.across, self.last):
            yield layer.weight


class ConvexConvNet(ConvexNetwork):
    r"""Convolutional input-convex network of square images.

    Convolutions of 3 x 3 points, some of which halve the grid, then one of a window as large as
    what is left of it to `head` features, and a weighted sum of these. Each layer but the first
    also sees the image, resized to the grid that it acts on. The defaults are the paper's network
    of handwritten digits, of 317,056 weights.

    Parameters
    ----------
    channels : int
        Of the images.
    size : int
        Height and width of the images, a multiple of the product of the strides.
    hidden : int
        Features of each layer.
    strides : sequence of int
        Of the convolutions: 1, or 2 to halve the grid.
    head : int, optional
        Features of the window; `hidden` by default.
    bias : bool
        Whether the first convolution and the last sum have a bias.
    beta, alpha : float
        See :class:`InputConvexNet`.
    """

    kind = "convolutional"

    def __init__(
        self,
        channels: int = 1,
        size: int = 28,
        hidden: int = 64,
        strides: Sequence[int] = (1, 2, 1, 2),
        head: int | None = None,
        bias: bool = False,
        beta: float = 10.0,
        alpha: float = 0.01,
    ) -> None:
        super().__init__()
        _check_numbers(beta, alpha, channels=channels, size=size, hidden=hidden)
        strides = tuple(strides)
        if not strides or strides[0] != 1 or not set(strides) <= {1, 2}:
            raise UserError(f"strides must start with 1 and be 1 or 2, found {list(strides)}")
        factor, head = math.prod(strides), head or hidden
        if size % factor:
            raise UserError(
                f"images must have a multiple of {factor} points along a side, found {size}"
            )
        self.settings = {
            **{"channels": channels, "size": size, "hidden": hidden, "strides": list(strides)},
            **{"head": head, "bias": bias, "beta": beta, "alpha": alpha},
        }
        self.shape, self.beta, self.alpha = (channels, size, size), beta, alpha
        self.first = nn.Conv2d(channels, hidden, 3, padding=1, bias=bias)
        self.across = nn.ModuleList(
            nn.Conv2d(hidden, hidden, 3, stride, padding=1, bias=False) for stride in strides[1:]
        )
        self.skips = nn.ModuleList(
            nn.Conv2d(channels, hidden, 3, stride, padding=1) for stride in strides[1:]
        )
        self.head = nn.Conv2d(hidden, head, size // factor, bias=False)
        self.head_skip = nn.Conv2d(channels, head, size // factor)
        self.last = nn.Linear(head, 1, bias=bias)
        self.start_small()

    @classmethod
    def patches(
        cls,
        channels: int = 3,
        size: int = 128,
        hidden: int = 256,
        head: int = 64,
        beta: float = 100.0,
    ) -> Self:
        """Build the paper's network of 128 x 128 patches (7,235,713 weights), or a smaller one."""
        strides = (1, 2, 1, 2, 1, 2)
        return cls(channels, size, hidden, strides, head, bias=True, beta=beta, alpha=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Values ``(B,)`` at images ``(B, channels, size, size)``."""
        z, seen = F.softplus(self.first(x), self.beta), x
        for across, skip in zip(self.across, self.skips, strict=True):
            z = F.softplus(across(z) + skip(seen), self.beta)
            seen = _resized(x, seen, z)
        z = F.softplus(self.head(z) + self.head_skip(seen), self.beta)
        value = self.last(z.flatten(1))
        return value.squeeze(-1) + self.alpha * x.square().sum((1, 2, 3))

    def convex_weights(self) -> Iterator[nn.Parameter]:
        """Weights that must not be negative."""
        for layer in (*self.across, self.head, self.last):
            yield layer.weight


def _resized(x: Tensor, seen: Tensor, z: Tensor) -> Tensor:
    """Image on the grid of z; `seen` is what the layer before saw of it."""
    if seen.shape[2:] == z.shape[2:]:
        return seen
    return F.interpolate(x, z.shape[2:], mode="bilinear", align_corners=False)


def _check_numbers(beta: float, alpha: float, **counts: int) -> None:
    if not 0.0 < beta < math.inf:
        raise UserError(f"beta, the sharpness of the softplus, must be positive, found {beta}")
    if not 0.0 <= alpha < math.inf:
        raise UserError(f"alpha must not be negative, found {alpha}")
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name} must be at least 1, found {count}")


NETWORKS: dict[str, type[ConvexNetwork]] = {
    network.kind: network for network in (InputConvexNet, ConvexConvNet)
}
"""Networks by the name that files have for them."""


def build(description: Mapping[str, Any]) -> ConvexNetwork:
    """Untrained network of a description.

    Raises
    ------
    UserError
        If its kind is unknown or its settings are not those of the kind.
    """
    kind, settings = description.get("kind"), description.get("settings")
    if kind not in NETWORKS or not isinstance(settings, Mapping):
        raise UserError(f"no convex network is called {kind!r}; known are {', '.join(NETWORKS)}")
    try:
        return NETWORKS[kind](**settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"a network {kind!r} cannot have these settings: {error}") from error
