"""Exact Gaussian process regression: all but the kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.linalg import blas
from sklearn.base import clone
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.linalg import one_thread
from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.conditioning import (
    CELLS,
    Conditioned,
    Kernel,
    Prior,
    condition,
    joint_normal,
)
from understudy.models.tabular.marginal_likelihood import (
    Deadline,
    MarginalLikelihood,
    climb,
    most_probable,
    most_probable_shared,
)
from understudy.models.tabular.pathwise import Functions, matheron

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from botorch.posteriors.gpytorch import GPyTorchPosterior
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MAX_ROWS = 10_000
"""Most rows that are conditioned on: one factor takes 800 MB."""
_FACTOR_CELLS = 2.5e8  # cells of all factors together: 2 GB
_CACHED_CELLS = 60_000
_FEWEST_ROWS = 256
_ONE_THREAD_ROWS = 500  # below, a second thread costs more than it brings


class GaussianProcess(Surrogate):
    """Exact Gaussian process regression with a constant mean, one process for each output.

    Hyperparameters theta (see `MarginalLikelihood`) are at the mode of their posterior. Outputs
    share them only where the factors of all would not fit into memory. In cross-validation they
    move to what the rows outside each fold say, which matters up to about a thousand rows; on
    longer tables it is in closed form.

    A subclass gives ``_likelihood(U)``, ``_kernel(parameters)`` of the exponentials (g, p) of
    theta, and ``_check(rows)``, which refuses options; and has the options ``max_exact``,
    ``fold_iterations``, ``max_seconds`` and ``seed`` of `ExactGP`.
    """

    min_noise: float
    max_exact: int
    fold_iterations: int | None
    max_seconds: float | None
    seed: int
    _theta: Tensor
    _prior: Prior
    _inputs: Tensor
    _targets: Tensor

    def _check(self, rows: int) -> None:
        raise NotImplementedError

    def _likelihood(self, U: Tensor) -> MarginalLikelihood:
        raise NotImplementedError

    def _kernel(self, parameters: Tensor) -> Kernel:
        raise NotImplementedError

    # -- fitting ------------------------------------------------------------------------------

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        self._check(len(U))
        with one_thread(len(U) < _ONE_THREAD_ROWS):
            self._condition(self._most_probable(U, Z), U, Z)
        if len(U) > self.max_exact or len(self._theta) < Z.shape[1]:
            self._rescale()

    def _most_probable(self, U: Tensor, Z: Tensor) -> Tensor:
        """Hyperparameters (m, p), or (1, p) where all outputs share them."""
        n, m = Z.shape
        chosen = np.random.default_rng(self.seed).permutation(n)[: self.max_exact]
        rows = torch.from_numpy(chosen)
        deadline = Deadline.after(self.max_seconds)
        find = most_probable_shared if m > 1 and m * n**2 > _FACTOR_CELLS else most_probable
        theta = find(self._likelihood(U[rows]), Z[rows].numpy(), deadline)
        return torch.from_numpy(np.atleast_2d(theta))

    def _condition(self, theta: Tensor, U: Tensor, Z: Tensor, spread: Tensor | None = None) -> None:
        """Take the posterior given U (n, d) and Z (n, m) at theta (g, p)."""
        parameters, m = theta.exp(), Z.shape[1]
        process = torch.arange(m).clamp_max(len(theta) - 1)
        spread = torch.ones(m, dtype=Z.dtype) if spread is None else spread
        self._theta, self._inputs, self._targets = theta, U, Z
        self._prior = Prior(self._kernel(parameters), parameters[:, -2], process, spread)
        self._conditioned = [
            condition(
                self._prior.kernel.process(g), float(noise), U, Z[:, self.followers(g)].numpy()
            )
            for g, noise in enumerate(self._prior.noise)
        ]

    def _rescale(self) -> None:
        """Set the spread of each output to its most likely value given everything else."""
        spread = torch.ones_like(self._prior.spread)
        for g, part in enumerate(self._conditioned):
            outputs = self.followers(g)
            quadratic = part.quadratic(self._targets[:, outputs].numpy())
            spread[outputs] = torch.from_numpy(quadratic / len(self._targets))
        self._prior = replace(self._prior, spread=spread.clamp_min(1e-6))

    def followers(self, process: int) -> Tensor:
        """Outputs (k,) that follow a process."""
        return torch.nonzero(self._prior.process == process)[:, 0]

    # -- what was learnt ----------------------------------------------------------------------

    @property
    def process_prior(self) -> Prior:
        """Kernels, noise and spreads, in the units of the targets."""
        return self._prior

    @property
    def conditioned(self) -> Sequence[Conditioned]:
        """Each process given the training rows."""
        return self._conditioned

    @property
    def training_inputs(self) -> Tensor:
        """Inputs (n, d) of the training rows, in the unit cube."""
        return self._inputs

    # -- predictions --------------------------------------------------------------------------

    @property
    def _constant(self) -> Tensor:
        """Constant mean of each output, (m,)."""
        mean = torch.empty_like(self._prior.spread)
        for g, part in enumerate(self._conditioned):
            mean[self.followers(g)] = torch.from_numpy(part.mean)
        return mean

    def _predictive(self, U: Tensor) -> Predictive:
        return self._predictive_of(U, torch.arange(len(self._prior.spread)))

    def _predictive_of(self, U: Tensor, outputs: Tensor) -> Predictive:
        prior = self._prior
        mean = torch.empty(len(U), len(outputs), dtype=U.dtype)
        variance = torch.empty_like(mean)
        for g, part, own, at in self._processes(outputs):
            kernel = prior.kernel.process(g)
            for rows in torch.arange(len(U)).split(self._rows_at_once):
                cross = kernel(U[rows], self._inputs)[0].numpy()
                here = part.mean[own] + cross @ part.weights[:, own]
                half = blas.dtrsm(1.0, part.factor, cross.T, lower=1, overwrite_b=1)
                explained = torch.from_numpy(np.einsum("ij,ij->j", half, half))
                left = (kernel.diagonal(U[rows])[0] - explained).clamp_min(0.0) + prior.noise[g]
                mean[rows.unsqueeze(1), at] = torch.from_numpy(here)
                variance[rows.unsqueeze(1), at] = left.unsqueeze(1).expand(-1, len(at))
        return Predictive.gaussian(mean, (variance * prior.spread[outputs]).sqrt())

    def _expected(self, U: Tensor, outputs: Tensor) -> Tensor:
        mean = torch.empty(len(U), len(outputs), dtype=U.dtype)
        for g, part, own, at in self._processes(outputs):
            kernel, weights = self._prior.kernel.process(g), part.weights[:, own]
            for rows in torch.arange(len(U)).split(self._rows_at_once):
                cross = kernel(U[rows], self._inputs)[0].numpy()
                mean[rows.unsqueeze(1), at] = torch.from_numpy(part.mean[own] + cross @ weights)
        return mean

    @property
    def _rows_at_once(self) -> int:
        """Rows whose covariances with the training rows stay in a processor's cache, or a few."""
        n = len(self._inputs)
        return max(1, min(CELLS // n, max(_FEWEST_ROWS, _CACHED_CELLS // n)))

    def _processes(
        self, outputs: Tensor
    ) -> Iterator[tuple[int, Conditioned, NDArray[np.int_], Tensor]]:
        """Each process that outputs (k,) follow: it, which of its own, which of the k they are."""
        for g, part in enumerate(self._conditioned):
            at = torch.nonzero(self._prior.process[outputs] == g)[:, 0]
            if len(at):
                yield g, part, torch.searchsorted(self.followers(g), outputs[at]).numpy(), at

    def _functions(self, count: int, generator: torch.Generator) -> Functions:
        prior, m = self._prior, len(self._prior.spread)
        parts = []
        for g, part, own, at in self._processes(torch.arange(m)):
            kernel = prior.kernel.process(g)
            features = kernel.random_features(generator)
            theta, correction = matheron(
                features, self._inputs, prior.noise[g], part.solve, len(own), count, generator
            )
            parts.append((kernel, features, theta, correction, part, at))

        def values(U: Tensor) -> Tensor:
            found = torch.empty(count, len(U), m, dtype=U.dtype)
            for kernel, features, theta, correction, part, at in parts:
                for rows in torch.arange(len(U)).split(self._rows_at_once):
                    cross = kernel(U[rows], self._inputs)[0]
                    away = features(U[rows]) @ theta - cross @ correction
                    away = away.reshape(len(rows), count, -1).movedim(1, 0)
                    mean = torch.from_numpy(part.mean + cross.numpy() @ part.weights)
                    found[:, rows.unsqueeze(1), at] = mean + prior.spread[at].sqrt() * away
            return found

        return values

    def _posterior(self, U: Tensor, observation_noise: bool) -> GPyTorchPosterior:
        *batch, q, _ = U.shape
        prior = self._prior
        cross = prior.kernel(U, self._inputs)
        own = prior.kernel(U, U)
        if observation_noise:
            own = own + prior.noise[:, None, None] * torch.eye(q, dtype=U.dtype)
        means: list[Tensor] = [U] * len(prior.spread)
        covariances: list[Tensor] = [U] * len(prior.spread)
        for g, part in enumerate(self._conditioned):
            here = cross[..., g, :, :]
            columns = here.reshape(-1, here.shape[-1]).mT
            factor = torch.from_numpy(part.factor.T).mT
            half = torch.linalg.solve_triangular(factor, columns, upper=False)
            half = half.mT.reshape(*batch, q, -1)
            left = own[..., g, :, :] - half @ half.mT
            mean = torch.from_numpy(part.mean) + here @ torch.from_numpy(part.weights)
            for at, j in enumerate(self.followers(g).tolist()):
                means[j], covariances[j] = mean[..., at], prior.spread[j] * left
        return joint_normal(means, covariances)

    # -- cross-validation ---------------------------------------------------------------------

    def _fit_folds(self, U: Tensor, Z: Tensor, folds: NDArray[np.int_]) -> Predictive:
        deadline = Deadline.after(self.max_seconds)
        self._fit(U, Z)
        steps = self._fold_steps(len(U)) if len(self._theta) == Z.shape[1] else 0
        with one_thread(len(U) < _ONE_THREAD_ROWS):
            closed = self._held_out(folds)
            held = folds[folds >= 0]
            for fold in np.unique(held) if steps > 0 else ():
                if deadline.passed:
                    break
                part = self._refitted(U, Z, folds != fold, steps, deadline)
                moved = part._predictive(U[torch.from_numpy(folds == fold)])
                rows = torch.from_numpy(held == fold)
                closed.loc[:, rows], closed.scale[:, rows] = moved.loc, moved.scale
        return closed

    def _fold_steps(self, rows: int) -> int:
        if self.fold_iterations is not None:
            return self.fold_iterations
        return 8 if rows <= 400 else 4 if rows <= 1000 else 0

    def _refitted(
        self, U: Tensor, Z: Tensor, inside: NDArray[np.bool_], steps: int, deadline: Deadline
    ) -> GaussianProcess:
        """Return a copy fitted to some rows by a few steps from these hyperparameters."""
        at = torch.from_numpy(inside)
        U, Z = U[at], Z[at]
        likelihood = self._likelihood(U)
        theta = [
            climb(likelihood, Z[:, [j]].numpy(), start, deadline, steps)
            for j, start in enumerate(self._theta.numpy())
        ]
        copy = self._copy()
        copy._condition(torch.from_numpy(np.array(theta)), U, Z)
        return copy

    def _copy(self) -> GaussianProcess:
        """Return an unfitted copy with the kernel of this one."""
        copy: GaussianProcess = clone(self)
        return copy

    def _held_out(self, folds: NDArray[np.int_]) -> Predictive:
        """Closed-form predictions (of rows with a fold) at these hyperparameters."""
        mean, variance = torch.empty_like(self._targets), torch.empty_like(self._targets)
        for g, part in enumerate(self._conditioned):
            outputs = self.followers(g)
            values, spread = part.held_out(self._targets[:, outputs].numpy(), folds)
            mean[:, outputs] = torch.from_numpy(values)
            variance[:, outputs] = torch.from_numpy(spread).unsqueeze(1)
        held = torch.from_numpy(folds >= 0)
        return Predictive.gaussian(mean, (variance * self._prior.spread).sqrt())[held]

    def leave_one_out(self) -> Predictive:
        """Return each training row's predictive by the process without it, in closed form.

        Hyperparameters are those of all rows.
        """
        mean, variance = torch.empty_like(self._targets), torch.empty_like(self._targets)
        for g, part in enumerate(self._conditioned):
            outputs = self.followers(g)
            values, spread = part.leave_one_out(self._targets[:, outputs].numpy())
            mean[:, outputs] = torch.from_numpy(values)
            variance[:, outputs] = torch.from_numpy(spread).unsqueeze(1)
        predictive = Predictive.gaussian(mean, (variance * self._prior.spread).sqrt())
        return predictive.affine(self._y_shift, self._y_scale)

    # -- state --------------------------------------------------------------------------------

    def _state(self) -> dict[str, Tensor]:
        return {
            "inputs": self._inputs,
            "targets": self._targets,
            "theta": self._theta,
            "spread": self._prior.spread,
        }

    def _load(self, state: dict[str, Tensor]) -> None:
        self._condition(state["theta"], state["inputs"], state["targets"], state["spread"])

    def __getstate__(self) -> dict[str, Any]:
        """Leave the factors out of a pickle: they follow from the rest."""
        state = dict(super().__getstate__())
        state.pop("_conditioned", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_theta" in state:
            self._condition(self._theta, self._inputs, self._targets, self._prior.spread)


def check_process(surrogate: GaussianProcess, rows: int) -> None:
    """Refuse options that no exact process accepts."""
    name, floor = type(surrogate).__name__, surrogate.min_noise
    if not 0.0 < floor < 1.0:
        raise UserError(f"min_noise must lie between 0 and 1, got {floor!r}")
    if surrogate.max_exact < 2:
        raise UserError(f"max_exact must be at least 2 rows, got {surrogate.max_exact!r}")
    if rows > MAX_ROWS:
        raise UserError(
            f"{name} takes at most {MAX_ROWS:,} rows, got {rows:,}: use SparseGP for more"
        )
