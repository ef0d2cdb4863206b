r"""How well any method could tell the numbers of an equation from noisy samples.

Near the true parameters :math:`\theta` and first state :math:`u_0` samples are
:math:`u + J \delta`. With noise of deviation :math:`\sigma` and a prior of
the variances :math:`\Pi` what is known of :math:`\delta` after them has the covariance

.. math:: C = (J^\top J / \sigma^2 + \Pi^{-1})^{-1}

(van Trees 1968), which no estimate undercuts on average as long as the linearisation is good.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.core.expressions import ExpressionList
from understudy.reproduce.equations.setting import Size, Task, by_tree
from understudy.simulate.ode_families import ODEFamily

_STEP = 1e-4
_WIDTH, _BOX = 0.1, 2.0
"""Half of the ranges of parameters, as a share of their means, and of first states."""


def best_equations(
    size: Size, test: Task, given: int, noise: float = 0.02, seed: int = 0
) -> list[ExpressionList]:
    """The right trees with numbers that err as much as those of the best estimate would.

    Parameters
    ----------
    size : Size
    test : Task
        With systems of the scale.
    given : int
        Samples that the estimate is of.
    noise : float
        Norm of the noise over that of the samples.
    seed : int
        Of the errors, which are drawn from a normal distribution with the covariance above.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[int, ExpressionList] = {}
    for tree, rows in by_tree(test):
        family = next(f for f in size.families if f.skeleton == tree)
        u = test.at.u[rows, :given, : tree.dim].double()
        parameters = family.parameters_of(test.at.numbers[rows])
        covariance = posterior(family, parameters, u, test.at.t[:given], noise)
        normal = torch.randn(*covariance.shape[:2], 1, generator=generator, dtype=torch.float64)
        errors = (torch.linalg.cholesky(covariance) @ normal)[:, : parameters.shape[1], 0]
        numbers = family.numbers(parameters * (1.0 + errors)).tolist()
        found |= {i: tree.with_numbers(row) for i, row in zip(rows.tolist(), numbers, strict=True)}
    return [found[i] for i in range(len(found))]


def posterior(
    family: ODEFamily, parameters: Tensor, u: Tensor, t: Tensor, noise: float = 0.02
) -> Tensor:
    """Covariance of what samples tell of relative parameters and of the first state.

    Parameters
    ----------
    family : ODEFamily
    parameters : Tensor (N, P)
    u : Tensor (N, T, d)
        Without noise.
    t : Tensor (T,)
    noise : float

    Returns
    -------
    Tensor (N, P + d, P + d)
    """
    count, varying, dim = len(u), parameters.shape[1], u.shape[2]
    whole = varying + dim
    shifts = torch.cat([torch.eye(whole), -torch.eye(whole)]).double() * _STEP
    moved = (parameters[:, None] * (1.0 + shifts[:, :varying])).flatten(0, 1)
    starts = (u[:, :1] + shifts[:, varying:]).flatten(0, 1)
    ends = family.simulate(moved, starts, t).flatten(1).unflatten(0, (count, 2, whole))
    jacobian = ((ends[:, 0] - ends[:, 1]) / (2.0 * _STEP)).mT
    variance = noise**2 * u.square().mean((1, 2))
    # of uniform distributions
    prior = torch.tensor([_WIDTH**2 / 3] * varying + [_BOX**2 / 3] * dim, dtype=torch.float64)
    precision = jacobian.mT @ jacobian / variance[:, None, None] + torch.diag(1.0 / prior)
    return torch.linalg.inv(precision)
