"""Log densities of many chains at once, with their gradients, exact or from a few rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]
"""Positions (chains, dim) to log densities (chains,), up to a constant of each chain."""

ValueAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Positions (chains, dim) to log densities (chains,) and their gradients (chains, dim)."""


def value_and_gradient(log_density: LogDensity) -> ValueAndGradient:
    """Return the log density with its gradient: its own ``value_and_gradient``, or autograd's.

    Parameters
    ----------
    log_density : callable (chains, dim) -> (chains,)
        A chain's value must depend on its own position only. An object with a method
        ``value_and_gradient`` has that used instead, where a gradient in closed form is faster.
    """
    own: ValueAndGradient | None = getattr(log_density, "value_and_gradient", None)
    if own is not None:
        return own

    def by_autograd(position: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            position = position.detach().requires_grad_()
            value = log_density(position)
            (gradient,) = torch.autograd.grad(value.sum(), position)
        return value.detach(), gradient

    return by_autograd


@dataclass(frozen=True)
class Minibatch:
    """A log density estimated without bias from rows drawn anew at each step.

    Parameters
    ----------
    log_density : callable ((chains, dim), LongTensor (chains, batch)) -> (chains,)
        Estimate from these rows of each chain. A method ``value_and_gradient`` of the same
        arguments is used where the object has one.
    rows : int or LongTensor (chains,)
        Number of rows that each chain has.
    batch_size : int
        Rows in an estimate, drawn with replacement, for each chain by itself.
    """

    log_density: Callable[[Tensor, Tensor], Tensor]
    rows: int | Tensor
    batch_size: int

    def gradient(self, position: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Estimates (chains,) of the log density and (chains, dim) of its gradient."""
        uniform = torch.rand(
            len(position),
            self.batch_size,
            generator=generator,
            dtype=torch.float64,
            device=position.device,
        )
        count = self.rows.unsqueeze(1) if isinstance(self.rows, Tensor) else self.rows
        chosen = (uniform * count).long()
        own = getattr(self.log_density, "value_and_gradient", None)
        if own is not None:
            return own(position, chosen)
        return value_and_gradient(lambda theta: self.log_density(theta, chosen))(position)


StochasticTarget = Minibatch | LogDensity
"""What stochastic-gradient samplers accept; a plain log density has an exact gradient."""


def stochastic_gradient(
    target: StochasticTarget, position: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Log densities (chains,) and gradients (chains, dim), estimated or exact."""
    if isinstance(target, Minibatch):
        return target.gradient(position, generator)
    return value_and_gradient(target)(position)
