r"""Posteriors of exact Gaussian processes at the points an optimiser asks for.

The same as `Surrogate.posterior` to rounding, but marginals are had without any covariance, and
joint posteriors are factorised only when samples are drawn, with as much jitter as that takes:
points that an optimiser moves onto one another, or onto a run, have a singular covariance.

What would be believed if values at p points P were known is in closed form, too. With mean
:math:`\mu` and covariance c given the runs, and :math:`c(P, P) = L L^\top`, values drawn there are
:math:`\mu(P) + L z_s`, and given these

.. math:: \mu_s(x) = \mu(x) + e(x)^\top z_s, \qquad \sigma^2(x) = c(x, x) - |e(x)|^2, \qquad
          e(x) = L^{-1} c(P, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from botorch.posteriors import GPyTorchPosterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from linear_operator import to_linear_operator
from torch import Tensor

from understudy.core.linalg import cholesky
from understudy.models.tabular.conditioning import Kernel
from understudy.models.tabular.gaussian_process import GaussianProcess

_LEAST_VARIANCE = 1e-12  # of the prior's
_JITTER = 1e-8  # of the prior's variance; most covariances can be factorised with it


@dataclass(frozen=True)
class Process:
    """One output of a fitted exact process.

    Parameters
    ----------
    surrogate : GaussianProcess
    kernel : Kernel
        Of this process alone.
    factor : Tensor (n, n)
        Lower Cholesky factor of the covariance of the training outputs.
    mean : Tensor ()
        Constant mean.
    weights : Tensor (n,)
    level, spread : Tensor ()
        Values in the units of the targets are ``level + spread * f``.
    """

    surrogate: GaussianProcess
    kernel: Kernel
    factor: Tensor
    mean: Tensor
    weights: Tensor
    level: Tensor
    spread: Tensor

    @classmethod
    def of(cls, surrogate: GaussianProcess, output: int) -> Process:
        """Return one output of a fitted surrogate."""
        prior = surrogate.process_prior
        units = surrogate.output_units
        g = int(prior.process[output])
        at = int((prior.process[:output] == g).sum())
        part = surrogate.conditioned[g]
        return cls(
            surrogate,
            prior.kernel.process(g),
            torch.from_numpy(part.factor.T.copy()).mT,
            torch.from_numpy(part.mean)[at],
            torch.from_numpy(part.weights[:, at].copy()),
            units.shift[output],
            units.scale[output] * prior.spread[output].sqrt(),
        )

    def scaled(self, X: Tensor) -> Tensor:
        """Inputs (..., f) as the kernel takes them."""
        return self.surrogate.input_units.forward(X)

    def explained(self, U: Tensor) -> tuple[Tensor, Tensor]:
        r"""Mean of f (*batch, q) at scaled inputs U (*batch, q, f), and :math:`K^{-1/2} k(U)`.

        The latter is (*batch, q, n); its inner products are the covariance that the runs explain.
        """
        cross = self.kernel(U, self.surrogate.training_inputs).squeeze(-3)
        columns = cross.reshape(-1, cross.shape[-1]).mT
        half = torch.linalg.solve_triangular(self.factor, columns, upper=False)
        return self.mean + cross @ self.weights, half.mT.reshape(cross.shape)

    def marginal(self, U: Tensor, half: Tensor) -> Tensor:
        """Variance of f (b,) at scaled inputs U (b, f) of which ``half`` is explained."""
        whole = self.kernel.diagonal(U)[0]
        return (whole - half.square().sum(-1)).clamp_min(0.0) + _LEAST_VARIANCE * whole

    def covariance(self, U: Tensor, half: Tensor) -> Tensor:
        """Covariance of f (*batch, q, q) at scaled inputs U (*batch, q, f)."""
        jitter = torch.diag_embed(_JITTER * self.kernel.diagonal(U).squeeze(-2))
        return self.kernel(U, U).squeeze(-3) - half @ half.mT + jitter


class Processes:
    """Independent outputs of fitted exact processes.

    Parameters
    ----------
    surrogates : sequence of GaussianProcess
        Their m outputs, one surrogate after the other.
    """

    def __init__(self, surrogates: Sequence[GaussianProcess]) -> None:
        self.outputs = [Process.of(s, j) for s in surrogates for j in range(s.n_outputs_)]

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances (b, m) of the functions at X (b, f)."""
        means: list[Tensor] = []
        variances: list[Tensor] = []
        for output in self.outputs:
            U = output.scaled(X)
            mean, half = output.explained(U)
            means.append(output.level + output.spread * mean)
            variances.append(output.spread.square() * output.marginal(U, half))
        return torch.stack(means, -1), torch.stack(variances, -1)

    def joint(self, X: Tensor) -> GPyTorchPosterior:
        """Posterior of the functions at X (*batch, q, f), joint over q."""
        means: list[Tensor] = []
        covariances: list[Tensor] = []
        for output in self.outputs:
            U = output.scaled(X)
            mean, half = output.explained(U)
            means.append(output.level + output.spread * mean)
            covariances.append(output.spread.square() * output.covariance(U, half))
        return _normal(means, covariances)

    def supposing(self, P: Tensor, normals: Tensor) -> Supposition:
        """Return what would be believed if values at P were known.

        Parameters
        ----------
        P : Tensor (p, f)
        normals : Tensor (s, p, m)
            Standard normals, of which each of the s cases is made.
        """
        return Supposition(self.outputs, P, normals)


class Supposition:
    """Processes that are further conditioned on s sets of values drawn at some points.

    Parameters
    ----------
    outputs : sequence of Process
    P : Tensor (p, f)
    normals : Tensor (s, p, m)

    Attributes
    ----------
    values : Tensor (s, p, m)
        The values drawn.
    """

    def __init__(self, outputs: Sequence[Process], P: Tensor, normals: Tensor) -> None:
        self.outputs, self.P, self.normals = outputs, P, normals
        self._known = []
        values = []
        for j, output in enumerate(outputs):
            U = output.scaled(P)
            mean, half = output.explained(U)
            factor = cholesky(output.covariance(U, half))
            values.append(output.level + output.spread * (mean + normals[:, :, j] @ factor.mT))
            self._known.append((U, half, factor))
        self.values = torch.stack(values, -1)

    def moments(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Means (b, s, m) and standard deviations (b, 1, m) at X (b, f)."""
        means: list[Tensor] = []
        deviations: list[Tensor] = []
        for j, (output, (V, known, factor)) in enumerate(
            zip(self.outputs, self._known, strict=True)
        ):
            U = output.scaled(X)
            mean, half = output.explained(U)
            cross = output.kernel(U, V)[0] - half @ known.mT
            e = torch.linalg.solve_triangular(factor, cross.mT, upper=False).mT
            both = torch.cat([half, e], -1)
            shifted = mean.unsqueeze(-1) + e @ self.normals[:, :, j].mT
            means.append(output.level + output.spread * shifted)
            deviations.append(output.spread * output.marginal(U, both).sqrt().unsqueeze(-1))
        return torch.stack(means, -1), torch.stack(deviations, -1)


def _normal(means: list[Tensor], covariances: list[Tensor]) -> GPyTorchPosterior:
    """Posterior of m outputs from means (*batch, q) and covariances (*batch, q, q)."""
    if len(means) == 1:
        return GPyTorchPosterior(MultivariateNormal(means[0], to_linear_operator(covariances[0])))
    normal = MultivariateNormal(
        torch.stack(means, -2), to_linear_operator(torch.stack(covariances, -3))
    )
    return GPyTorchPosterior(MultitaskMultivariateNormal.from_batch_mvn(normal, task_dim=-1))
