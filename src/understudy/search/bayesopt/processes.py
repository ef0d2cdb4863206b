r"""Posteriors of exact Gaussian processes at the points an optimiser asks for.

The same as `Surrogate.posterior` to rounding, but marginals are had without any covariance, and
joint posteriors are factorised only when samples are drawn, with as much jitter as that takes:
points that an optimiser moves onto one another, or onto a run, have a singular covariance.
"""

from __future__ import annotations

import torch
from botorch.posteriors import GPyTorchPosterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from linear_operator import to_linear_operator
from torch import Tensor

from understudy.models.tabular.gaussian_process import GaussianProcess

_LEAST_VARIANCE = 1e-12  # of the prior's
_JITTER = 1e-8  # of the prior's variance; most covariances can be factorised with it


class Processes:
    """Independent outputs of fitted exact processes.

    Parameters
    ----------
    surrogates : sequence of GaussianProcess
        Their m outputs, one surrogate after the other.
    """

    def __init__(self, surrogates: tuple[GaussianProcess, ...]) -> None:
        self.surrogates = surrogates
        self._factors = [
            [torch.from_numpy(part.factor.T.copy()).mT for part in surrogate._conditioned]
            for surrogate in surrogates
        ]
        self._weights = [
            [
                (torch.from_numpy(part.mean), torch.from_numpy(part.weights.copy()))
                for part in surrogate._conditioned
            ]
            for surrogate in surrogates
        ]

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances (b, m) of the functions at X (b, f)."""
        means: list[Tensor] = []
        variances: list[Tensor] = []
        for s, surrogate in enumerate(self.surrogates):
            U, prior = surrogate._scaled(X), surrogate._prior
            cross, whole = prior.kernel(U, surrogate._inputs), prior.kernel.diagonal(U)
            for j in range(surrogate.n_outputs_):
                g, at = _place(surrogate, j)
                half = torch.linalg.solve_triangular(self._factors[s][g], cross[g].mT, upper=False)
                left = whole[g] - half.square().sum(0)
                left = left.clamp_min(0.0) + _LEAST_VARIANCE * whole[g]
                constant, weights = self._weights[s][g]
                means.append(_shifted(surrogate, j, constant[at] + cross[g] @ weights[:, at]))
                variances.append(_spread(surrogate, j) * left)
        return torch.stack(means, -1), torch.stack(variances, -1)

    def joint(self, X: Tensor) -> GPyTorchPosterior:
        """Posterior of the functions at X (*batch, q, f), joint over q."""
        means: list[Tensor] = []
        covariances: list[Tensor] = []
        for s, surrogate in enumerate(self.surrogates):
            U, prior = surrogate._scaled(X), surrogate._prior
            cross, whole = prior.kernel(U, surrogate._inputs), prior.kernel(U, U)
            for j in range(surrogate.n_outputs_):
                g, at = _place(surrogate, j)
                here = cross[..., g, :, :]
                columns = here.reshape(-1, here.shape[-1]).mT
                half = torch.linalg.solve_triangular(self._factors[s][g], columns, upper=False)
                half = half.mT.reshape(here.shape)
                constant, weights = self._weights[s][g]
                means.append(_shifted(surrogate, j, constant[at] + here @ weights[:, at]))
                jitter = _JITTER * prior.kernel.diagonal(U)[..., g, :]
                left = whole[..., g, :, :] - half @ half.mT + torch.diag_embed(jitter)
                covariances.append(_spread(surrogate, j) * left)
        return _normal(means, covariances)


def _place(surrogate: GaussianProcess, output: int) -> tuple[int, int]:
    """Which process an output follows, and which of its outputs it is."""
    process = surrogate._prior.process
    g = int(process[output])
    return g, int((process[:output] == g).sum())


def _shifted(surrogate: GaussianProcess, output: int, mean: Tensor) -> Tensor:
    return surrogate._y_shift[output] + surrogate._y_scale[output] * mean


def _spread(surrogate: GaussianProcess, output: int) -> Tensor:
    return surrogate._y_scale[output].square() * surrogate._prior.spread[output]


def _normal(means: list[Tensor], covariances: list[Tensor]) -> GPyTorchPosterior:
    """Posterior of m outputs from means (*batch, q) and covariances (*batch, q, q)."""
    if len(means) == 1:
        return GPyTorchPosterior(MultivariateNormal(means[0], to_linear_operator(covariances[0])))
    normal = MultivariateNormal(
        torch.stack(means, -2), to_linear_operator(torch.stack(covariances, -3))
    )
    return GPyTorchPosterior(MultitaskMultivariateNormal.from_batch_mvn(normal, task_dim=-1))
