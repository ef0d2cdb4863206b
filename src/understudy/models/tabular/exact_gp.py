r"""Exact Gaussian process: Matern-5/2 with a length-scale for every input, made for small tables.

.. math:: y = c + f(x) + \varepsilon, \quad f \sim GP(0, s^2 k), \quad
          k = \left(1 + a + \tfrac{a^2}{3}\right) e^{-a}, \quad
          a^2 = 5 \sum_k (x_k - x'_k)^2 / \ell_k^2, \quad \varepsilon \sim N(0, \sigma^2)

independently for each output, at the mode of the hyperparameters' posterior (see
`understudy.models.tabular.marginal_likelihood`), with the dimension-scaled prior of Hvarfner et al.
(2024, arXiv 2402.02229) that BoTorch uses, a learnt output scale and a noise floor low enough to
interpolate deterministic simulators; or with the gamma priors that BoTorch used before.
Cross-validation starts from the fitted hyperparameters and lets them move to what the rows of each
fold's complement say, which matters below about a thousand rows; on longer tables it is in closed
form (see `understudy.models.tabular.conditioning`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.tabular.gamma_prior import gamma_scaled
from understudy.models.tabular.gaussian_process import GaussianProcess, check_process
from understudy.models.tabular.marginal_likelihood import (
    FAMILIES,
    StationaryLikelihood,
    dimension_scaled,
)
from understudy.models.tabular.pathwise import Features, waves

if TYPE_CHECKING:
    from botorch.models import SingleTaskGP

PRIORS = {"dimension-scaled": dimension_scaled, "gamma": gamma_scaled}
"""Priors of length-scales, noise and output scale by name."""


@dataclass(frozen=True)
class StationaryKernel:
    """Matern-5/2 or squared-exponential kernels of g processes.

    Parameters
    ----------
    name : str
        ``"matern52"`` or ``"rbf"``.
    lengthscale : Tensor (g, d)
    outputscale : Tensor (g,)
    """

    name: str
    lengthscale: Tensor
    outputscale: Tensor

    def __call__(self, A: Tensor, B: Tensor) -> Tensor:
        """Covariances (*batch, g, p, q) of A (*batch, p, d) with B (q, d) or (*batch, q, d)."""
        if not (torch.is_grad_enabled() and (A.requires_grad or B.requires_grad)):
            return self._in_place(A, B)
        a = A.unsqueeze(-3) / self.lengthscale.unsqueeze(-2)
        b = B.unsqueeze(-3) / self.lengthscale.unsqueeze(-2)
        squares = -2.0 * (a @ b.mT)
        squares += a.square().sum(-1).unsqueeze(-1)
        squares += b.square().sum(-1).unsqueeze(-2)
        scale = self.outputscale[:, None, None]
        if self.name == "rbf":
            return scale * torch.exp(-0.5 * squares.clamp_min(0.0))
        distance = (5.0 * squares).clamp_min(1e-30).sqrt()
        return scale * (1.0 + distance + distance.square() / 3.0) * torch.exp(-distance)

    def _in_place(self, A: Tensor, B: Tensor) -> Tensor:
        """Covariances as by a call, without gradient: fewer passes through memory."""
        factor = 0.5**0.5 if self.name == "rbf" else 5.0**0.5
        inverse = factor / self.lengthscale.unsqueeze(-2)
        a, b = A.unsqueeze(-3) * inverse, B.unsqueeze(-3) * inverse
        squares = torch.matmul(a, (-2.0 * b).mT)
        squares += a.square().sum(-1).unsqueeze(-1)
        squares += b.square().sum(-1).unsqueeze(-2)
        scale = self.outputscale[:, None, None]
        if self.name == "rbf":
            return squares.clamp_min_(0.0).neg_().exp_().mul_(scale)
        distance = squares.clamp_min_(1e-30).sqrt()
        squares.div_(3.0).add_(distance).add_(1.0)
        return squares.mul_(distance.neg_().exp_()).mul_(scale)

    def diagonal(self, A: Tensor) -> Tensor:
        """Variances (*batch, g, p)."""
        return self.outputscale.unsqueeze(-1).expand(*A.shape[:-2], -1, A.shape[-2])

    def random_features(self, generator: torch.Generator) -> Features:
        """Features (n, p) of U (n, d) whose inner products are nearly the kernel's; g = 1."""
        return waves(self.name, self.lengthscale[0], self.outputscale[0], generator)

    def process(self, index: int) -> StationaryKernel:
        """Return the kernel of one process."""
        at = slice(index, index + 1)
        return StationaryKernel(self.name, self.lengthscale[at], self.outputscale[at])


