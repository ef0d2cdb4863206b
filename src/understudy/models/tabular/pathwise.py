r"""Whole functions from the posterior of a Gaussian process, by pathwise conditioning.

Wilson et al. 2020, arXiv 2002.09309. With a draw g of the prior and a draw :math:`\varepsilon` of
the noise, Matheron's rule

.. math:: f(x) = E[f(x)] + g(x) - k(x)^\top K^{-1} (g(X) + \varepsilon)

is a draw of the posterior, to be evaluated anywhere at a cost linear in the points. The prior draw
is :math:`g = \Phi\theta` with :math:`\theta \sim N(0, I)` and random features :math:`\Phi\Phi^\top
\approx k`: cosines and sines of random frequencies (Rahimi & Recht 2007) for a stationary kernel,
the last hidden layer of a random network for that of an infinitely wide one. The rule uses the
exact kernel, so draws pass through the data as exactly as the process does; where the data say much
but not all, their spread is that of the posterior to some ten percent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Functions: TypeAlias = Callable[[Tensor], Tensor]
"""Maps inputs (n, d) to values (s, n, m) of the same s functions at every call."""

Features: TypeAlias = Callable[[Tensor], Tensor]
"""Maps inputs (n, d) to random features (n, p)."""

FREQUENCIES = 512


def waves(
    name: str,
    lengthscale: Tensor,
    outputscale: Tensor,
    generator: torch.Generator,
    count: int = FREQUENCIES,
) -> Features:
    """Random features of a stationary kernel, (n, 2 count).

    Parameters
    ----------
    name : {"matern52", "rbf"}
    lengthscale : Tensor (d,)
    outputscale : Tensor ()
    generator : torch.Generator
    count : int
        Frequencies.
    """
    shape = (count, len(lengthscale))
    frequencies = torch.randn(shape, generator=generator, dtype=torch.float64) / lengthscale
    if name == "matern52":  # its spectrum is Student's, of five degrees of freedom
        chi = torch.randn((count, 5), generator=generator, dtype=torch.float64).square().mean(1)
        frequencies = frequencies / chi.sqrt().unsqueeze(1)
    scale = (outputscale / count).sqrt()

    def features(U: Tensor) -> Tensor:
        phase = U @ frequencies.mT
        return scale * torch.cat([phase.cos(), phase.sin()], dim=1)

    return features


def scaled(features: Features, factor: Tensor) -> Features:
    """Return the features of a kernel times the square of a factor."""
    return lambda U: factor * features(U)


def matheron(
    features: Features,
    X: Tensor,
    noise: Tensor | float,
    solve: Callable[[Tensor], Tensor],
    outputs: int,
    count: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    r"""Draws of :math:`\theta` and of :math:`K^{-1}(g(X) + \varepsilon)`.

    Parameters
    ----------
    features : callable
        Of the prior.
    X : Tensor (n, d)
        Rows conditioned on.
    noise : float
        Variance.
    solve : callable
        Maps (n, c) to its product with :math:`K^{-1}`.
    outputs, count : int
        Number of outputs k and of draws s of each.
    generator : torch.Generator

    Returns
    -------
    theta : Tensor (p, s k)
    correction : Tensor (n, s k)
    """
    at_rows = features(X)
    columns = count * outputs
    theta = torch.randn((at_rows.shape[1], columns), generator=generator, dtype=X.dtype)
    fresh = torch.randn((len(X), columns), generator=generator, dtype=X.dtype)
    return theta, solve(at_rows @ theta + noise**0.5 * fresh)
