r"""Exact Gaussian process: Matern-5/2 with a length-scale for every input, made for small tables.

.. math:: y = c + f(x) + \varepsilon, \quad f \sim GP(0, s^2 k), \quad
          k = \left(1 + a + \tfrac{a^2}{3}\right) e^{-a}, \quad
          a^2 = 5 \sum_k (x_k - x'_k)^2 / \ell_k^2, \quad \varepsilon \sim N(0, \sigma^2)

independently for each output, at the mode of the hyperparameters' posterior (see
`understudy.models.tabular.marginal_likelihood`), with the dimension-scaled prior of Hvarfner et al.
(2024, arXiv 2402.02229) that BoTorch uses, a learnt output scale and a noise floor low enough to
interpolate deterministic simulators. Cross-validation starts from the fitted hyperparameters and
lets them move to what the rows of each fold's complement say, which matters below about a thousand
rows; on longer tables it is in closed form (see `understudy.models.tabular.conditioning`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.linalg import one_thread
from understudy.core.predictive import Predictive
from understudy.models.tabular.conditioning import GaussianProcess, Prior
from understudy.models.tabular.marginal_likelihood import (
    FAMILIES,
    Deadline,
    StationaryLikelihood,
    climb,
    dimension_scaled,
    most_probable,
    most_probable_shared,
)

if TYPE_CHECKING:
    from botorch.models import SingleTaskGP
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MAX_ROWS = 10_000
"""Most rows that are conditioned on: one factor takes 800 MB."""
_FACTOR_CELLS = 2.5e8  # cells of all factors together: 2 GB
_ONE_THREAD_ROWS = 500  # below, a second thread costs more than it brings


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

    def diagonal(self, A: Tensor) -> Tensor:
        """Variances (*batch, g, p)."""
        return self.outputscale.unsqueeze(-1).expand(*A.shape[:-2], -1, A.shape[-2])

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
        learn_outputscale: bool = True,
        min_noise: float = 1e-6,
        max_exact: int = 2000,
        fold_iterations: int | None = None,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.kernel = kernel
        self.learn_outputscale = learn_outputscale
        self.min_noise = min_noise
        self.max_exact = max_exact
        self.fold_iterations = fold_iterations
        self.max_seconds = max_seconds
        self.seed = seed

    # -- fitting ------------------------------------------------------------------------------

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        self._check(len(U))
        with one_thread(len(U) < _ONE_THREAD_ROWS):
            theta = self._hyperparameters(U.numpy(), Z.numpy(), Deadline.after(self.max_seconds))
            self._condition(self._prior_of(theta, Z.shape[1]), U, Z)
        if len(U) > self.max_exact or len(theta) < Z.shape[1]:
            self._rescale()

    def _check(self, rows: int) -> None:
        if self.kernel not in FAMILIES:
            accepted = ", ".join(FAMILIES)
            raise UserError(f"kernel must be one of {accepted}, got {self.kernel!r}")
        if not 0.0 < self.min_noise < 1.0:
            raise UserError(f"min_noise must lie between 0 and 1, got {self.min_noise!r}")
        if rows > MAX_ROWS:
            raise UserError(
                f"ExactGP takes at most {MAX_ROWS:,} rows, got {rows:,}: use SparseGP for more"
            )

    def _likelihood(self, X: Array) -> StationaryLikelihood:
        prior = dimension_scaled(X.shape[1], self.learn_outputscale, self.min_noise)
        return StationaryLikelihood(X, self.kernel, prior)

    def _hyperparameters(self, X: Array, Y: Array, deadline: Deadline) -> Array:
        """Hyperparameters theta (m, d + 2), or (1, d + 2) shared where factors would not fit."""
        n, m = Y.shape
        rows = np.random.default_rng(self.seed).permutation(n)[: self.max_exact]
        likelihood = self._likelihood(X[rows])
        if m > 1 and m * n**2 > _FACTOR_CELLS:
            return most_probable_shared(likelihood, Y[rows], deadline)[None]
        return most_probable(likelihood, Y[rows], deadline)

    def _prior_of(self, theta: Array, outputs: int) -> Prior:
        """Prior at hyperparameters theta (g, d + 2), where g is 1 or the number of outputs."""
        values = torch.from_numpy(np.exp(theta))
        kernel = StationaryKernel(self.kernel, values[:, :-2], values[:, -1])
        process = torch.arange(outputs).clamp_max(len(theta) - 1)
        return Prior(kernel, values[:, -2], process, torch.ones(outputs, dtype=values.dtype))

    # -- cross-validation ---------------------------------------------------------------------

    def _fit_folds(self, U: Tensor, Z: Tensor, folds: NDArray[np.int_]) -> Predictive:
        deadline = Deadline.after(self.max_seconds)
        self._fit(U, Z)
        steps = self._fold_steps(len(U))
        if steps == 0 or len(self._prior.noise) < Z.shape[1]:
            return self._held_out(folds)
        predictive = self._held_out(folds)
        mean, sd = predictive.loc[0].clone(), predictive.scale[0].clone()
        held = folds[folds >= 0]
        with one_thread(len(U) < _ONE_THREAD_ROWS):
            for fold in np.unique(held):
                if deadline.passed:
                    break
                rows = torch.from_numpy(held == fold)
                part = self._refitted(U, Z, folds != fold, steps, deadline)
                refitted = part._predictive(U[torch.from_numpy(folds == fold)])
                mean[rows], sd[rows] = refitted.loc[0], refitted.scale[0]
        return Predictive.gaussian(mean, sd)

    def _fold_steps(self, rows: int) -> int:
        if self.fold_iterations is not None:
            return self.fold_iterations
        return 8 if rows <= 400 else 4 if rows <= 1000 else 0

    def _refitted(
        self, U: Tensor, Z: Tensor, inside: NDArray[np.bool_], steps: int, deadline: Deadline
    ) -> ExactGP:
        """Return a copy fitted to some rows by a few steps from these hyperparameters."""
        at = torch.from_numpy(inside)
        U, Z = U[at], Z[at]
        likelihood = self._likelihood(U.numpy())
        theta = [
            climb(likelihood, np.asfortranarray(Z[:, [j]].numpy()), start, deadline, steps)
            for j, start in enumerate(self._theta())
        ]
        copy = ExactGP(**self.get_params())
        copy._condition(copy._prior_of(np.array(theta), Z.shape[1]), U, Z)
        return copy

    def _theta(self) -> Array:
        """Fitted hyperparameters (g, d + 2)."""
        kernel = self._kernel()
        parts = [kernel.lengthscale, self._prior.noise[:, None], kernel.outputscale[:, None]]
        return torch.cat(parts, 1).log().numpy()

    def _kernel(self) -> StationaryKernel:
        kernel = self._prior.kernel
        assert isinstance(kernel, StationaryKernel)
        return kernel

    # -- other forms --------------------------------------------------------------------------

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
        process, spread = self._prior.process, self._prior.spread
        lengthscale = self._kernel().lengthscale[process]
        noise = (spread * self._prior.noise[process]).reshape(*batch, 1)
        model.covar_module.base_kernel.lengthscale = lengthscale.reshape(*batch, 1, d)
        model.covar_module.outputscale = (spread * self._kernel().outputscale[process]).reshape(
            batch
        )
        model.likelihood.noise = noise
        model.mean_module.constant = self._mean.reshape(batch)
        return model.eval()

    def _state(self) -> dict[str, Tensor]:
        kernel, prior = self._kernel(), self._prior
        return {
            "inputs": self._inputs,
            "targets": self._targets,
            "lengthscale": kernel.lengthscale,
            "outputscale": kernel.outputscale,
            "noise": prior.noise,
            "process": prior.process,
            "spread": prior.spread,
        }

    def _load(self, state: dict[str, Tensor]) -> None:
        kernel = StationaryKernel(self.kernel, state["lengthscale"], state["outputscale"])
        prior = Prior(kernel, state["noise"], state["process"], state["spread"])
        self._condition(prior, state["inputs"], state["targets"])