class ExactGP(GaussianProcess):
    """Exact Gaussian process regression with a length-scale for every input.

    Parameters
    ----------
    kernel : {"matern52", "rbf"}
        Matern-5/2 suits most simulators; the squared exponential suits very smooth ones.
    prior : {"dimension-scaled", "gamma"}
        Of the hyperparameters: length-scales that grow with the number of inputs, or stay at about
        a third of the cube, as before 2024 (see `understudy.models.tabular.gamma_prior`).
    learn_outputscale : bool
        Otherwise the prior variance is that of the outputs, as in BoTorch.
    min_noise : float
        Least noise variance, as a fraction of an output's variance.
    max_exact : int
        Rows up to which all of them choose the hyperparameters; a random subset does above.
    fold_iterations : int, optional
        Steps that the hyperparameters take in each fold of a cross-validation; 8 by default up to
        400 rows, 4 up to 1,000, none above.
    max_seconds : float, optional
        Time after which the best hyperparameters so far are kept.
    seed : int
        Of the random subset.
    """

    def __init__(
        self,
        *,
        kernel: str = "matern52",
        prior: str = "dimension-scaled",
        learn_outputscale: bool = True,
        min_noise: float = 1e-6,
        max_exact: int = 2000,
        fold_iterations: int | None = None,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.kernel = kernel
        self.prior = prior
        self.learn_outputscale = learn_outputscale
        self.min_noise = min_noise
        self.max_exact = max_exact
        self.fold_iterations = fold_iterations
        self.max_seconds = max_seconds
        self.seed = seed

    def _check(self, rows: int) -> None:
        if self.kernel not in FAMILIES:
            accepted = ", ".join(FAMILIES)
            raise UserError(f"kernel must be one of {accepted}, got {self.kernel!r}")
        if self.prior not in PRIORS:
            accepted = ", ".join(PRIORS)
            raise UserError(f"prior must be one of {accepted}, got {self.prior!r}")
        check_process(self, rows)

    def _likelihood(self, U: Tensor) -> StationaryLikelihood:
        prior = PRIORS[self.prior](U.shape[1], self.learn_outputscale, self.min_noise)
        return StationaryLikelihood(U.numpy(), self.kernel, prior)

    def _kernel(self, parameters: Tensor) -> StationaryKernel:
        return StationaryKernel(self.kernel, parameters[:, :-2], parameters[:, -1])

    def to_botorch(self) -> SingleTaskGP:
        """Return the same posterior as a BoTorch model, in the units of the training data."""
        from botorch.models import SingleTaskGP
        from botorch.models.transforms import Normalize, Standardize
        from gpytorch.constraints import GreaterThan
        from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel
        from gpytorch.likelihoods import GaussianLikelihood
        from gpytorch.means import ConstantMean

        m, d = len(self._prior.spread), self._inputs.shape[1]
        batch = torch.Size([m] if m > 1 else [])
        shape = {"ard_num_dims": d, "batch_shape": batch}
        base = RBFKernel(**shape) if self.kernel == "rbf" else MaternKernel(nu=2.5, **shape)
        floor = GreaterThan(0.5 * self.min_noise * float(self._prior.spread.min()))
        bounds = torch.stack([self._x_shift, self._x_shift + self._x_scale])
        model = SingleTaskGP(
            self._x_shift + self._x_scale * self._inputs,
            self._y_shift + self._y_scale * self._targets,
            likelihood=GaussianLikelihood(noise_constraint=floor, batch_shape=batch),
            covar_module=ScaleKernel(base, batch_shape=batch),
            mean_module=ConstantMean(batch_shape=batch),
            input_transform=Normalize(d, bounds=bounds),
            outcome_transform=Standardize(m),
        ).to(torch.float64)
        parameters, spread = self._theta.exp()[self._prior.process], self._prior.spread
        model.covar_module.base_kernel.lengthscale = parameters[:, :-2].reshape(*batch, 1, d)
        model.covar_module.outputscale = (spread * parameters[:, -1]).reshape(batch)
        model.likelihood.noise = (spread * parameters[:, -2]).reshape(*batch, 1)
        model.mean_module.constant = self._constant.reshape(batch)
        return model.eval()
